//! The images that a command feeds to a model.

use std::sync::Arc;

use ddpm_data::Source;
use ddpm_model::{Error, Model, data};

use crate::cli::DataArgs;

/// Opens the data set; refuses one with fewer than `count` images.
pub fn open(model: &Model, args: &DataArgs, count: usize) -> Result<Arc<dyn Source>, Error> {
    let settings = model.data_settings(args.data.as_deref(), &args.overrides)?;
    let source = model.open_data(&settings, args.split)?;
    data::count(Some(count as u64), source.len(), source.describe())?;
    Ok(source)
}
