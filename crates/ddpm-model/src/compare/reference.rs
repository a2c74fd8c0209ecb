//! The statistics that a Fréchet distance is measured from: read from a file, kept from an earlier run, or computed.

use std::path::{Path, PathBuf};

use ddpm_comm::{Collective, agree};
use ddpm_data::Source;
use ddpm_eval::{FeatureMoments, Gaussian};
use ddpm_telemetry::Showing;
use serde::Serialize;

use super::extractor::Extractor;
use super::image_set::ImageSet;
use super::{cache, npz};
use crate::error::{Error, Failure};

/// What samples are compared with.
pub enum Reference<'a> {
    /// Statistics in an `.npz` file.
    File(&'a Path),
    /// The first images of a data set.
    Images {
        /// The data set, the same on every rank.
        source: &'a dyn Source,
        /// The number of images.
        count: usize,
    },
}

/// Statistics of features, on rank 0.
pub struct Statistics {
    gaussian: Option<Gaussian>,
    /// Where they come from; the same on every rank.
    pub origin: Origin,
}

/// Where statistics come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The file that the user named.
    Given,
    /// This file of the cache.
    Cached(PathBuf),
    /// Computed now.
    Computed,
}

impl Reference<'_> {
    /// The statistics of `extractor`'s features, all ranks together. Those of a data set are computed only if they are
    /// not in the user's cache, and then put there.
    ///
    /// # Errors
    /// The file is not usable or holds other features; images cannot be read.
    pub fn statistics(
        &self,
        comm: &dyn Collective,
        extractor: &Extractor,
        batch: usize,
        showing: Showing,
    ) -> Result<Statistics, Failure> {
        match self {
            Self::File(path) => {
                let mut gaussian = None;
                agree::act_on_root(comm, || {
                    gaussian = Some(check_width(path, npz::read(path)?, extractor)?);
                    Ok::<_, Error>(())
                })?;
                Ok(Statistics { gaussian, origin: Origin::Given })
            }
            Self::Images { source, count } => of_images(comm, *source, *count, extractor, batch, showing),
        }
    }
}

fn of_images(
    comm: &dyn Collective,
    source: &dyn Source,
    count: usize,
    extractor: &Extractor,
    batch: usize,
    showing: Showing,
) -> Result<Statistics, Failure> {
    let mut gaussian = None;
    let (path, found) = agree::on_root(comm, || {
        let path = cache::path(source, count, extractor)?;
        gaussian = path.as_deref().and_then(|path| cached(path, extractor));
        Ok::<_, Error>((path, gaussian.is_some()))
    })?;
    if let (Some(path), true) = (&path, found) {
        return Ok(Statistics { gaussian, origin: Origin::Cached(path.clone()) });
    }
    let moments = ImageSet::Data { source, count }.moments(comm, extractor, batch, showing)?;
    agree::act_on_root(comm, || {
        let computed = moments.gaussian()?;
        if let Some(path) = &path
            && let Err(error) = npz::write(path, &computed)
        {
            tracing::warn!("the statistics of the images are not kept for the next time: {error}");
        }
        gaussian = Some(computed);
        Ok::<_, Error>(())
    })?;
    Ok(Statistics { gaussian, origin: Origin::Computed })
}

/// The statistics in a file of the cache, if it is there and usable.
fn cached(path: &Path, extractor: &Extractor) -> Option<Gaussian> {
    if !path.exists() {
        return None;
    }
    match npz::read(path).and_then(|gaussian| check_width(path, gaussian, extractor)) {
        Ok(gaussian) => Some(gaussian),
        Err(error) => {
            tracing::warn!("computing the statistics of the images again: {error}");
            None
        }
    }
}

fn check_width(path: &Path, gaussian: Gaussian, extractor: &Extractor) -> Result<Gaussian, Error> {
    let (found, dim) = (gaussian.dim(), extractor.dim());
    if found == dim {
        return Ok(gaussian);
    }
    Err(Error::config(format!(
        "{} holds statistics of {found} features, but {extractor} gives {dim}; give statistics of the same features",
        path.display()
    )))
}

impl Statistics {
    /// The Fréchet distance of samples with these moments, computed on rank 0; the same on every rank.
    ///
    /// # Errors
    /// There are fewer than two samples.
    pub fn distance(&self, comm: &dyn Collective, samples: &FeatureMoments) -> Result<f64, Failure> {
        let distance = agree::on_root(comm, || {
            let reference = self.gaussian.as_ref().ok_or_else(|| Error::internal("rank 0 has no statistics"))?;
            // The root of the reference's covariance serves for later distances too.
            Ok::<_, Error>(reference.frechet_distance(&samples.gaussian()?)?)
        })?;
        Ok(distance)
    }

    /// Writes the statistics to an `.npz` file, from rank 0.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, comm: &dyn Collective, path: &Path) -> Result<(), Failure> {
        let write = || self.gaussian.as_ref().map_or(Ok(()), |gaussian| npz::write(path, gaussian));
        Ok(agree::act_on_root(comm, write)?)
    }
}
