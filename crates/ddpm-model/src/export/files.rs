//! The files of weights in an export.

use std::path::Path;

use ddpm_nn::Layout;

use crate::error::Error;
use crate::tensor_file::{self, Entry};

/// The last layer, whose first channels are the prediction.
const LAST: &str = "conv_out.";

/// Writes the parameters `values` of `layout` to `path`. With `outputs`, the last layer keeps only so many channels.
pub(super) fn write(path: &Path, layout: &Layout, values: &[f32], outputs: Option<i64>) -> Result<(), Error> {
    let parameters = layout.entries().iter().map(|parameter| {
        let mut shape: Vec<usize> = parameter.shape.iter().map(|length| *length as usize).collect();
        if let Some(outputs) = outputs.filter(|_| parameter.name.starts_with(LAST)) {
            shape[0] = outputs as usize;
        }
        // Output channels are the first dimension, so the kept ones come first in memory too.
        let values = &values[parameter.offset as usize..][..shape.iter().product()];
        Entry::floats(&parameter.name, &shape, values)
    });
    tensor_file::write_weights(path, &parameters.collect::<Vec<_>>())
}
