//! A comparison of two sets of images: opened once by all ranks, measured in several ways, and described completely.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ddpm_comm::{Agreed, Collective};
use ddpm_config::Settings;
use ddpm_data::{Depth, ImageShape, Source, Split};
use ddpm_eval::{KernelDistance, Manifold, Subsets};
use ddpm_spec::Features;
use ddpm_telemetry::Showing;
use serde_json::{Value, json};
use tch::{Device, Tensor};

use super::distances::{PrecisionRecall, kernel_distance, precision_recall};
use super::evaluated::Evaluated;
use super::extractor::Extractor;
use super::image_set::ImageSet;
use super::reference::{Origin, Reference};
use crate::data;
use crate::error::{Error, Failure};

/// Two sets of images, and what computes their features.
pub struct Comparison {
    evaluated: Evaluated,
    against: Against,
    extractor: Extractor,
    batch: usize,
}

/// What images are compared with.
pub enum Against {
    /// The first images of a data set.
    Data {
        /// The data set.
        source: Arc<dyn Source>,
        /// Its split.
        split: Split,
        /// The number of images.
        count: usize,
    },
    /// Statistics in an `.npz` file.
    File(PathBuf),
}

impl Against {
    /// The first `count` images of the data set that `settings` describe, or all.
    ///
    /// # Errors
    /// The data set cannot be opened, or has fewer images.
    pub fn data(settings: &Settings, split: Split, count: Option<u64>) -> Result<Self, Error> {
        let source = data::open(settings, split)?;
        let count = data::count(count, source.len(), source.describe())?;
        Ok(Self::Data { source, split, count })
    }

    /// The shape of the images, if it is known.
    pub fn image(&self) -> Option<ImageShape> {
        match self {
            Self::Data { source, .. } => Some(source.image()),
            Self::File(_) => None,
        }
    }

    /// The depth of the images, which that of statistics is not known to exceed.
    fn depth(&self) -> Depth {
        match self {
            Self::Data { source, .. } => source.depth(),
            Self::File(_) => Depth::Byte,
        }
    }
}

impl Comparison {
    /// Checks that both sides fit and are the same on every rank, and opens the features; all ranks together. `batch`
    /// is the number of images per forward pass.
    ///
    /// # Errors
    /// The two sides differ in shape or between ranks, or the features cannot be used.
    pub fn open(
        comm: &dyn Collective,
        evaluated: Evaluated,
        against: Against,
        features: &Features,
        device: Device,
        batch: usize,
    ) -> Result<Self, Failure> {
        let image = evaluated.image();
        if let Some(other) = against.image().filter(|other| *other != image) {
            let message = format!(
                "the evaluated images are {image} (channels, height, width), and those to compare with are {other}; \
                 both sides must have the same shape: set data.image_size and data.channels"
            );
            return Err(Agreed::known_to_all(Error::config(message)).into());
        }
        evaluated.check_same(comm)?;
        if let Against::Data { source, .. } = &against {
            data::check_same(comm, source.as_ref())?;
        }
        let extractor = Extractor::open(comm, features, image, device)?;
        Ok(Self { evaluated, against, extractor, batch })
    }

    /// Images of which features are computed at once.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// D, the number of features of an image.
    pub fn dim(&self) -> i64 {
        self.extractor.dim()
    }

    /// The Fréchet distance, and where the statistics come from with which the images are compared. These are written
    /// to `statistics` if that is given.
    ///
    /// # Errors
    /// Images cannot be read or drawn, the statistics are not usable, or a side has fewer than two images.
    pub fn frechet_distance(&self, comm: &dyn Collective, statistics: Option<&Path>) -> Result<(f64, Origin), Failure> {
        let reference = match &self.against {
            Against::Data { source, count, .. } => Reference::Images { source: source.as_ref(), count: *count },
            Against::File(path) => Reference::File(path),
        };
        let reference = reference.statistics(comm, &self.extractor, self.batch, Showing::on(comm.rank()))?;
        if let Some(path) = statistics {
            reference.write(comm, path)?;
        }
        let moments = |images: &ImageSet| images.moments(comm, &self.extractor, self.batch, Showing::on(comm.rank()));
        let samples = self.evaluated.with_images(self.against.depth(), moments)?;
        Ok((reference.distance(comm, &samples)?, reference.origin))
    }

    /// The kernel distance.
    ///
    /// # Errors
    /// Images cannot be read or drawn, or a side has too few images for a subset.
    pub fn kernel_distance(&self, comm: &dyn Collective, subsets: Subsets) -> Result<KernelDistance, Failure> {
        let (samples, reference) = self.rows(comm, |count| Ok(subsets.check(count)?))?;
        kernel_distance(comm, &samples, &reference, subsets, self.extractor.device())
    }

    /// Precision and recall, by manifolds of k nearest `neighbours`.
    ///
    /// # Errors
    /// Images cannot be read or drawn, or a side has too few images.
    pub fn precision_recall(&self, comm: &dyn Collective, neighbours: usize) -> Result<PrecisionRecall, Failure> {
        let (samples, reference) = self.rows(comm, |count| Ok(Manifold::check(count, neighbours)?))?;
        precision_recall(comm, &samples, &reference, neighbours, self.extractor.device())
    }

    /// The features `[N, D]` of both sides, once `check` has accepted their numbers.
    fn rows(
        &self,
        comm: &dyn Collective,
        check: impl Fn(usize) -> Result<(), Error>,
    ) -> Result<(Tensor, Tensor), Failure> {
        let Against::Data { source, count, .. } = &self.against else {
            let message = "this distance is measured from images, and their statistics are given; name a data set";
            return Err(Agreed::known_to_all(Error::config(message)).into());
        };
        [self.evaluated.count(), *count].into_iter().try_for_each(check).map_err(Agreed::known_to_all)?;
        let rows = |images: &ImageSet| images.rows(comm, &self.extractor, self.batch, Showing::on(comm.rank()));
        let reference = rows(&ImageSet::Data { source: source.as_ref(), count: *count })?;
        Ok((self.evaluated.with_images(self.against.depth(), rows)?, reference))
    }

    /// Four lines of text: the evaluated images, what they are compared with, the features, and the protocol.
    pub fn describe(&self) -> String {
        let against = match &self.against {
            Against::File(path) => path.display().to_string(),
            Against::Data { source, split, count } => format!("{count} of {}, {split} split", source.describe()),
        };
        let (evaluated, dim, protocol) = (self.evaluated.describe(), self.dim(), self.protocol());
        format!("images    {evaluated}\nreference {against}\nfeatures  {dim}: {}\nprotocol  {protocol}", self.extractor)
    }

    /// The numbers of images and of features, and `protocol`.
    pub fn to_json(&self) -> Value {
        let (data, split, count) = match &self.against {
            Against::Data { source, split, count } => (Some(source.describe()), Some(split), Some(count)),
            Against::File(_) => (None, None, None),
        };
        json!({
            "samples": self.evaluated.count(),
            "images": count,
            "data": data,
            "split": split,
            "features": self.extractor.to_string(),
            "dim": self.dim(),
            "protocol": self.protocol(),
        })
    }

    /// Everything that a result depends on.
    fn protocol(&self) -> Value {
        let reference = match &self.against {
            Against::Data { source, split, count } => {
                json!({ "data": source.describe(), "split": split, "count": count })
            }
            Against::File(path) => json!({ "file": path }),
        };
        json!({
            "evaluated": self.evaluated.protocol(),
            "reference": reference,
            "image": self.extractor.image().sizes(),
            "resize": "images of a data set: fitted to this size as [data] says; none besides",
            "levels": match self.against.depth() {
                Depth::Byte => "clipped to [-1, 1] and rounded to 256 levels",
                Depth::Float => "clipped to [-1, 1]",
            },
            "features": self.extractor.to_string(),
            "features_sha256": self.extractor.sha256(),
            "device": format!("{:?}", self.extractor.device()),
            "batch": self.batch,
        })
    }
}
