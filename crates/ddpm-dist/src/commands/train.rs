//! `train` and `train-classifier`: from a configuration to a trained model.

use std::time::Duration;

use ddpm_comm::{Collective, World, agree};
use ddpm_config::Settings;
use ddpm_data::Split;
use ddpm_model::{Error, Failure, Learner, Place, data, diffusion, resolve_for_training};
use ddpm_nn::Network;
use ddpm_train::{Ending, Footprint, Monitor, Profile, StopRequest, TracedSteps, Trainer};
use serde_json::json;
use tch::Kind;

use crate::cli::TrainArgs;
use crate::commands::patience::PATIENCE;
use crate::failure::{Exit, relieve_with};
use crate::output::print;
use crate::plan::plan;

/// Trains, or with `--dry-run` prints what would be trained.
pub fn run(args: &TrainArgs, learner: Learner, world: &World, stop: &StopRequest, json: bool) -> Result<i32, Failure> {
    let comm = world.collective();
    // Reading a checkpoint may take one rank far longer than another.
    world.watch(PATIENCE);
    let plan = plan(comm.as_ref(), args, learner)?;
    world.watch(Duration::from_secs(plan.settings.comm.timeout_s));
    let place = resolve_for_training(world, &plan.settings.train)?;
    relieve_with(ddpm_train::relief(&plan.settings, comm.size(), place.has_bf16()));
    let comm = ddpm_train::transport(world, plan.settings.comm.backend, place.memory)?;
    if args.dry_run {
        // Rank 0 measures the memory of a step by running one.
        world.watch(PATIENCE);
        ddpm_train::choose_convolutions(&plan.settings.train);
        let precision = ddpm_train::agree_on_precision(comm.as_ref(), &plan.settings.train, place.device);
        agree::act_on_root(comm.as_ref(), || describe(&plan.settings, comm.as_ref(), place, precision, json))?;
        return Ok(0);
    }
    let profile = args.profile.as_deref().map(|file| Profile::open(&comm, file)).transpose()?;
    let mut trainer = Trainer::prepare(&comm, place, plan, stop)?;
    let monitor = Monitor::open(&trainer.run())?;
    trainer.observe(monitor);
    if let Some(profile) = profile {
        let (done, total) = (trainer.run().resumed.unwrap_or(0), trainer.run().settings.train.steps);
        trainer.observe(TracedSteps::of(profile, done, total));
    }
    match trainer.train()? {
        Ending::Finished => Ok(0),
        Ending::Stopped => {
            tracing::info!("stopped on request; the same command resumes from here");
            Ok(Exit::Stopped.code())
        }
    }
}

/// Prints the settings, sizes and plan of a run on stdout.
fn describe(
    settings: &Settings,
    comm: &dyn Collective,
    place: Place,
    precision: Kind,
    json: bool,
) -> Result<(), Error> {
    let source = data::open(settings, Split::Train)?;
    let network = Network::new(settings.architecture())?;
    diffusion(settings, tch::Device::Cpu)?;
    let parameters = network.layout().len() as u64;
    let world = comm.size() as u64;
    let (batch, images) = (settings.train.global_batch as u64, source.len());
    let memory = Footprint::of(settings, comm.size(), precision, place.is_gpu())?;
    // Weights, two moments and the averages, each a flat f32 buffer.
    let buffers = 3 + settings.ema.rates.len() + settings.ema.widths.len();
    let shard_mb = (parameters * 4 * buffers as u64) as f64 / 1e6 / world as f64;
    if json {
        return print(json!({
            "settings": settings, "parameters": parameters, "tensors": network.layout().entries().len(),
            "memory_mb_per_rank": memory, "ranks": world, "images_per_rank": batch / world,
            "images": images, "steps_per_epoch": images as f64 / batch as f64,
            "checkpoint_mb_per_rank": shard_mb,
        }));
    }
    print(settings.to_toml())?;
    print(format_args!("# data            {}", source.describe()))?;
    print(format_args!("# model           {parameters} parameters in {} tensors", network.layout().entries().len()))?;
    print_memory(&memory)?;
    print(format_args!(
        "# shards          {world} rank(s), {} images of each {batch}; {shard_mb:.1} MB of each checkpoint",
        batch / world
    ))?;
    print(format_args!("# steps per epoch {:.1}", images as f64 / batch as f64))
}

fn print_memory(memory: &Footprint) -> Result<(), Error> {
    let part =
        |name: &str, megabytes: f64, what: &str| print(format_args!("#   {name:<13} {megabytes:6.0} MB  {what}"));
    let tensors = || {
        part("state", memory.state, "weights, gradients, moments, averages, hashes for dropout")?;
        part("activations", memory.activations, "kept from forward to backward")?;
        part("temporaries", memory.temporaries, "of forward and backward, at the worst moment")
    };
    let (total, process) = (memory.total, memory.process);
    let Some(holes) = memory.holes else {
        print(format_args!(
            "# memory          {total:.0} MB per rank at the peak of a step, of the GPU's memory, in tensors:"
        ))?;
        tensors()?;
        part(
            "saved",
            memory.saved.unwrap_or_default(),
            "the copy of this rank's share of a checkpoint, during a save",
        )?;
        print("#   what CUDA and its libraries keep for themselves comes on top, often 1 to 2 GB: not estimated")?;
        return print(format_args!("#   the process takes about {process:.0} MB of the machine's memory in addition"));
    };
    print(format_args!("# memory          {total:.0} MB per rank at the peak of a step, of the machine's memory:"))?;
    part("process", process, "the program, its libraries, batches decoded ahead")?;
    tensors()?;
    part("holes", holes, "between these, held by the allocator")
}
