//! `sample`: images from a model, spread over the ranks.

use std::path::Path;
use std::time::Duration;

use ddpm_comm::World;
use ddpm_diffusion::{Clip, Ddim, Diffusion, Direction, Sampler, Spacing, space_timesteps};
use indicatif::ProgressBar;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use tch::Tensor;

use crate::classifier::Classifier;
use crate::cli::{ClassChoice, SampleArgs, SamplerName};
use crate::coordinator::unanimous;
use crate::failure::Failure;
use crate::generate::{Generated, Generation};
use crate::pictures;
use crate::source::{Model, WeightChoice};
use crate::telemetry::{from_unit_floats, write_atomic};

/// Longest that one rank waits for another's share: a rank may have one batch more to draw.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Where samples go.
enum Output<'a> {
    Grid(&'a Path),
    Folder(&'a Path),
    Safetensors(&'a Path),
}

/// What to draw from what, every argument checked.
struct Order<'a> {
    output: Output<'a>,
    model: Model,
    process: Diffusion,
    labels: Option<Vec<i64>>,
    classifier: Option<Classifier>,
    guidance: Option<(f64, i64)>,
    noise: Option<Tensor>,
    count: usize,
}

impl<'a> Order<'a> {
    fn of(
        args: &'a SampleArgs,
        output: Output<'a>,
        model: Model,
        classifier: Option<Classifier>,
    ) -> Result<Self, Failure> {
        let (channels, size) = model.network.image();
        if let Some(classifier) = &classifier {
            classifier.check_guides(&model)?;
        }
        let classes = model.classes.or(classifier.as_ref().map(Classifier::classes));
        let labels = labels(args, classes)?;
        let count = labels.as_ref().map_or(args.count, Vec::len);
        let shape = [count as i64, channels, size, size];
        let noise = args.init_noise.as_deref().map(|path| read_noise(path, shape)).transpose()?;
        let total = model.diffusion.timesteps();
        let kept = match &args.respacing {
            Some(spec) => space_timesteps(total, spec)?,
            None => Spacing::from(args.spacing).timesteps(total, args.steps)?,
        };
        let process = model.diffusion.respaced(&kept)?;
        let guidance = guidance(args, &model)?;
        Ok(Self { output, model, process, labels, classifier, guidance, noise, count })
    }
}

/// Draws images and writes them.
pub fn run(args: &SampleArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    world.watch(PATIENCE);
    let output = unanimous(comm.as_ref(), Output::of(args))?;
    let model = Model::open(comm.as_ref(), &args.model, args.weights)?;
    let classifier = args.classifier.as_deref();
    let classifier =
        classifier.map(|source| Classifier::open(comm.as_ref(), source, WeightChoice::SlowestAverage)).transpose()?;
    let order = unanimous(comm.as_ref(), Order::of(args, output, model, classifier))?;
    let (model, count, steps) = (&order.model, order.count, order.process.timesteps());
    let generation = Generation {
        network: &model.network,
        weights: &model.weights,
        process: &order.process,
        sampler: match args.sampler {
            SamplerName::Ddpm => Sampler::Ancestral,
            SamplerName::Ddim => Sampler::Ddim(Ddim { eta: args.eta, direction: Direction::FromModel }),
            SamplerName::Dpmpp => Sampler::DpmSolver,
        },
        clip: if (model.clips || args.clip) && !args.no_clip { Clip::Unit } else { Clip::None },
        seed: args.seed,
        labels: order.labels.as_deref(),
        classifier: order.classifier.as_ref().map(|classifier| (classifier, args.classifier_scale)),
        guidance: order.guidance,
        init_noise: order.noise.as_ref(),
        batch: args.batch,
        trajectory: args.trajectory,
    };
    tracing::info!("{count} images from {} in {steps} steps", model.description);
    let bar = if world.rank() == 0 { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let generated = generation.run(comm.as_ref(), count, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let columns = match (args.class, &order.labels) {
        // A row of each class, all of one length.
        (Some(ClassChoice::All), Some(labels)) => labels.iter().filter(|label| **label == 0).count(),
        _ => (count as f64).sqrt().ceil() as usize,
    };
    let (channels, size) = model.network.image();
    let shape = Shape { count, channels: channels as usize, size: size as usize, steps };
    let written = if world.rank() == 0 {
        order.output.write(&generated, order.labels.as_deref(), shape, columns)
    } else {
        Ok(())
    };
    unanimous(comm.as_ref(), written)?;
    if world.rank() == 0 {
        if json {
            println!("{}", json!({ "out": args.out, "count": count, "steps": steps, "model": model.description }));
        } else {
            tracing::info!("wrote {}", args.out);
        }
    }
    Ok(())
}

/// A class per image, where the model or a classifier knows `classes`: the one asked for, a row of each, or each in turn.
fn labels(args: &SampleArgs, classes: Option<i64>) -> Result<Option<Vec<i64>>, Failure> {
    let Some(classes) = classes else {
        return match args.class {
            None => Ok(None),
            Some(_) => {
                Err(Failure::usage("this model knows no classes; leave --class out, or guide it with --classifier"))
            }
        };
    };
    let count = args.count as i64;
    match args.class {
        Some(ClassChoice::One(class)) if !(0..classes).contains(&class) => {
            Err(Failure::usage(format!("class {class} is out of range; this model has classes 0 to {}", classes - 1)))
        }
        Some(ClassChoice::One(class)) => Ok(Some(vec![class; args.count])),
        Some(ClassChoice::All) => {
            let columns = (count + classes - 1) / classes;
            Ok(Some((0..classes).flat_map(|class| vec![class; columns as usize]).collect()))
        }
        None => Ok(Some((0..count).map(|i| i % classes).collect())),
    }
}

fn guidance(args: &SampleArgs, model: &Model) -> Result<Option<(f64, i64)>, Failure> {
    match (args.guidance, model.null_class) {
        (None, _) => Ok(None),
        (Some(scale), Some(null)) => Ok(Some((scale, null))),
        (Some(_), None) => Err(Failure::usage(
            "this model cannot be guided: it was trained without diffusion.label_dropout; leave --guidance out",
        )),
    }
}

/// Tensor `noise` of a safetensors file.
fn read_noise(path: &Path, expected: [i64; 4]) -> Result<Tensor, Failure> {
    let unfit = |what: String| {
        Failure::usage(format!("{}: {what}; give a safetensors file with f32 `noise` {expected:?}", path.display()))
    };
    let bytes = std::fs::read(path).map_err(|e| Failure::file(path, e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| unfit(e.to_string()))?;
    let noise = file.tensor("noise").map_err(|e| unfit(e.to_string()))?;
    let shape: Vec<i64> = noise.shape().iter().map(|n| *n as i64).collect();
    if shape != expected || noise.dtype() != Dtype::F32 {
        return Err(unfit(format!("`noise` is {:?} {shape:?}", noise.dtype())));
    }
    Ok(Tensor::f_from_data_size(noise.data(), &shape, tch::Kind::Float)?)
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
    fn of(args: &'a SampleArgs) -> Result<Self, Failure> {
        let path = Path::new(&args.out);
        let output = match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => Self::Safetensors(path),
            _ if args.trajectory => {
                return Err(Failure::usage("--trajectory needs numbers; write to a .safetensors file"));
            }
            Some("png") => Self::Grid(path),
            _ if args.out.ends_with('/') || path.is_dir() => Self::Folder(path),
            _ => {
                return Err(Failure::usage(format!(
                    "--out {} says no kind of file; give FILE.png, FILE.safetensors or FOLDER/",
                    args.out
                )));
            }
        };
        Ok(output)
    }

    fn write(&self, drawn: &Generated, labels: Option<&[i64]>, shape: Shape, columns: usize) -> Result<(), Failure> {
        let Shape { count, channels, size, steps } = shape;
        match *self {
            Self::Grid(path) => pictures::grid(&drawn.samples, channels, size, columns)?
                .save_png(path)
                .map_err(|e| Failure::file(path, e)),
            Self::Folder(folder) => {
                let images = from_unit_floats(&drawn.samples);
                for (i, image) in images.chunks_exact(channels * size * size).enumerate() {
                    let path = folder.join(format!("{i:06}.png"));
                    pictures::single(image, channels, size)?.save_png(&path).map_err(|e| Failure::file(&path, e))?;
                }
                Ok(())
            }
            Self::Safetensors(path) => {
                let mut tensors =
                    vec![("samples", Dtype::F32, vec![count, channels, size, size], bytes(&drawn.samples))];
                if !drawn.trajectory.is_empty() {
                    let shape = vec![count, steps, channels, size, size];
                    tensors.push(("trajectory", Dtype::F32, shape, bytes(&drawn.trajectory)));
                }
                if let Some(labels) = labels {
                    let bytes = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
                    tensors.push(("labels", Dtype::I64, vec![count], bytes));
                }
                let views = tensors
                    .iter()
                    .map(|(name, kind, shape, bytes)| Ok((*name, TensorView::new(*kind, shape.clone(), bytes)?)))
                    .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
                let file = views.and_then(|views| safetensors::serialize(views, None)).map_err(Failure::internal)?;
                write_atomic(path, &file).map_err(|e| Failure::file(path, e))
            }
        }
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
