//! `encode`: the noise from which deterministic DDIM reconstructs given images; the images are spread over the ranks.

use std::cell::Cell;
use std::sync::Arc;

use ddpm_comm::{World, agree, partition};
use ddpm_data::{ImageShape, Source};
use ddpm_diffusion::{Diffusion, kept_timesteps};
use ddpm_model::images::{Images, floats};
use ddpm_model::tensor_file::{self, Entry};
use ddpm_model::{Error, Failure, Guides, Model, data, finite, gather, images, steps};
use ddpm_telemetry::{Showing, Work};
use serde_json::json;
use tch::Tensor;

use crate::cli::EncodeArgs;
use crate::commands::batch;
use crate::commands::patience::PATIENCE;
use crate::model_data;
use crate::output::print;

/// Encodes images and writes the noise.
pub fn run(args: &EncodeArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    world.watch(PATIENCE);
    let on = args.model.on.resolve(world)?;
    let model = Model::open(comm, &args.model.model, args.model.weights, on)?;
    let (source, process) = agree::unanimous(comm, prepare(args, &model))?;
    data::check_same(comm, source.as_ref())?;
    let steps = process.timesteps();
    tracing::info!(
        "{} images of {} to noise under {} in {steps} steps",
        args.count,
        source.describe(),
        model.description,
    );
    let ours = partition(args.count, comm.rank(), comm.size());
    let size = batch::resolve(args.batch, world, &model, &Guides::default(), args.count.div_ceil(comm.size()))?;
    let encode = |progress: &dyn Fn(usize, usize)| {
        let (mut noise, evaluations) = (Vec::new(), Cell::new(0));
        for start in ours.clone().step_by(size) {
            let count = size.min(ours.end - start);
            let batch = images::read(source.as_ref(), start as u64, count, process.device())?;
            let step = || {
                evaluations.set(evaluations.get() + count);
                progress(evaluations.get(), ours.len() * steps);
            };
            let encoded = encode(&model, &process, &batch, step)?;
            finite::check_images(&encoded, start, &format!("images encoded by {}", model.description))?;
            noise.extend(floats(&encoded)?);
        }
        Ok::<_, Error>(noise)
    };
    let noise = Work::on_images("encoding", args.count, Showing::on(world.rank()), encode);
    let noise = gather(comm, agree::unanimous(comm, noise)?);
    agree::act_on_root(comm, || write(args, &model, source.as_ref(), &noise))?;
    if comm.rank() == 0 {
        let out = args.out.display().to_string();
        if json {
            let count = args.count;
            print(json!({ "out": out, "count": count, "steps": steps, "model": model.description }))?;
        } else {
            tracing::info!("wrote {out}");
        }
    }
    Ok(())
}

fn prepare(args: &EncodeArgs, model: &Model) -> Result<(Arc<dyn Source>, Diffusion), Error> {
    let source = model_data::open(model, &args.data, args.count)?;
    let timesteps = model.diffusion.timesteps();
    let steps = steps::count(args.steps, steps::DEFAULT_ENCODING_STEPS, timesteps);
    let kept = kept_timesteps(steps::spacing(args.spacing, &model.diffusion), timesteps, steps)?;
    Ok((source, model.diffusion.respaced(&kept)?))
}

fn encode(model: &Model, process: &Diffusion, batch: &Images, step: impl Fn()) -> Result<Tensor, Error> {
    let labels = model.classes.map(|_| Tensor::from_slice(&batch.labels).to_device(process.device()));
    let network = |x: &Tensor, t: &Tensor| {
        step();
        Ok(model.predict(x, t, labels.as_ref())?)
    };
    Ok(process.encode(&batch.x_start, network)?)
}

fn write(args: &EncodeArgs, model: &Model, source: &dyn Source, noise: &[f32]) -> Result<(), Error> {
    let originals = images::read(source, 0, args.count, model.diffusion.device())?;
    let ImageShape { channels, height, width } = model.network.image();
    let shape = [args.count, channels, height, width];
    let mut entries =
        vec![Entry::floats("noise", &shape, noise), Entry::floats("images", &shape, &floats(&originals.x_start)?)];
    if model.classes.is_some() {
        entries.push(Entry::labels(&originals.labels));
    }
    tensor_file::write(&args.out, &entries)
}
