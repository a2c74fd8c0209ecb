//! `sample`: draws images from a model; the images are spread over the ranks.

use std::path::Path;
use std::time::Instant;

use ddpm_comm::{World, agree};
use ddpm_data::ImageShape;
use ddpm_diffusion::{Clip, Ddim, Diffusion, Langevin, kept_timesteps, space_timesteps};
use ddpm_model::tensor_file::{self, Entry};
use ddpm_model::{Drawn, Error, Failure, Generation, Guided, Guides, ImageFolder, Model, kind_name, pictures, steps};
use ddpm_telemetry::{Showing, Work};
use serde_json::json;
use tch::Tensor;

use crate::cli::{ClassChoice, SampleArgs};
use crate::commands::batch;
use crate::commands::patience::PATIENCE;
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
    guided: Guided<'a>,
    noise: Option<Tensor>,
    count: usize,
}

impl<'a> Order<'a> {
    fn of(args: &'a SampleArgs, output: Output<'a>, model: Model, guides: &'a Guides) -> Result<Self, Error> {
        let classes = guides.classes(&model);
        let count = count(args, classes);
        let read = |path| tensor_file::read(path, "noise", Some(count as i64), model.network.image().sizes());
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
        let guided = guides.of(&model, &process)?;
        Ok(Self { output, model, process, labels, guided, noise, count })
    }
}

/// Draws images and writes them.
pub fn run(args: &SampleArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    world.watch(PATIENCE);
    let output = agree::unanimous(comm.as_ref(), Output::of(args))?;
    let on = args.on.resolve(world)?;
    let model = Model::open(comm.as_ref(), &args.model, args.weights, on)?;
    let guides = args.guidance.open(comm.as_ref(), on)?;
    let order = agree::unanimous(comm.as_ref(), Order::of(args, output, model, &guides))?;
    let (model, count, steps) = (&order.model, order.count, order.process.timesteps());
    let batch = batch::resolve(args.batch, world, model, &guides, count.div_ceil(world.size()))?;
    let sampler = args.sampler.with(Ddim { eta: args.eta, direction: order.guided.direction() });
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
        guided: order.guided,
        init_noise: order.noise.as_ref(),
        batch,
        trajectories: if args.trajectory { count } else { 0 },
        ..Generation::of(model, &order.process, sampler)
    };
    let guidance = order.guided.describe();
    let guided = guidance.as_ref().map_or(String::new(), |guidance| format!(", guided: {guidance}"));
    let precision = kind_name(on.kind);
    tracing::info!("{count} images from {} in {steps} steps of {batch}, {precision}{guided}", model.description);
    let began = Instant::now();
    let gather = || {
        let draw = |progress: &dyn Fn(usize, usize)| generation.gather(comm.as_ref(), count, progress);
        Work::on_images("drawing", count, Showing::on(world.rank()), draw)
    };
    let image = model.network.image();
    if image.channels != 1 && image.channels != 3 && !matches!(order.output, Output::Safetensors(_)) {
        let shown = if image.channels < 3 { "the first channel" } else { "the first three channels" };
        tracing::info!("PNG shows {shown} of {}; FILE.safetensors holds all of them", image.channels);
    }
    let columns = match (args.class, &order.labels) {
        // One row per class, all of the same length.
        (Some(ClassChoice::All), Some(labels)) => labels.iter().filter(|label| **label == 0).count(),
        _ => (count as f64).sqrt().ceil() as usize,
    };
    match order.output {
        // Every rank writes what it drew and forgets it.
        Output::Folder(folder) => {
            agree::unanimous(comm.as_ref(), folder.clear())?;
            let write = |indices, batch: Drawn| folder.write(indices, &batch.samples, image);
            let draw = |progress: &dyn Fn(usize, usize)| generation.run(comm.as_ref(), count, progress, write);
            Work::on_images("drawing", count, Showing::on(world.rank()), draw)?;
        }
        Output::Grid(path) => {
            let drawn = gather()?;
            let write = || {
                let grid = pictures::grid(&drawn.samples, image, columns)?;
                grid.save_png(path).map_err(|e| Error::file(path, e))
            };
            agree::act_on_root(comm.as_ref(), write)?;
        }
        Output::Safetensors(path) => {
            let drawn = gather()?;
            let write = || write_tensors(path, &drawn, order.labels.as_deref(), [count, steps], image);
            agree::act_on_root(comm.as_ref(), write)?;
        }
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    if world.rank() == 0 {
        if json {
            print(json!({
                "out": args.out, "count": count, "steps": steps, "model": model.description, "guidance": guidance,
                "precision": precision, "batch": batch, "images_per_s": rate,
            }))?;
        } else {
            tracing::info!("wrote {} ({rate:.2} images/s)", args.out);
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
fn write_tensors(
    path: &Path,
    drawn: &Drawn,
    labels: Option<&[i64]>,
    [count, steps]: [usize; 2],
    image: ImageShape,
) -> Result<(), Error> {
    let ImageShape { channels, height, width } = image;
    let mut entries = vec![Entry::floats("samples", &[count, channels, height, width], &drawn.samples)];
    if !drawn.trajectories.is_empty() {
        entries.push(Entry::floats("trajectory", &[count, steps, channels, height, width], &drawn.trajectories));
    }
    entries.extend(labels.map(Entry::labels));
    tensor_file::write(path, &entries)
}
