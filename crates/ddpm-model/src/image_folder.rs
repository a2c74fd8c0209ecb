//! A folder of numbered images, as `sample` writes it. It never mixes them with other images, and never deletes images
//! unless asked to.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ddpm_data::{ImageShape, images_below};
use ddpm_telemetry::from_unit_floats;

use crate::error::{Error, Remedy};
use crate::pictures;

/// The folder, before anything is written to it.
pub struct ImageFolder<'a> {
    path: &'a Path,
    /// Numbered images of an earlier run.
    earlier: Vec<PathBuf>,
}

impl<'a> ImageFolder<'a> {
    /// Refuses a folder that already contains images, at any depth: a later reader of the samples, such as `eval fid`,
    /// would count them. With `overwrite`, the numbered ones of an earlier run are marked for deletion instead.
    pub fn open(path: &'a Path, overwrite: bool) -> Result<Self, Error> {
        let (earlier, others): (Vec<_>, Vec<_>) =
            images_below(path)?.into_iter().partition(|image| is_numbered(path, image));
        if let Some(other) = others.first() {
            return Err(Error::config(format!(
                "{} holds other images, such as {}, which would be counted among the samples; give another folder",
                path.display(),
                other.strip_prefix(path).unwrap_or(other).display()
            )));
        }
        if !earlier.is_empty() && !overwrite {
            let message = format!(
                "{} holds {} images of an earlier run, which would be counted among the samples; give another folder",
                path.display(),
                earlier.len()
            );
            return Err(Error::config(message).or(Remedy::Overwrite));
        }
        Ok(Self { path, earlier })
    }

    /// Deletes the images of an earlier run. Several ranks may do so at once.
    pub fn clear(&self) -> Result<(), Error> {
        for image in &self.earlier {
            match fs::remove_file(image) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::file(image, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes a PNG for each of `samples`, f32 `[N, C, H, W]` in `[-1, 1]`, by its number.
    pub fn write(&self, numbers: Range<usize>, samples: &[f32], image: ImageShape) -> Result<(), Error> {
        let images = from_unit_floats(samples);
        for (number, pixels) in numbers.zip(images.chunks_exact(image.values())) {
            let path = self.path.join(format!("{number:06}.png"));
            pictures::single(pixels, image)?.save_png(&path).map_err(|e| Error::file(&path, e))?;
        }
        Ok(())
    }
}

/// Whether an image has a name that [`ImageFolder::write`] gives.
fn is_numbered(folder: &Path, image: &Path) -> bool {
    let name = image.strip_prefix(folder).ok().and_then(Path::to_str);
    let digits = name.and_then(|name| name.strip_suffix(".png"));
    digits.is_some_and(|digits| digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
