//! One image as it is packed: its file as it is stored, or a file of the image that training would see.

use std::path::Path;

use crate::listing::is_image;
use crate::source::Encoded;
use crate::{DataError, Source, pixels};

/// An image file, its name and its class.
pub(super) struct Record {
    pub bytes: Vec<u8>,
    /// The name of the file that it came from, or one made of the id.
    pub name: String,
    /// The ending of the name, without the dot.
    pub extension: String,
    pub class: Option<u32>,
}

/// Image `id`, which is decoded in any case, so that unusable ones are found now and not in training; `values` is room
/// for it.
///
/// # Errors
/// Those of [`Source::read`].
pub(super) fn record(source: &dyn Source, id: u64, resized: bool, values: &mut [u8]) -> Result<Record, DataError> {
    let class = source.read(id, values)?;
    let stored = match resized {
        true => None,
        false => source.encoded(id)?,
    };
    let Some(Encoded { bytes, name, .. }) = stored else {
        let bytes = pixels::encode(values, source.image(), source.depth());
        let bytes = bytes.map_err(|error| DataError::Setting(error.to_string()))?;
        let extension = ending(&bytes);
        return Ok(Record { bytes, name: format!("{id:09}.{extension}"), extension, class });
    };
    // Whoever reads the shard recognises images by their endings.
    let extension = match Path::new(&name).extension() {
        Some(extension) if is_image(name.as_ref()) => extension.to_string_lossy().to_lowercase(),
        _ => ending(&bytes),
    };
    let name = if name.is_empty() { format!("{id:09}.{extension}") } else { name };
    Ok(Record { bytes, name, extension, class })
}

/// The usual ending of the name of a file with this content.
fn ending(bytes: &[u8]) -> String {
    pixels::extension(bytes).unwrap_or("bin").to_owned()
}
