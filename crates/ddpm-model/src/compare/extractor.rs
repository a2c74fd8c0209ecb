//! Features of images: the pixels themselves, or the output of a TorchScript module.

use std::fmt;
use std::path::{Path, PathBuf};

use ddpm_comm::{Agreed, Collective, agree};
use ddpm_data::ImageShape;
use ddpm_spec::Features;
use tch::{CModule, Device, Kind, TchError, Tensor};

use crate::digest;
use crate::error::{Error, ErrorKind, Failure};

/// More features than this have covariances of gigabytes, whatever the batch, whose roots take many minutes on the one
/// rank that computes them.
pub const MOST_FEATURES: i64 = 8192;

/// Computes features of images of one shape.
pub struct Extractor {
    by: By,
    image: ImageShape,
    dim: i64,
    device: Device,
}

enum By {
    Pixels,
    Module { path: PathBuf, module: CModule, sha256: String },
}

impl Extractor {
    /// Opens the extractor of these features for images of the shape `image`, all ranks together, and tries it on blank
    /// images.
    ///
    /// # Errors
    /// The file cannot be read, is not a TorchScript module, does not take such images or does not return `[B, D]`; or
    /// the ranks have different files.
    pub fn open(
        comm: &dyn Collective,
        features: &Features,
        image: ImageShape,
        device: Device,
    ) -> Result<Self, Failure> {
        let ours = agree::unanimous(comm, Self::load(features, image, device))?;
        if agree::alike(comm, format!("{:?} {}", ours.sha256(), ours.dim).as_bytes()) {
            return Ok(ours);
        }
        let message = format!("the ranks found different features in {features}; give all of them the same file");
        Err(Agreed::known_to_all(Error::config(message)).into())
    }

    fn load(features: &Features, image: ImageShape, device: Device) -> Result<Self, Error> {
        let by = match features {
            Features::Pixels => By::Pixels,
            Features::File(path) => By::module(Path::new(path), device)?,
        };
        let mut this = Self { by, image, dim: 0, device };
        let [channels, height, width] = image.sizes();
        let blank = Tensor::f_zeros([2, channels, height, width], (Kind::Float, device))?;
        this.dim = this.apply(&blank)?.size()[1];
        Ok(this)
    }

    /// The features `[B, D]` of images f32 `[B, C, H, W]` in `[-1, 1]`.
    ///
    /// # Errors
    /// The module fails, or its output is not finite or not `[B, D]`.
    pub fn features(&self, images: &Tensor) -> Result<Tensor, Error> {
        let features = self.apply(images)?;
        if features.f_isfinite()?.f_all()?.int64_value(&[]) == 0 {
            return Err(Error::config(format!(
                "{self} gives features that are not finite; give another, or other images"
            )));
        }
        Ok(features)
    }

    fn apply(&self, images: &Tensor) -> Result<Tensor, Error> {
        let features = match &self.by {
            By::Pixels => images.shallow_clone(),
            By::Module { path, module, .. } => {
                let output = tch::no_grad(|| module.forward_ts(&[images]));
                output.map_err(|error| {
                    let words = first_line(&error);
                    match Error::from(error) {
                        // An error of the machine, or about determinism, is not the module's fault.
                        error if error.kind() != ErrorKind::Internal => error,
                        _ => refused(path, &format!("does not take images {:?} ({words})", images.size())),
                    }
                })?
            }
        };
        let (count, size) = (images.size()[0], features.size());
        if size.len() < 2 || size[0] != count || size.contains(&0) {
            return Err(Error::config(format!(
                "{self} returns {size:?} for {count} images; give a module whose output is [B, D], one row for each \
                 image"
            )));
        }
        Ok(features.f_flatten(1, -1)?)
    }

    /// D, the number of features of an image.
    pub fn dim(&self) -> i64 {
        self.dim
    }

    /// The shape of the images.
    pub fn image(&self) -> ImageShape {
        self.image
    }

    /// Where features are computed.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The SHA-256 of the module's file, in hexadecimal.
    pub fn sha256(&self) -> Option<&str> {
        match &self.by {
            By::Pixels => None,
            By::Module { sha256, .. } => Some(sha256),
        }
    }
}

impl By {
    fn module(path: &Path, device: Device) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
        let mut module = CModule::load_data_on_device(&mut bytes.as_slice(), device)
            .map_err(|error| refused(path, &format!("is not a valid TorchScript module ({})", first_line(&error))))?;
        module.f_set_eval()?;
        let sha256 = digest::of(&bytes);
        Ok(Self::Module { path: path.into(), module, sha256 })
    }
}

impl fmt::Display for Extractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            By::Pixels => f.write_str("pixels"),
            By::Module { path, .. } => path.display().fmt(f),
        }
    }
}

/// The first line of libtorch's message; the rest is a stack trace.
fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn refused(path: &Path, what: &str) -> Error {
    Error::config(format!(
        "{} {what}; give one that takes f32 images [B, C, H, W], saved by torch.jit.save",
        path.display()
    ))
}
