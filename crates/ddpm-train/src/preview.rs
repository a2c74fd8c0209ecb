//! Samples of a run while it trains: how its grids are drawn, and the samples whose distance is measured.

use ddpm_config::Settings;
use ddpm_diffusion::{Ddim, Diffusion, Direction, kept_timesteps};
use ddpm_model::{Error, Generation, steps};
use ddpm_nn::Weights;

use crate::observer::Run;

/// Seed of the noise that samples start from. It is the same at every step and in every run, so that they can be
/// compared.
const SEED: u64 = 0;
/// Images per forward pass; a smaller `train.micro_batch` takes precedence.
const BATCH: usize = 64;

/// The samples of a run at its current step; sample i is the same image however many are drawn.
pub struct Preview<'a> {
    run: &'a Run<'a>,
    weights: &'a Weights,
    name: String,
    process: Diffusion,
    labels: Option<Vec<i64>>,
}

impl<'a> Preview<'a> {
    /// `count` samples with these weights.
    pub fn of(run: &'a Run, weights: &'a Weights, count: usize) -> Result<Self, Error> {
        let kept = timesteps(run.settings, &run.task.diffusion)?;
        let classes = run.settings.model.classes.map(i64::from);
        Ok(Self {
            run,
            weights,
            name: step_name(run),
            process: run.task.diffusion.respaced(&kept)?,
            labels: classes.map(|classes| (0..count as i64).map(|i| i % classes).collect()),
        })
    }

    /// How they are drawn, with the trajectories of the first of them.
    pub fn generation(&self, trajectories: usize) -> Generation<'_> {
        let ddim = Ddim { eta: 0.0, direction: Direction::FromModel };
        let sampler = self.run.settings.monitor.sampler.with(ddim);
        Generation {
            labels: self.labels.as_deref(),
            seed: SEED,
            batch: batch(self.run.settings),
            trajectories,
            ..Generation::new(&self.name, &self.run.task.network, self.weights, &self.process, sampler)
        }
    }
}

/// The run at its current step, as a phrase for messages.
pub fn step_name(run: &Run) -> String {
    format!("this run at step {}", run.state.step)
}

/// Images per forward pass.
pub fn batch(settings: &Settings) -> usize {
    settings.train.micro_batch.map_or(BATCH, |micro| micro.min(BATCH))
}

/// The timesteps at which the sampler evaluates the network.
pub fn timesteps(settings: &Settings, diffusion: &Diffusion) -> Result<Vec<usize>, Error> {
    Ok(kept_timesteps(steps::spacing(None, diffusion), diffusion.timesteps(), settings.monitor.sample_steps as usize)?)
}
