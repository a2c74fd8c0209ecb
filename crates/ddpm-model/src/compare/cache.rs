//! Where statistics of a data set are kept between runs, so that they are computed once.

use std::env;
use std::path::PathBuf;

use ddpm_data::Source;
use serde_json::json;

use super::extractor::Extractor;
use crate::digest;
use crate::error::Error;

/// Number of images, evenly spaced, whose pixels are part of a data set's identity.
const PROBED: u64 = 64;

/// The file for the statistics of the first `count` images of `source`, named after everything that they depend on;
/// `None` if the user has no cache folder.
///
/// A data set's fingerprint covers the names of its files, not their contents, nor how they are cropped and scaled: the
/// pixels of some images stand for these.
///
/// # Errors
/// One of those images cannot be read.
pub fn path(source: &dyn Source, count: usize, extractor: &Extractor) -> Result<Option<PathBuf>, Error> {
    let Some(folder) = folder() else { return Ok(None) };
    let mut pixels = Vec::new();
    let last = count as u64 - 1;
    let probed = PROBED.min(count as u64);
    for i in 0..probed {
        let id = (last * i).checked_div(probed - 1).unwrap_or(0);
        pixels.extend(ddpm_data::preview(source, id, 1, 1)?.images);
    }
    let protocol = json!({
        "version": 1, "data": source.fingerprint(), "pixels": digest::of(pixels), "count": count,
        "image": extractor.image().sizes(), "features": extractor.sha256(),
    });
    let name = digest::of(protocol.to_string());
    Ok(Some(folder.join(&name[..32]).with_extension("npz")))
}

/// The user's cache folder, as the scripts choose it.
fn folder() -> Option<PathBuf> {
    let ours = env::var_os("DDPM_CACHE").filter(|value| !value.is_empty()).map(PathBuf::from);
    let ours = ours.or_else(|| Some(ddpm_data::user_caches()?.join("ddpm-dist")))?;
    Some(ours.join("statistics"))
}
