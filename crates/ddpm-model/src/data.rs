//! The data set that a configuration describes.

use std::fmt::Display;
use std::sync::Arc;

use ddpm_comm::{Agreed, Collective, agree};
use ddpm_config::Settings;
use ddpm_data::{Source, Split, class_phrases, some_of};

use crate::error::{Error, ErrorKind, Failure};

/// Maximum number of classes named in a log line.
const CLASSES_SHOWN: usize = 20;

/// Opens the data set that `[data]` describes, and checks that it fits `[model]`.
pub fn open(settings: &Settings, split: Split) -> Result<Arc<dyn Source>, Error> {
    let source = open_unchecked(settings, split)?;
    check_fits(settings, source.as_ref())?;
    Ok(source)
}

/// Opens the data set that `[data]` describes.
pub fn open_unchecked(settings: &Settings, split: Split) -> Result<Arc<dyn Source>, Error> {
    Ok(ddpm_data::open(&settings.data_spec(split)?)?)
}

/// Refuses a data set whose images or classes are not those that the settings describe.
pub fn check_fits(settings: &Settings, source: &dyn Source) -> Result<(), Error> {
    let (found, described) = (source.image(), settings.data.image());
    if found != described {
        return Err(Error::config(format!(
            "the data has images of {found} (channels, height, width) but data.channels and data.image_size describe \
             {described}; set them to {} and {}",
            found.channels,
            found.size()
        )));
    }
    if source.depth() != settings.data.depth() {
        return Err(Error::config("the data has values of another kind than data.range says; set it or leave it out"));
    }
    let Some(classes) = settings.model.classes else { return Ok(()) };
    match source.classes() {
        Some(found) if found <= classes as usize => Ok(()),
        Some(found) => Err(Error::config(format!(
            "the data has {found} classes but model.classes is {classes}; set it to {found}"
        ))),
        None => Err(Error::config(format!(
            "model.classes is {classes} but the data carries no labels; set data.labels, or leave model.classes out"
        ))),
    }
}

/// The number of images to use: as many as `asked` for, at most the `available` ones of `what`, which is the default.
pub fn count(asked: Option<u64>, available: u64, what: impl Display) -> Result<usize, Error> {
    match asked {
        Some(asked) if asked > available => {
            Err(Error::config(format!("{asked} images are requested of {what}; give at most {available}")))
        }
        asked => Ok(asked.unwrap_or(available) as usize),
    }
}

/// A log line with the names and image counts of a data set's first classes.
pub fn class_summary(source: &dyn Source) -> String {
    let table = source.class_table();
    some_of(class_phrases(&table), CLASSES_SHOWN)
}

/// Refuses a data set that is not the same on every rank.
pub fn check_same(comm: &dyn Collective, source: &dyn Source) -> Result<(), Failure> {
    let identity = format!("{} {} {}", source.len(), source.fingerprint(), source.describe());
    if agree::alike(comm, identity.as_bytes()) {
        return Ok(());
    }
    let message = "the ranks see different data sets; make data.path the same files on every machine";
    Err(Agreed::known_to_all(Error::new(ErrorKind::Storage, message)).into())
}
