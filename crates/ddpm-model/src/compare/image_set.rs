//! Sets of images to compare, and their features, computed by all ranks together.

use ddpm_comm::{Collective, Reduce, agree};
use ddpm_data::{Depth, Source};
use ddpm_eval::FeatureMoments;
use ddpm_telemetry::{Showing, Work};
use tch::{Device, Kind, Tensor};

use super::extractor::Extractor;
use crate::draw::Generation;
use crate::error::{Error, Failure};
use crate::images;
use crate::samples::Samples;

/// A set of images.
pub enum ImageSet<'a> {
    /// The first images of a data set.
    Data {
        /// The data set, the same on every rank.
        source: &'a dyn Source,
        /// The number of images.
        count: usize,
    },
    /// The first samples in files, the same on every rank.
    Samples {
        /// The files.
        samples: &'a Samples,
        /// The number of images.
        count: usize,
        /// The depth of the images that they are compared with.
        depth: Depth,
    },
    /// Images drawn for the comparison, which are kept nowhere.
    Drawn {
        /// How they are drawn.
        generation: &'a Generation<'a>,
        /// The number of images.
        count: usize,
        /// The depth of the images that they are compared with.
        depth: Depth,
    },
}

impl ImageSet<'_> {
    /// The number of images.
    pub fn count(&self) -> usize {
        match self {
            Self::Data { count, .. } | Self::Samples { count, .. } | Self::Drawn { count, .. } => *count,
        }
    }

    /// Mean and covariance of the features of all images, on every rank. Samples have the levels that
    /// images of their depth can have.
    ///
    /// # Errors
    /// Images cannot be read or drawn, or the extractor fails on them.
    pub fn moments(
        &self,
        comm: &dyn Collective,
        extractor: &Extractor,
        batch: usize,
        showing: Showing,
    ) -> Result<FeatureMoments, Failure> {
        let mut moments = agree::unanimous(comm, FeatureMoments::new(extractor.dim()).map_err(Error::from))?;
        let add = |_, images: &Tensor| Ok(moments.add(&extractor.features(images)?)?);
        self.for_each(comm, extractor.device(), batch, showing, add)?;
        moments.merge(|values| comm.all_reduce_f64(values, Reduce::Sum))?;
        Ok(moments)
    }

    /// The features of all images, f32 `[N, D]`, on every rank.
    ///
    /// # Errors
    /// As for [`moments`](Self::moments).
    pub fn rows(
        &self,
        comm: &dyn Collective,
        extractor: &Extractor,
        batch: usize,
        showing: Showing,
    ) -> Result<Tensor, Failure> {
        let (count, dim) = (self.count() as i64, extractor.dim());
        let rows =
            agree::unanimous(comm, Tensor::f_zeros([count, dim], (Kind::Float, Device::Cpu)).map_err(Error::from))?;
        self.for_each(comm, extractor.device(), batch, showing, |first, images| {
            let features = extractor.features(images)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
            rows.f_narrow(0, first as i64, images.size()[0])?.f_copy_(&features)?;
            Ok(())
        })?;
        if comm.size() == 1 {
            return Ok(rows);
        }
        let mut values: Vec<f32> = Vec::try_from(rows.f_view(-1)?)?;
        comm.all_reduce(&mut values, Reduce::Sum);
        Ok(Tensor::f_from_slice(&values)?.f_view([count, dim])?)
    }

    /// Passes each batch of this rank's share to `take`, with the index of its first image. Which images share a batch
    /// does not depend on the number of ranks, unless they are drawn.
    fn for_each(
        &self,
        comm: &dyn Collective,
        device: Device,
        batch: usize,
        showing: Showing,
        take: impl FnMut(usize, &Tensor) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        let what = if matches!(self, Self::Drawn { .. }) { "drawing" } else { "reading" };
        Work::on_images(what, self.count(), showing, |progress| self.pass_each(comm, device, batch, progress, take))
    }

    /// The same; `progress` gets (done, total) of this rank's share, in images read or in steps of drawing.
    fn pass_each(
        &self,
        comm: &dyn Collective,
        device: Device,
        batch: usize,
        progress: &dyn Fn(usize, usize),
        mut take: impl FnMut(usize, &Tensor) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        let mut share = |count: usize, read: &dyn Fn(usize, usize) -> Result<Tensor, Error>| -> Result<(), Failure> {
            let ours = (comm.rank() * batch..count).step_by(comm.size() * batch);
            let ours: Vec<_> = ours.map(|first| (first, batch.min(count - first))).collect();
            let (mut done, total) = (0, ours.iter().map(|(_, size)| size).sum());
            let taken = ours.into_iter().try_for_each(|(first, size)| {
                take(first, &read(first, size)?)?;
                done += size;
                progress(done, total);
                Ok(())
            });
            Ok(agree::unanimous(comm, taken)?)
        };
        match self {
            Self::Data { source, count } => {
                share(*count, &|first, count| Ok(images::read(*source, first as u64, count, device)?.x_start))
            }
            Self::Samples { samples, count, depth } => share(*count, &|first, count| {
                quantised(*depth, &samples.read(first, count)?.images.f_to_device(device)?)
            }),
            Self::Drawn { generation, count, depth } => {
                let [channels, height, width] = generation.network.image().sizes();
                generation.run(comm, *count, progress, |indices, drawn| {
                    let samples = Tensor::f_from_slice(&drawn.samples)?.f_view([-1, channels, height, width])?;
                    take(indices.start, &quantised(*depth, &samples.f_to_device(device)?)?)
                })
            }
        }
    }
}

/// Samples with the values that images of this depth can have.
fn quantised(depth: Depth, samples: &Tensor) -> Result<Tensor, Error> {
    let clamped = samples.f_clamp(-1.0, 1.0)?;
    Ok(match depth {
        Depth::Byte => ((clamped + 1.0) * 127.5).f_round()? / 127.5 - 1.0,
        Depth::Float => clamped,
    })
}
