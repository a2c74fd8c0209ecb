//! The images that a comparison evaluates: drawn from a model, read from files, or those of a data set.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ddpm_comm::{Agreed, Collective, agree};
use ddpm_config::Settings;
use ddpm_data::{Depth, ImageShape, Source, Split};
use ddpm_diffusion::{Ddim, Diffusion, Spacing, kept_timesteps};
use ddpm_spec::SamplerKind;
use serde_json::{Value, json};

use super::image_set::ImageSet;
use crate::arithmetic::kind_name;
use crate::draw::Generation;
use crate::error::{Error, Failure};
use crate::guides::Guides;
use crate::model::Model;
use crate::samples::{self, Samples};
use crate::{data, digest, steps};

/// The images to evaluate.
pub enum Evaluated {
    /// Images drawn from a model, which are kept nowhere.
    Drawn(Box<Drawing>),
    /// Images read from files.
    Samples {
        /// The files.
        samples: Samples,
        /// The number of images.
        count: usize,
        /// Where they are.
        path: PathBuf,
        /// The SHA-256 of what is there.
        sha256: String,
    },
    /// The first images of a data set.
    Data {
        /// The data set.
        source: Arc<dyn Source>,
        /// Its split.
        split: Split,
        /// The number of images.
        count: usize,
    },
}

/// How images are drawn for a comparison.
#[derive(Clone, Copy, Debug)]
pub struct DrawOptions {
    /// The number of images; classes take turns.
    pub count: usize,
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its steps, spaced as samples are; by default as many as for samples.
    pub steps: Option<usize>,
    /// DDIM's noise.
    pub eta: f64,
    /// Seed of the noise.
    pub seed: u64,
    /// Images drawn at a time.
    pub batch: usize,
}

/// Images to draw from a model.
pub struct Drawing {
    model: Model,
    options: DrawOptions,
    process: Diffusion,
    spacing: Spacing,
    labels: Option<Vec<i64>>,
    guides: Guides,
    /// The guidance in a phrase.
    guidance: Option<String>,
}

impl Evaluated {
    /// Images drawn from a model, guided by `guides`.
    ///
    /// # Errors
    /// The process does not have so many steps, or the model cannot be guided like this.
    pub fn drawn(model: Model, guides: Guides, options: DrawOptions) -> Result<Self, Error> {
        let total = model.diffusion.timesteps();
        let kept = steps::count(options.steps, steps::DEFAULT_SAMPLING_STEPS, total);
        let spacing = steps::spacing(None, &model.diffusion);
        let kept = kept_timesteps(spacing, total, kept)?;
        steps::warn_of_visible_signal(&model.diffusion, &kept, "take more steps");
        let process = model.diffusion.respaced(&kept)?;
        let guidance = guides.of(&model, &process)?.describe();
        let classes = guides.classes(&model);
        Ok(Self::Drawn(Box::new(Drawing {
            process,
            spacing,
            guidance,
            labels: classes.map(|classes| (0..options.count as i64).map(|i| i % classes).collect()),
            guides,
            model,
            options,
        })))
    }

    /// The first `take` images of a safetensors file or a folder, or all; of the given shape, or else of the file's
    /// own.
    ///
    /// # Errors
    /// The images cannot be read, or are fewer.
    pub fn samples(path: &Path, shape: Option<ImageShape>, take: Option<usize>) -> Result<Self, Error> {
        let shape = shape.map_or_else(|| samples::shape(path), Ok)?;
        let samples = Samples::open(path, shape, None)?;
        let count = data::count(take.map(|take| take as u64), samples.count() as u64, path.display())?;
        Ok(Self::Samples { samples, count, path: path.into(), sha256: digest::of_path(path)? })
    }

    /// The first `take` images of the data set that `settings` describe, or all.
    ///
    /// # Errors
    /// The data set cannot be opened, or has fewer images.
    pub fn data(settings: &Settings, split: Split, take: Option<usize>) -> Result<Self, Error> {
        let source = data::open(settings, split)?;
        let count = data::count(take.map(|take| take as u64), source.len(), source.describe())?;
        Ok(Self::Data { source, split, count })
    }

    /// The shape of the images.
    pub fn image(&self) -> ImageShape {
        match self {
            Self::Drawn(drawing) => drawing.model.network.image(),
            Self::Data { source, .. } => source.image(),
            Self::Samples { samples, .. } => samples.image(),
        }
    }

    /// The number of images.
    pub fn count(&self) -> usize {
        match self {
            Self::Drawn(drawing) => drawing.options.count,
            Self::Data { count, .. } | Self::Samples { count, .. } => *count,
        }
    }

    /// Refuses images that are not the same on every rank.
    pub(super) fn check_same(&self, comm: &dyn Collective) -> Result<(), Failure> {
        match self {
            Self::Drawn(_) => Ok(()),
            Self::Data { source, .. } => data::check_same(comm, source.as_ref()),
            Self::Samples { count, sha256, .. } if agree::alike(comm, format!("{count} {sha256}").as_bytes()) => Ok(()),
            Self::Samples { .. } => {
                let message = "the ranks found different samples; give all of them the same files";
                Err(Agreed::known_to_all(Error::config(message)).into())
            }
        }
    }

    /// Passes the images to `compute`, during which they are read or drawn. They are compared with images of this depth.
    pub(super) fn with_images<T>(
        &self,
        depth: Depth,
        compute: impl FnOnce(&ImageSet) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match self {
            Self::Samples { samples, count, .. } => compute(&ImageSet::Samples { samples, count: *count, depth }),
            Self::Data { source, count, .. } => compute(&ImageSet::Data { source: source.as_ref(), count: *count }),
            Self::Drawn(drawing) => {
                let Drawing { model, options, process, labels, guides, .. } = drawing.as_ref();
                let guided = guides.of(model, process)?;
                let sampler = options.sampler.with(Ddim { eta: options.eta, direction: guided.direction() });
                let generation = &Generation {
                    seed: options.seed,
                    labels: labels.as_deref(),
                    guided,
                    batch: options.batch,
                    ..Generation::of(model, process, sampler)
                };
                compute(&ImageSet::Drawn { generation, count: options.count, depth })
            }
        }
    }

    /// The images in a phrase that begins with their number.
    pub(super) fn describe(&self) -> String {
        let count = self.count();
        match self {
            Self::Drawn(drawing) => {
                let (model, steps) = (&drawing.model.description, drawing.process.timesteps());
                format!("{count} drawn from {model} in {steps} steps")
            }
            Self::Samples { path, .. } => format!("{count} in {}", path.display()),
            Self::Data { source, split, .. } => format!("{count} of {}, {split} split", source.describe()),
        }
    }

    /// Everything that the images depend on.
    pub(super) fn protocol(&self) -> Value {
        match self {
            Self::Drawn(drawing) => {
                let Drawing { model, options, process, labels, spacing, guidance, .. } = drawing.as_ref();
                json!({
                    "model": model.description, "count": options.count, "seed": options.seed,
                    "sampler": options.sampler, "steps": process.timesteps(), "spacing": spacing,
                    "timesteps": model.diffusion.timesteps(), "eta": options.eta,
                    "guidance": guidance,
                    "classes": labels.as_ref().map(|_| "in turn"),
                    "clip": model.clips.then_some("predicted images to [-1, 1]"),
                    "precision": kind_name(model.network.precision()),
                })
            }
            Self::Samples { count, path, sha256, .. } => json!({ "samples": path, "sha256": sha256, "count": count }),
            Self::Data { source, split, count } => json!({
                "data": source.describe(), "split": split, "count": count,
            }),
        }
    }
}
