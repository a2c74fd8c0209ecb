//! The observer interface: hooks around the training steps, used for metrics, sample grids and traces, and open to
//! user code.

use std::sync::Arc;

use ddpm_comm::Collective;
use ddpm_config::Settings;
use ddpm_data::{Order, Source};
use ddpm_model::{Failure, Place};

use crate::clock::Clock;
use crate::program::Program;
use crate::report::LogStep;
use crate::state::TrainState;
use crate::stop::StopRequest;
use crate::task::Task;

/// An observer of a training run. All methods are called on every rank at the same points of the run, so an observer
/// may use collectives, as long as it makes the same calls on every rank.
///
/// An error ends the run. For an output that training can do without (a picture, a log), log a warning instead.
pub trait TrainObserver {
    /// Before a step; `run.state.step` steps are done.
    fn before_step(&mut self, _run: &mut Run) -> Result<(), Failure> {
        Ok(())
    }

    /// After a step whose metrics are due (`monitor.log_every`), before the step is saved.
    fn on_log(&mut self, _run: &mut Run, _figures: &LogStep) -> Result<(), Failure> {
        Ok(())
    }

    /// After a step, once its save has begun if one was due; `run.state.step` includes this step.
    fn after_step(&mut self, _run: &mut Run) -> Result<(), Failure> {
        Ok(())
    }

    /// When training ends without failure: all steps are done, or a stop was requested and everything is saved.
    fn finished(&mut self, _run: &mut Run) -> Result<(), Failure> {
        Ok(())
    }
}

/// A run as an observer sees it.
pub struct Run<'a> {
    /// Its resolved settings.
    pub settings: &'a Settings,
    /// The communicator of all ranks.
    pub comm: &'a Arc<dyn Collective>,
    /// Where this rank computes.
    pub place: Place,
    /// The network, the diffusion process and the objective.
    pub task: &'a Task,
    /// Weights, averages and counters.
    pub state: &'a TrainState,
    /// The data set.
    pub source: &'a dyn Source,
    /// The order in which its images are used.
    pub order: &'a Order,
    /// Whether a stop was requested.
    pub stop: &'a StopRequest,
    /// The step of the checkpoint from which the run was resumed.
    pub resumed: Option<u64>,
    /// The program that trains.
    pub program: &'a Program,
    /// Accounting of training time; an observer that takes long adds its own time here.
    pub clock: &'a mut Clock,
}

impl Run<'_> {
    /// Whether an action that runs every `every` steps (0: never) and after the last step is due after the current
    /// step.
    pub fn is_due(&self, every: u64) -> bool {
        is_due(self.settings, self.state.step, every)
    }
}

/// Whether an action that runs every `every` steps (0: never) and after the last step is due after `step`.
pub(crate) fn is_due(settings: &Settings, step: u64, every: u64) -> bool {
    every > 0 && (step.is_multiple_of(every) || step == settings.train.steps)
}
