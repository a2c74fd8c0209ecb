//! `sample`: draws images from a model; the images are spread over the ranks.

use std::path::Path;

use ddpm_comm::{World, agree};
use ddpm_diffusion::{Clip, Ddim, Diffusion, Langevin, kept_timesteps, space_timesteps};
use ddpm_model::tensor_file::{self, Entry};
use ddpm_model::{
    Classifier, Drawn, Error, Failure, Generation, Guidance, GuidanceOptions, ImageFolder, Model, NoiseInterval,
    WeightChoice, direction, pictures, steps,
};
use indicatif::ProgressBar;
use serde_json::json;
use tch::Tensor;

use crate::cli::{ClassChoice, SampleArgs};
use crate::commands::patience::PATIENCE;
use crate::failure::relieve_by_batch;
use crate::output::print;

/// Where samples go.
enum Output<'a> {
    Grid(&'a Path),
    Folder(ImageFolder<'a>),
    Safetensors(&'a Path),
}

/// A request for samples with all arguments checked.
struct Order<'a> {
    output: Output<'a>,
    model: Model,
    process: Diffusion,
    labels: Option<Vec<i64>>,
    classifier: Option<Classifier>,
    guidance: Option<Guidance<'a>>,
    noise: Option<Tensor>,
    count: usize,
}

impl<'a> Order<'a> {
    fn of(
        args: &'a SampleArgs,
        output: Output<'a>,
        model: Model,
        guide: Option<&'a Model>,
        classifier: Option<Classifier>,
    ) -> Result<Self, Error> {
        let [channels, size, _] = model.network.image().sizes();
        if let Some(classifier) = &classifier {
            classifier.check_guides(&model)?;
        }
        let classes = model.classes.or(classifier.as_ref().map(Classifier::classes));
        let count = count(args, classes);
        let read = |path| tensor_file::read(path, "noise", Some(count as i64), [channels, size, size]);
        let file = args.init_noise.as_deref().map(read).transpose()?;
        let (noise, given) = file.map_or((None, None), |file| (Some(file.values), file.labels));
        let labels = labels(args, classes, count, given)?;
        let total = model.diffusion.timesteps();
        let kept = match &args.respacing {
            Some(spec) => space_timesteps(total, spec)?,
            None => {
                let steps = steps::count(args.steps, steps::DEFAULT_SAMPLING_STEPS, total);
                kept_timesteps(steps::spacing(args.spacing, &model.diffusion), total, steps)?
            }
        };
        // Noise written by `encode` must be decoded from the timestep to which it was encoded.
        if noise.is_none() {
            let remedy = format!("take --spacing trailing, which starts at t = {}, or more steps", total - 1);
            steps::warn_of_visible_signal(&model.diffusion, &kept, &remedy);
        }
        let process = model.diffusion.respaced(&kept)?;
        let guidance = guidance(args, &model, &process, guide)?;
        let classifier = classifier.filter(|_| args.classifier_scale != 0.0);
        Ok(Self { output, model, process, labels, classifier, guidance, noise, count })
    }
}

/// Draws images and writes them.
pub fn run(args: &SampleArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    world.watch(PATIENCE);
    relieve_by_batch(args.batch);
    let output = agree::unanimous(comm.as_ref(), Output::of(args))?;
    let device = args.on.resolve(world)?;
    let model = Model::open(comm.as_ref(), &args.model, args.weights, device)?;
    let open = |source: &String| Model::open(comm.as_ref(), source, WeightChoice::SlowestAverage, device);
    let guide = args.guide_model.as_ref().map(open).transpose()?;
    let classifier = args.classifier.as_deref();
    let open = |source| Classifier::open(comm.as_ref(), source, WeightChoice::SlowestAverage, device);
    let classifier = classifier.map(open).transpose()?;
    let order = agree::unanimous(comm.as_ref(), Order::of(args, output, model, guide.as_ref(), classifier))?;
    let (model, count, steps) = (&order.model, order.count, order.process.timesteps());
    let direction = direction(order.guidance.as_ref(), order.classifier.is_some());
    let sampler = args.sampler.with(Ddim { eta: args.eta, direction });
    let generation = Generation {
        corrector: (args.corrector_steps > 0)
            .then_some(Langevin { steps: args.corrector_steps, snr: args.corrector_snr }),
        clip: match args.threshold {
            Some(percentile) => Clip::Dynamic(percentile / 100.0),
            None if (model.clips || args.clip) && !args.no_clip => Clip::Unit,
            None => Clip::None,
        },
        seed: args.seed,
        labels: order.labels.as_deref(),
        classifier: order.classifier.as_ref().map(|classifier| (classifier, args.classifier_scale)),
        guidance: order.guidance,
        init_noise: order.noise.as_ref(),
        batch: args.batch,
        trajectories: if args.trajectory { count } else { 0 },
        ..Generation::of(model, &order.process, sampler)
    };
    let guided = order.guidance.map_or(String::new(), |guidance| format!(", guided: {}", guidance.describe()));
    tracing::info!("{count} images from {} in {steps} steps{guided}", model.description);
    let bar = if world.rank() == 0 { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let progress = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let [channels, size, _] = model.network.image().sizes();
    let shape = Shape { count, channels: channels as usize, size: size as usize, steps };
    let columns = match (args.class, &order.labels) {
        // One row per class, all of the same length.
        (Some(ClassChoice::All), Some(labels)) => labels.iter().filter(|label| **label == 0).count(),
        _ => (count as f64).sqrt().ceil() as usize,
    };
    match order.output {
        // Every rank writes what it drew and forgets it.
        Output::Folder(folder) => {
            agree::unanimous(comm.as_ref(), folder.clear())?;
            let write = |indices, batch: Drawn| folder.write(indices, &batch.samples, shape.channels, shape.size);
            generation.run(comm.as_ref(), count, progress, write)?;
        }
        Output::Grid(path) => {
            let drawn = generation.gather(comm.as_ref(), count, progress)?;
            let write = || {
                let grid = pictures::grid(&drawn.samples, shape.channels, shape.size, columns)?;
                grid.save_png(path).map_err(|e| Error::file(path, e))
            };
            agree::act_on_root(comm.as_ref(), write)?;
        }
        Output::Safetensors(path) => {
            let drawn = generation.gather(comm.as_ref(), count, progress)?;
            let write = || write_tensors(path, &drawn, order.labels.as_deref(), shape);
            agree::act_on_root(comm.as_ref(), write)?;
        }
    }
    bar.finish_and_clear();
    if world.rank() == 0 {
        if json {
            let guidance = order.guidance.map(|guidance| guidance.describe());
            let model = &model.description;
            print(json!({ "out": args.out, "count": count, "steps": steps, "model": model, "guidance": guidance }))?;
        } else {
            tracing::info!("wrote {}", args.out);
        }
    }
    Ok(())
}

/// The number of images: as many as requested, or full rows with `--class all`.
fn count(args: &SampleArgs, classes: Option<i64>) -> usize {
    match (args.class, classes) {
        (Some(ClassChoice::All), Some(classes)) => args.count.next_multiple_of(classes as usize),
        _ => args.count,
    }
}

/// One class per image, if the model or a classifier knows `classes`: the requested one, one row per class, those
/// `given` with the noise, or the classes in turn.
fn labels(
    args: &SampleArgs,
    classes: Option<i64>,
    count: usize,
    given: Option<Vec<i64>>,
) -> Result<Option<Vec<i64>>, Error> {
    let Some(classes) = classes else {
        return match args.class {
            None => Ok(None),
            Some(_) => {
                Err(Error::config("this model has no classes; leave --class out, or guide it with --classifier"))
            }
        };
    };
    let labels = match (args.class, given) {
        (Some(ClassChoice::One(class)), _) => vec![class; count],
        (Some(ClassChoice::All), _) => (0..classes).flat_map(|class| vec![class; count / classes as usize]).collect(),
        (None, Some(given)) => given,
        (None, None) => (0..count as i64).map(|i| i % classes).collect(),
    };
    match labels.iter().find(|class| !(0..classes).contains(*class)) {
        None => Ok(Some(labels)),
        Some(class) => {
            Err(Error::config(format!("class {class} is out of range; this model has classes 0 to {}", classes - 1)))
        }
    }
}

/// The guidance that the arguments ask for, if it is any.
fn guidance<'a>(
    args: &SampleArgs,
    model: &Model,
    process: &Diffusion,
    guide: Option<&'a Model>,
) -> Result<Option<Guidance<'a>>, Error> {
    let Some(scale) = args.guidance else { return Ok(None) };
    let interval = args.guidance_interval.unwrap_or(NoiseInterval::ALL);
    Guidance::of(model, process, guide, GuidanceOptions { scale, interval, rescale: args.guidance_rescale })
}

/// What was drawn.
#[derive(Clone, Copy)]
struct Shape {
    count: usize,
    channels: usize,
    size: usize,
    steps: usize,
}

impl<'a> Output<'a> {
    fn of(args: &'a SampleArgs) -> Result<Self, Error> {
        let path = Path::new(&args.out);
        let output = match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => Self::Safetensors(path),
            _ if args.trajectory => {
                return Err(Error::config("--trajectory needs numbers; write to a .safetensors file"));
            }
            Some("png") => Self::Grid(path),
            _ if args.out.ends_with('/') || path.is_dir() => Self::Folder(ImageFolder::open(path, args.overwrite)?),
            _ => {
                return Err(Error::config(format!(
                    "--out {} does not name a kind of file; give FILE.png, FILE.safetensors or FOLDER/",
                    args.out
                )));
            }
        };
        Ok(output)
    }
}

/// Writes the tensors, with the requested classes.
fn write_tensors(path: &Path, drawn: &Drawn, labels: Option<&[i64]>, shape: Shape) -> Result<(), Error> {
    let Shape { count, channels, size, steps } = shape;
    let mut entries = vec![Entry::floats("samples", &[count, channels, size, size], &drawn.samples)];
    if !drawn.trajectories.is_empty() {
        entries.push(Entry::floats("trajectory", &[count, steps, channels, size, size], &drawn.trajectories));
    }
    entries.extend(labels.map(Entry::labels));
    tensor_file::write(path, &entries)
}
