//! `encode`: the noise from which deterministic DDIM leads back to given images, spread over the ranks.

use std::sync::Arc;

use ddpm_checkpoint::share;
use ddpm_comm::World;
use ddpm_data::Source;
use ddpm_diffusion::{Diffusion, kept_timesteps};
use ddpm_nn::Inputs;
use indicatif::ProgressBar;
use serde_json::json;
use tch::Tensor;

use crate::cli::EncodeArgs;
use crate::coordinator::{same_data, unanimous};
use crate::device;
use crate::failure::{Failure, relieve_by_batch};
use crate::finite;
use crate::generate::{floats, gather};
use crate::images::{self, Images};
use crate::output::print;
use crate::source::Model;
use crate::steps;
use crate::tensors::{self, Entry};

/// Encodes images and writes the noise.
pub fn run(args: &EncodeArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    world.watch(super::PATIENCE);
    relieve_by_batch(args.batch);
    let device = device::place_as_typed(world, &args.model.on)?;
    let model = Model::open(comm, &args.model.model, args.model.weights, device)?;
    let (source, process) = unanimous(comm, prepare(args, &model))?;
    same_data(comm, source.as_ref())?;
    let steps = process.timesteps();
    tracing::info!(
        "{} images of {} to noise under {} in {steps} steps",
        args.count,
        source.describe(),
        model.description,
    );
    let ours = share(args.count, comm.rank(), comm.size());
    let bar = if comm.rank() == 0 { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.set_length((ours.len().div_ceil(args.batch) * steps) as u64);
    let encode = || {
        let mut noise = Vec::new();
        for start in ours.clone().step_by(args.batch) {
            let count = args.batch.min(ours.end - start);
            let batch = images::read(source.as_ref(), start as u64, count, process.device())?;
            let encoded = encode(&model, &process, &batch, &bar)?;
            finite::check_images(&encoded, start, &format!("images encoded by {}", model.description))?;
            noise.extend(floats(&encoded)?);
        }
        Ok(noise)
    };
    let noise = gather(comm, unanimous(comm, encode())?);
    bar.finish_and_clear();
    let written = if comm.rank() == 0 { write(args, &model, source.as_ref(), &noise) } else { Ok(()) };
    unanimous(comm, written)?;
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

fn prepare(args: &EncodeArgs, model: &Model) -> Result<(Arc<dyn Source>, Diffusion), Failure> {
    let source = images::open(model, &args.data, args.count)?;
    let timesteps = model.diffusion.timesteps();
    let steps = steps::count(args.steps, steps::ENCODING, timesteps);
    let kept = kept_timesteps(args.spacing.into(), timesteps, steps)?;
    Ok((source, model.diffusion.respaced(&kept)?))
}

fn encode(model: &Model, process: &Diffusion, batch: &Images, bar: &ProgressBar) -> Result<Tensor, Failure> {
    let labels = model.classes.map(|_| Tensor::from_slice(&batch.labels).to_device(process.device()));
    let network = |x: &Tensor, t: &Tensor| {
        bar.inc(1);
        Ok(model.network.forward(&model.weights, &Inputs { x, t, labels: labels.as_ref(), dropout: None })?)
    };
    Ok(process.encode(&batch.x_start, network)?)
}

fn write(args: &EncodeArgs, model: &Model, source: &dyn Source, noise: &[f32]) -> Result<(), Failure> {
    let originals = images::read(source, 0, args.count, model.diffusion.device())?;
    let [channels, size, _] = model.network.image().sizes();
    let shape = [args.count, channels as usize, size as usize, size as usize];
    let mut entries =
        vec![Entry::floats("noise", &shape, noise), Entry::floats("images", &shape, &floats(&originals.x_start)?)];
    if model.classes.is_some() {
        entries.push(Entry::labels(&originals.labels));
    }
    tensors::write(&args.out, &entries)
}
