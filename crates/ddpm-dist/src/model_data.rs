//! The images that a command feeds to a model.

use std::sync::Arc;

use ddpm_data::Source;
use ddpm_model::{Error, Model};

use crate::cli::DataArgs;

/// Opens the data set; refuses one with fewer than `count` images.
pub fn open(model: &Model, args: &DataArgs, count: usize) -> Result<Arc<dyn Source>, Error> {
    let settings = model.data_settings(args.data.as_deref(), &args.overrides)?;
    let source = model.open_data(&settings, args.split)?;
    check_count(source.as_ref(), count as u64)?;
    Ok(source)
}

/// Refuses to use more images than there are.
pub fn check_count(source: &dyn Source, count: u64) -> Result<(), Error> {
    let available = source.len();
    if count <= available {
        return Ok(());
    }
    Err(Error::config(format!("-n asks for {count} images of {}; give at most {available}", source.describe())))
}
