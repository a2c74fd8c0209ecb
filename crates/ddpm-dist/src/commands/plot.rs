//! `plot`: pictures of the diffusion process, of a run's metrics, and of a model's samples.

use std::path::Path;

use ddpm_comm::{Collective, World, agree};
use ddpm_config::Settings;
use ddpm_data::Split;
use ddpm_diffusion::{Ddim, Direction, Sampler, Variance, kept_timesteps};
use ddpm_model::file_charts;
use ddpm_model::pictures::{self, STRIP_IMAGES};
use ddpm_model::process_charts::{self, EvaluatedModel};
use ddpm_model::{Drawn, Error, Failure, Generation, Model, data, diffusion, images, steps};
use ddpm_telemetry::{Picture, Showing, Work};
use tch::Device;

use crate::cli::PlotCommand;
use crate::model_data;

/// Draws the requested picture.
pub fn run(command: &PlotCommand, world: &World) -> Result<(), Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    match command {
        PlotCommand::Schedule { config, timesteps, out } => {
            let draw = || {
                let own =
                    config.as_deref().map(|config| Settings::load(config, &[]).map_err(Error::from)).transpose()?;
                process_charts::schedules(own.as_ref(), *timesteps)
            };
            save(comm, out, draw)
        }
        PlotCommand::Metric { runs, metric, out } => save(comm, out, || file_charts::metric_over_steps(runs, metric)),
        PlotCommand::Points { files, x_label, y_label, out } => {
            save(comm, out, || file_charts::points(files, x_label, y_label))
        }
        PlotCommand::Forward { config, out } => save(comm, out, || {
            let settings = Settings::load(&config.config, &config.overrides)?;
            let source = data::open(&settings, Split::Train)?;
            let diffusion = diffusion(&settings, Device::Cpu)?;
            pictures::forward_strip(source.as_ref(), &diffusion, settings.seed)
        }),
        PlotCommand::Reverse { model, sampler, steps, seed, out } => {
            let model = Model::open(comm, &model.model, model.weights, model.on.resolve(world)?)?;
            let steps = steps::count(*steps, steps::DEFAULT_SAMPLING_STEPS, model.diffusion.timesteps());
            let sampler = sampler.with(Ddim { eta: 0.0, direction: Direction::FromModel });
            let drawn = reverse(world, &model, sampler, steps, *seed)?;
            let strip = || pictures::reverse_strip(&drawn.trajectories, steps, model.network.image());
            save(comm, out, strip)
        }
        PlotCommand::Variance { model, data: args, count, out } => {
            let model = Model::open(comm, &model.model, model.weights, model.on.resolve(world)?)?;
            let draw = || {
                if model.diffusion.spec().variance != Variance::LearnedRange {
                    return process_charts::fixed_variance(&model.diffusion);
                }
                let source = model_data::open(&model, args, *count)?;
                let images = images::read(source.as_ref(), 0, *count, model.diffusion.device())?;
                process_charts::learned_variance(&EvaluatedModel {
                    network: &model.network,
                    weights: &model.weights,
                    process: &model.diffusion,
                    images: &images,
                })
            };
            save(comm, out, draw)
        }
        PlotCommand::Terms { nll, out } => save(comm, out, || file_charts::bound_terms(nll)),
        PlotCommand::Embedding { timesteps, channels, out } => {
            save(comm, out, || process_charts::embedding(*timesteps, *channels))
        }
    }
}

/// Draws and saves a picture on rank 0; all ranks share the outcome.
fn save(comm: &dyn Collective, out: &Path, draw: impl FnOnce() -> Result<Picture, Error>) -> Result<(), Failure> {
    let drawn = || {
        draw()?.save_png(out).map_err(|e| Error::file(out, e))?;
        tracing::info!("wrote {}", out.display());
        Ok(())
    };
    Ok(agree::act_on_root(comm, drawn)?)
}

/// A few samples on their way from noise, drawn by all ranks together.
fn reverse(world: &World, model: &Model, sampler: Sampler, steps: usize, seed: u64) -> Result<Drawn, Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    let respace = || {
        let kept = kept_timesteps(steps::spacing(None, &model.diffusion), model.diffusion.timesteps(), steps)?;
        steps::warn_of_visible_signal(&model.diffusion, &kept, "take more --steps");
        Ok::<_, Error>(model.diffusion.respaced(&kept)?)
    };
    let process = agree::unanimous(comm, respace())?;
    let labels: Option<Vec<i64>> = model.classes.map(|classes| (0..STRIP_IMAGES as i64).map(|i| i % classes).collect());
    let generation = Generation {
        seed,
        labels: labels.as_deref(),
        batch: STRIP_IMAGES,
        trajectories: STRIP_IMAGES,
        ..Generation::of(model, &process, sampler)
    };
    let draw = |progress: &dyn Fn(usize, usize)| generation.gather(comm, STRIP_IMAGES, progress);
    Work::on_images("drawing", STRIP_IMAGES, Showing::on(world.rank()), draw)
}
