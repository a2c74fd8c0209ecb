//! The two sets of images that `eval fid`, `eval kid` and `eval pr` compare: opened on all ranks, and described.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ddpm_comm::{Agreed, Collective, World, agree};
use ddpm_config::Settings;
use ddpm_data::{ImageShape, Source};
use ddpm_diffusion::{Ddim, Diffusion, Spacing, kept_timesteps};
use ddpm_model::compare::{Extractor, ImageSet, Reference};
use ddpm_model::{Error, Failure, Generation, Model, Remedy, data, samples, steps};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tch::Tensor;

use crate::cli::{CompareArgs, EvaluatedArgs};
use crate::commands::patience::PATIENCE;
use crate::commands::sample::{direction, guidance};
use crate::failure::{relieve_by_batch, relieve_with};
use crate::model_data::check_count;
use crate::output::print;

/// Number of images that a model draws by default.
const DRAWN: usize = 10_000;

/// From this many features on, their covariances take gigabytes, whatever the batch.
const MANY_FEATURES: i64 = 8192;

/// Two sets of images, and what computes their features.
pub struct Comparison {
    evaluated: Evaluated,
    against: Against,
    pub extractor: Extractor,
    seed: u64,
    batch: usize,
}

/// What the evaluated images are compared with.
enum Against {
    /// The first images of a data set.
    Images(Arc<dyn Source>, usize),
    /// Statistics in this file.
    File(PathBuf),
}

/// The evaluated images.
enum Evaluated {
    Model(Box<Order>),
    Samples(Tensor),
    Data(Arc<dyn Source>, usize),
}

/// What to draw from a model.
struct Order {
    model: Model,
    process: Diffusion,
    labels: Option<Vec<i64>>,
    guidance: Option<(f64, i64)>,
    count: usize,
}

impl Comparison {
    /// Opens everything, all ranks together; what to compare with is a file of `statistics`, or else a data set.
    pub fn open(args: &CompareArgs, statistics: Option<&Path>, world: &World) -> Result<Self, Failure> {
        let comm = world.collective();
        let comm = comm.as_ref();
        world.watch(PATIENCE);
        relieve_by_batch(args.batch);
        let device = args.on.resolve(world)?;
        let from = &args.evaluated.from;
        let open = |source: &String| Model::open(comm, source, args.evaluated.weights, device);
        let model = from.model.as_ref().map(open).transpose()?;
        let sets = || {
            let against = Against::of(args, statistics, model.as_ref())?;
            Ok::<_, Error>((Evaluated::of(&args.evaluated, model, against.image())?, against))
        };
        let (evaluated, against) = agree::unanimous(comm, sets())?;
        evaluated.check_same(comm)?;
        if let Against::Images(source, _) = &against {
            data::check_same(comm, source.as_ref())?;
        }
        let extractor = Extractor::open(comm, &args.features, evaluated.image(), device)?;
        let dim = extractor.dim();
        if dim > MANY_FEATURES {
            relieve_with(format!(
                "Give fewer features by --features FILE.pt: {dim} of them have {dim} x {dim} covariances"
            ));
        }
        Ok(Self { evaluated, against, extractor, seed: args.seed, batch: args.batch })
    }

    /// What to compare with, for a distance that needs only its statistics.
    pub fn reference(&self) -> Reference<'_> {
        match &self.against {
            Against::Images(source, count) => Reference::Images { source: source.as_ref(), count: *count },
            Against::File(path) => Reference::File(path),
        }
    }

    /// The features `[N, D]` of the evaluated images and of those to compare with, once `check` has accepted their
    /// numbers.
    pub fn rows(
        &self,
        args: &CompareArgs,
        world: &World,
        check: impl Fn(usize) -> Result<(), Error>,
    ) -> Result<(Tensor, Tensor), Failure> {
        let comm = world.collective();
        let Against::Images(source, count) = &self.against else {
            return Err(Error::internal("statistics in a file have no rows").into());
        };
        [self.evaluated.count(), *count].into_iter().try_for_each(check).map_err(Agreed::known_to_all)?;
        let reference = ImageSet::Data { source: source.as_ref(), count: *count };
        let reference = reference.rows(comm.as_ref(), &self.extractor, self.batch)?;
        let of = |images: &ImageSet| images.rows(comm.as_ref(), &self.extractor, self.batch);
        Ok((self.evaluated(&args.evaluated, world, of)?, reference))
    }

    /// Passes the evaluated images to `compute`.
    pub fn evaluated<T>(
        &self,
        args: &EvaluatedArgs,
        world: &World,
        compute: impl FnOnce(&ImageSet) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match &self.evaluated {
            Evaluated::Samples(samples) => compute(&ImageSet::Samples(samples)),
            Evaluated::Data(source, count) => compute(&ImageSet::Data { source: source.as_ref(), count: *count }),
            Evaluated::Model(order) => {
                let Order { model, process, labels, guidance, count } = order.as_ref();
                let ddim = Ddim { eta: args.eta, direction: direction(*guidance, false) };
                let generation = Generation {
                    seed: self.seed,
                    labels: labels.as_deref(),
                    guidance: *guidance,
                    batch: self.batch,
                    ..Generation::of(model, process, args.sampler.with(ddim))
                };
                tracing::info!("{count} images from {} in {} steps", model.description, process.timesteps());
                let bar = if world.rank() == 0 { ProgressBar::new(0) } else { ProgressBar::hidden() };
                let progress = |done: usize, total: usize| {
                    bar.set_length(total as u64);
                    bar.set_position(done as u64);
                };
                let found = compute(&ImageSet::Drawn { generation: &generation, count: *count, progress: &progress });
                bar.finish_and_clear();
                found
            }
        }
    }

    /// Prints the result and everything that it depends on, on rank 0: as one JSON object, or as `line` and a summary.
    pub fn report(
        &self,
        args: &CompareArgs,
        json: bool,
        results: Value,
        statistics: Option<Value>,
        line: &str,
    ) -> Result<(), Error> {
        let (extractor, count) = (&self.extractor, self.evaluated.count());
        let data = match &self.against {
            Against::Images(source, count) => Some((source.describe(), *count)),
            Against::File(_) => None,
        };
        if !json {
            print(line)?;
            print(format_args!("images    {count} {}", self.evaluated.describe(&args.evaluated)))?;
            match (&self.against, &data) {
                (Against::File(path), _) => print(format_args!("reference {}", path.display()))?,
                (_, data) => {
                    let (data, images) = data.clone().unwrap_or_default();
                    print(format_args!("reference {images} of {data}, {} split", args.split))?;
                }
            }
            return print(format_args!("features  {}: {extractor}", extractor.dim()));
        }
        let mut object = json!({
            "samples": count,
            "images": data.as_ref().map(|(_, images)| images),
            "data": data.as_ref().map(|(data, _)| data),
            "split": data.as_ref().map(|_| args.split),
            "features": args.features.to_string(),
            "dim": extractor.dim(),
            "protocol": {
                "evaluated": self.evaluated.protocol(args),
                "levels": "clipped to [-1, 1] and rounded to 256 levels",
                "image": extractor.image().sizes(),
                "resize": "images of a data set as [data] says; the features see this size",
                "statistics": statistics,
                "features": extractor.identity(),
                "device": format!("{:?}", extractor.device()),
                "batch": args.batch,
            },
        });
        if let (Some(object), Value::Object(results)) = (object.as_object_mut(), results) {
            object.extend(results);
        }
        print(object)
    }
}

impl Against {
    fn of(args: &CompareArgs, statistics: Option<&Path>, model: Option<&Model>) -> Result<Self, Error> {
        let settings = match (statistics, model, &args.data) {
            (Some(path), _, _) => return Ok(Self::File(path.into())),
            (None, Some(model), config) => model.data_settings(config.as_deref(), &args.overrides)?,
            (None, None, Some(config)) => Settings::load(config, &args.overrides)?,
            (None, None, None) => {
                return Err(Error::config("there is nothing to compare the images with").or(Remedy::NameData));
            }
        };
        let source = data::open(&settings, args.split)?;
        let count = args.count.unwrap_or(source.len());
        check_count(source.as_ref(), count)?;
        Ok(Self::Images(source, count as usize))
    }

    fn image(&self) -> Option<ImageShape> {
        match self {
            Self::Images(source, _) => Some(source.image()),
            Self::File(_) => None,
        }
    }
}

impl Evaluated {
    /// Opens the evaluated images; `shape` is that of the reference, if it is known.
    fn of(args: &EvaluatedArgs, model: Option<Model>, shape: Option<ImageShape>) -> Result<Self, Error> {
        let from = &args.from;
        let this = match (model, &from.samples, &from.images) {
            (Some(model), _, _) => Self::Model(Box::new(Order::of(args, model)?)),
            (None, Some(path), _) => {
                let shape = shape.map_or_else(|| samples::shape(path), Ok)?;
                let images = samples::read(path, shape, None)?.images;
                let count = taken(args, images.size()[0] as u64, path.display())?;
                Self::Samples(images.f_narrow(0, 0, count as i64)?)
            }
            (None, None, config) => {
                let settings = Settings::load(config.as_deref().unwrap_or_default(), &args.images_set)?;
                let source = data::open(&settings, args.images_split)?;
                let count = taken(args, source.len(), source.describe())?;
                Self::Data(source, count)
            }
        };
        match shape.filter(|shape| *shape != this.image()) {
            None => Ok(this),
            Some(shape) => Err(Error::config(format!(
                "the evaluated images are {} (channels, height, width), and those to compare with are {shape}; both \
                 sides must have the same shape: set data.image_size and data.channels",
                this.image()
            ))),
        }
    }

    fn image(&self) -> ImageShape {
        match self {
            Self::Model(order) => order.model.network.image(),
            Self::Data(source, _) => source.image(),
            Self::Samples(samples) => {
                let size = samples.size();
                ImageShape { channels: size[1] as usize, height: size[2] as usize, width: size[3] as usize }
            }
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Model(order) => order.count,
            Self::Data(_, count) => *count,
            Self::Samples(samples) => samples.size()[0] as usize,
        }
    }

    /// Refuses images that are not the same on every rank.
    fn check_same(&self, comm: &dyn Collective) -> Result<(), Failure> {
        match self {
            Self::Model(_) => Ok(()),
            Self::Data(source, _) => data::check_same(comm, source.as_ref()),
            Self::Samples(_) if agree::alike(comm, &self.count().to_le_bytes()) => Ok(()),
            Self::Samples(_) => {
                let message = "the ranks found different samples; give all of them the same files";
                Err(Agreed::known_to_all(Error::config(message)).into())
            }
        }
    }

    fn describe(&self, args: &EvaluatedArgs) -> String {
        match (self, &args.from.samples) {
            (Self::Model(order), _) => {
                let (model, steps) = (&order.model.description, order.process.timesteps());
                format!("drawn from {model} in {steps} steps")
            }
            (Self::Data(source, _), _) => format!("of {}, {} split", source.describe(), args.images_split),
            (Self::Samples(_), Some(path)) => format!("in {}", path.display()),
            (Self::Samples(_), None) => String::new(),
        }
    }

    fn protocol(&self, args: &CompareArgs) -> Value {
        let evaluated = &args.evaluated;
        match self {
            Self::Model(order) => json!({
                "model": order.model.description, "count": order.count, "seed": args.seed,
                "sampler": evaluated.sampler, "steps": order.process.timesteps(), "spacing": "leading",
                "timesteps": order.model.diffusion.timesteps(), "eta": evaluated.eta, "guidance": evaluated.guidance,
                "classes": order.labels.as_ref().map(|_| "in turn"),
                "clip": order.model.clips.then_some("predicted images to [-1, 1]"),
            }),
            Self::Samples(samples) => json!({ "samples": evaluated.from.samples, "count": samples.size()[0] }),
            Self::Data(source, count) => json!({
                "data": source.describe(), "split": evaluated.images_split, "count": count,
            }),
        }
    }
}

/// The number of images to evaluate of `available` ones.
fn taken(args: &EvaluatedArgs, available: u64, of: impl Display) -> Result<usize, Error> {
    match args.take {
        Some(take) if take as u64 > available => {
            Err(Error::config(format!("--take asks for {take} images of {of}; give at most {available}")))
        }
        take => Ok(take.unwrap_or(available as usize)),
    }
}

impl Order {
    fn of(args: &EvaluatedArgs, model: Model) -> Result<Self, Error> {
        let (total, count) = (model.diffusion.timesteps(), args.take.unwrap_or(DRAWN));
        let kept = steps::count(args.steps, steps::DEFAULT_SAMPLING_STEPS, total);
        let kept = kept_timesteps(Spacing::Leading, total, kept)?;
        steps::warn_of_visible_signal(&model.diffusion, &kept, "take more --steps");
        Ok(Self {
            process: model.diffusion.respaced(&kept)?,
            labels: model.classes.map(|classes| (0..count as i64).map(|i| i % classes).collect()),
            guidance: guidance(args.guidance, &model)?,
            model,
            count,
        })
    }
}
