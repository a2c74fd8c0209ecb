//! What observes a training from outside of its steps: metrics, sample grids, traces, or anything of a user's own.

use std::sync::Arc;

use ddpm_comm::Collective;
use ddpm_config::Settings;
use ddpm_data::{Order, Source};
use ddpm_model::Failure;

use crate::clock::Clock;
use crate::report::LogStep;
use crate::state::TrainState;
use crate::stop::StopRequest;
use crate::task::Task;

/// Something that observes a training. All methods are called on every rank at the same points of the run, so an observer may
/// communicate, as long as it does so alike on every rank.
///
/// An error ends the run. What training can do without (a picture, a log) should be warned of instead.
pub trait TrainObserver {
    /// Before a step; `run.state.step` steps are done.
    fn before_step(&mut self, _run: &mut Run) -> Result<(), Failure> {
        Ok(())
    }

    /// After a step whose figures are due (`monitor.log_every`), before it is saved.
    fn on_log(&mut self, _run: &mut Run, _figures: &LogStep) -> Result<(), Failure> {
        Ok(())
    }

    /// After a step, its save begun if one was due; `run.state.step` counts it.
    fn after_step(&mut self, _run: &mut Run) -> Result<(), Failure> {
        Ok(())
    }

    /// When training ends in order: all steps are done, or a stop was requested and everything is saved.
    fn finished(&mut self, _run: &mut Run) -> Result<(), Failure> {
        Ok(())
    }
}

/// A run as an observer sees it.
pub struct Run<'a> {
    /// Its resolved settings.
    pub settings: &'a Settings,
    /// All ranks.
    pub comm: &'a Arc<dyn Collective>,
    /// The network, its process and its objective.
    pub task: &'a Task,
    /// Weights, averages and counters.
    pub state: &'a TrainState,
    /// The data set.
    pub source: &'a dyn Source,
    /// The order in which its images come.
    pub order: &'a Order,
    /// Whether a stop was requested.
    pub stop: &'a StopRequest,
    /// Where the time goes; an observer that takes long adds its own.
    pub clock: &'a mut Clock,
}

impl Run<'_> {
    /// Whether the step just done is one of those that come every so many (0: none), or the last.
    pub fn is_due(&self, every: u64) -> bool {
        is_due(self.settings, self.state.step, every)
    }
}

/// Whether `step` is one of those that come every so many (0: none), or the last.
pub(crate) fn is_due(settings: &Settings, step: u64, every: u64) -> bool {
    every > 0 && (step.is_multiple_of(every) || step == settings.train.steps)
}
