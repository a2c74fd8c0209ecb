//! Training: the loop that a reader should meet first, and the parts it is made of.

mod average;
mod claim;
mod clock;
mod data;
mod load;
mod memory;
mod monitor;
mod objective;
mod profile;
mod report;
mod save;
mod show;
mod state;
mod step;

use std::path::Path;
use std::sync::Arc;

use ddpm_comm::{Collective, Memory, set_step};
use ddpm_config::Settings;
use ddpm_data::{Batch, Loader, Order, Source, Split};
use ddpm_diffusion::TimestepSampler;
use ddpm_nn::{LrSchedule, clip};
use tch_ext::in_range;

use crate::arithmetic;
use crate::assemble;
use crate::coordinator::{
    Ballot, Plan, decode, encode, exchange, refuse_if_asked_to_stop, same_data, stop_asked, unanimous,
};
use crate::device::Place;
use crate::failure::{Exit, Failure};
use crate::huge_pages::HugePages;
use crate::signals::StopRequest;
use clock::timed;
use monitor::Monitor;
use report::gather_terms;
use step::{PendingTerms, SampleTerms, Task};

pub use average::GradientAverage;
pub use clock::Clock;
pub use data::DataRecord;
pub use load::load;
pub use memory::{Footprint, relief};
pub use profile::{Profile, RECORDED};
pub use save::Saver;
pub use state::{TrainState, WEIGHTS, ema_buffer};

/// How a run ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Finished,
    /// Asked to stop, with everything saved.
    Stopped,
}

/// Steps whose terms may wait to be shared.
const UNREAD: usize = 100;

/// A training under way, between two of its steps.
pub struct Trainer {
    settings: Settings,
    comm: Arc<dyn Collective>,
    task: Task,
    lr: LrSchedule,
    source: Arc<dyn Source>,
    order: Order,
    loader: Loader,
    state: TrainState,
    average: GradientAverage,
    /// Terms of past steps, still on the device and on their rank.
    unread: Vec<PendingTerms>,
    saver: Saver,
    /// On rank 0.
    monitor: Option<Monitor>,
    clock: Clock,
    /// Where the network is in the host's memory, until all of that is where it should be.
    huge_pages: Option<HugePages>,
}

/// What one step did to the weights.
struct Update {
    grad_norm: f64,
    lr: f64,
}

/// Trains as planned, at its `place`, from the plan's checkpoint or from the start, to the last step or to a request to
/// stop; traces a few of the first steps to the file `profile`.
pub fn run(
    comm: &Arc<dyn Collective>,
    place: Place,
    plan: Plan,
    profile: Option<&Path>,
    stop: &StopRequest,
) -> Result<Ending, Failure> {
    let profile = profile.map(|file| Profile::open(comm, file)).transpose()?;
    Trainer::prepare(comm, place, plan, stop)?.train(profile, stop)
}

impl Trainer {
    /// Makes ready for the first step of the plan, all ranks together, unless one is asked to stop.
    pub fn prepare(comm: &Arc<dyn Collective>, place: Place, plan: Plan, stop: &StopRequest) -> Result<Self, Failure> {
        let settings = plan.settings;
        let resumed = plan.resume.as_ref().map(|checkpoint| checkpoint.manifest.step);
        let Place { device, memory } = place;
        // What comes before and after may take minutes each: reading the checkpoint, and opening the data.
        refuse_if_asked_to_stop(comm.as_ref(), stop)?;
        let source = unanimous(comm.as_ref(), assemble::open_data(&settings, Split::Train))?;
        same_data(comm.as_ref(), source.as_ref())?;
        let precision = arithmetic::agree(comm.as_ref(), &settings.train, device);
        let task = unanimous(comm.as_ref(), Task::of(&settings, device, precision))?;
        let data = match &plan.resume {
            Some(checkpoint) => DataRecord::resumed(source.as_ref(), &checkpoint.manifest, plan.allows_other_data),
            None => Ok(DataRecord::new(source.as_ref())),
        };
        let data = unanimous(comm.as_ref(), data)?;
        let order = data.order(settings.seed);
        let saver = Saver::open(comm, &settings, data, plan.newest, resumed, stop)?;
        let state = match &plan.resume {
            Some(checkpoint) => {
                let (store, network) = (saver.store(), &task.network);
                load::load(store, comm.as_ref(), &settings, network, device, checkpoint)?
            }
            None => unanimous(comm.as_ref(), TrainState::fresh(&settings, &task.network, device))?,
        };
        let (layout, weights) = (task.network.layout(), &state.weights);
        let average = GradientAverage::new(comm, memory, &settings.comm, layout, weights, &state.gradients);
        let average = unanimous(comm.as_ref(), average)?;
        let loader = assemble::loader(&settings, &source, order, state.step, comm.rank(), comm.size());
        let loader = unanimous(comm.as_ref(), loader)?;
        let opened =
            (comm.rank() == 0).then(|| Monitor::open(&settings, source.as_ref(), &task.diffusion, resumed)).transpose();
        let monitor = unanimous(comm.as_ref(), opened)?;
        let lr = assemble::lr_schedule(&settings);
        let comm = Arc::clone(comm);
        let huge_pages = (memory == Memory::Host).then(HugePages::default);
        let this = Self {
            settings,
            comm,
            task,
            lr,
            source,
            order,
            loader,
            state,
            average,
            unread: Vec::new(),
            saver,
            monitor,
            clock: Clock::started(),
            huge_pages,
        };
        this.describe(resumed);
        Ok(this)
    }

    fn describe(&self, resumed: Option<u64>) {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let (ranks, threads) = (self.comm.size(), tch::get_num_threads() as usize);
        tracing::info!("data: {}", self.source.describe());
        if self.settings.model.classes.is_some() {
            tracing::info!("classes: {}", assemble::classes_in_short(self.source.as_ref()));
        }
        tracing::info!(
            "model: {} parameters; {} images a step on {ranks} rank{} of {threads} thread{}",
            self.task.network.layout().len(),
            self.settings.train.global_batch,
            plural(ranks),
            plural(threads),
        );
        if ranks > 1 {
            let buckets = self.average.buckets();
            let when = if self.settings.comm.overlap { "during" } else { "after" };
            tracing::info!("gradients: averaged in {buckets} bucket{} {when} backward", plural(buckets));
        }
        match resumed {
            Some(step) => tracing::info!("going on from step {step}, saved in {}", self.saver.store().uri()),
            None => tracing::info!("starting at step 0 in {}", self.settings.run.dir),
        }
    }

    fn train(mut self, mut profile: Option<Profile>, stop: &StopRequest) -> Result<Ending, Failure> {
        let total = self.settings.train.steps;
        if self.state.step >= total {
            tracing::info!("all {total} steps are done already; raise train.steps to go on");
            if profile.is_some() {
                tracing::warn!("no step is taken, so none is traced");
            }
            return Ok(Ending::Finished);
        }
        let traced = profile::steps(self.state.step, total);
        self.clock = Clock::started();
        while self.state.step < total {
            if let Some(profile) = profile.as_mut().filter(|_| self.state.step == traced.start) {
                profile.start()?;
            }
            if !self.step(stop)? {
                self.save_last()?;
                if let Some(profile) = profile.filter(|_| self.state.step < traced.end) {
                    profile.save()?;
                }
                return Ok(Ending::Stopped);
            }
            // Saved before samples are drawn: drawing takes long, and may fail.
            if self.state.step == total {
                self.save_last()?;
            } else if self.due(self.settings.checkpoint.every) {
                self.save()?;
            }
            let draws = self.due(self.settings.monitor.sample_every) && self.task.objective.denoises();
            // Drawing may take longer than who asks for a stop will wait.
            if draws && !stop_asked(self.comm.as_ref(), stop) {
                self.draw_samples()?;
            }
            if let Some(profile) = profile.take_if(|_| self.state.step == traced.end) {
                profile.save()?;
            }
        }
        Ok(Ending::Finished)
    }

    /// Takes one step and logs it if that is due; false, with nothing done, if a rank was asked to stop.
    pub fn step(&mut self, stop: &StopRequest) -> Result<bool, Failure> {
        set_step(self.state.step);
        self.huge_pages.take_if(|huge_pages| !huge_pages.before_step());
        in_range(c"step", || self.one_step(stop))
    }

    fn one_step(&mut self, stop: &StopRequest) -> Result<bool, Failure> {
        let Some(batch) = self.next_batch(stop)? else { return Ok(false) };
        let pending = self.task.forward_backward(&mut self.state, &batch, &mut self.average)?;
        self.unread.push(pending);
        self.loader.recycle(batch);
        let update = self.update()?;
        let logs = self.due(self.settings.monitor.log_every);
        let learns_timesteps = matches!(self.state.sampler, TimestepSampler::LossSecondMoment(_));
        if logs || learns_timesteps || self.unread.len() == UNREAD {
            let terms = self.read_terms()?;
            if logs {
                self.log(&terms, &update);
            }
        }
        if let Some(monitor) = &self.monitor {
            monitor.advance(self.state.step);
        }
        Ok(true)
    }

    /// Shares what each sample of the steps since the last time contributed, and learns from it; gives the last step's
    /// terms, of the whole global batch.
    fn read_terms(&mut self) -> Result<Vec<SampleTerms>, Failure> {
        let ours = self.unread.drain(..).map(PendingTerms::read).collect::<Result<Vec<_>, _>>()?;
        let steps = timed(c"gather terms", &mut self.clock.comm_wait, || gather_terms(self.comm.as_ref(), &ours));
        for terms in &steps {
            if self.task.objective.denoises() {
                self.state.bound.update(&terms.iter().map(|term| (term.t, term.vb)).collect::<Vec<_>>())?;
            }
            if let TimestepSampler::LossSecondMoment(history) = &mut self.state.sampler {
                history.update(&terms.iter().map(|term| (term.t, term.loss)).collect::<Vec<_>>())?;
            }
        }
        Ok(steps.into_iter().next_back().unwrap_or_default())
    }

    /// Saves the state, and waits until it is committed.
    fn save_last(&mut self) -> Result<(), Failure> {
        self.read_terms()?;
        self.saver.save_last(&self.settings, &self.task.network, &self.state)
    }

    /// Begins to save the state; training may go on when this returns.
    pub fn save(&mut self) -> Result<(), Failure> {
        self.read_terms()?;
        let saving = || self.saver.save(&self.settings, &self.task.network, &self.state);
        timed(c"save", &mut self.clock.checkpoint_stall, saving)
    }

    /// Waits for the save under way, if any.
    pub fn finish_save(&mut self) -> Result<(), Failure> {
        timed(c"finish save", &mut self.clock.checkpoint_stall, || self.saver.finish(&self.settings))
    }

    /// Where the time went since the last log step, or since this was last called.
    pub fn take_clock(&mut self) -> Clock {
        std::mem::replace(&mut self.clock, Clock::started())
    }

    /// The number of trained values.
    pub fn parameters(&self) -> i64 {
        self.task.network.layout().len()
    }

    /// What a checkpoint holds, over all ranks, in MB (10^6 bytes).
    pub fn checkpoint_mb(&self) -> f64 {
        self.state.megabytes()
    }

    /// Whether the step just done is one of those that come every so many (0: none), or the last.
    fn due(&self, every: u64) -> bool {
        let step = self.state.step;
        every > 0 && (step.is_multiple_of(every) || step == self.settings.train.steps)
    }

    /// This rank's batch, once all ranks have theirs; `None` if any was asked to stop. If any has none, all save what
    /// there is and fail alike.
    fn next_batch(&mut self, stop: &StopRequest) -> Result<Option<Batch>, Failure> {
        let fetched = timed(c"data wait", &mut self.clock.data_wait, || self.loader.next()).map_err(Failure::from);
        let ballot = Ballot {
            stop: stop.asked(),
            failure: fetched.as_ref().err().map(encode),
            news: self.saver.news(&self.settings),
        };
        let ballots = timed(c"vote", &mut self.clock.comm_wait, || exchange(self.comm.as_ref(), &ballot))?;
        let stop = ballots.iter().any(|ballot| ballot.stop);
        let failed = ballots.iter().enumerate().find_map(|(rank, b)| Some(decode(rank, b.failure.as_ref()?)));
        self.saver.absorb(&self.settings, ballots.into_iter().map(|ballot| ballot.news).collect())?;
        match failed {
            None if stop => Ok(None),
            None => fetched.map(Some),
            Some(failure) => Err(match self.save_last() {
                Ok(()) => failure,
                Err(unsaved) => Failure {
                    message: format!("{failure} Besides, {unsaved}"),
                    everywhere: failure.everywhere && unsaved.everywhere,
                    ..failure
                },
            }),
        }
    }

    /// Waits for the gradients' average over the ranks and takes the optimizer's step, unless the gradient is not finite,
    /// which all ranks then see alike.
    fn update(&mut self) -> Result<Update, Failure> {
        timed(c"gradient average", &mut self.clock.comm_wait, || self.average.finish());
        let mut gradients = self.state.gradients.flat().shallow_clone();
        let norms = self.average.norms()?.map(f64::to_le_bytes);
        let gather = || self.comm.gather_bytes(norms.as_flattened());
        let norms = timed(c"gather norms", &mut self.clock.comm_wait, gather);
        let read = |rank: &Vec<u8>| -> Vec<f64> {
            rank.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
        };
        let norms: Vec<Vec<f64>> = norms.iter().map(read).collect();
        // Rank 0's norm counts: on another processor, or with other threads, its last bits could differ, and with them the
        // ranks' weights from then on.
        let grad_norm = norms[0][1];
        let parts: Vec<f64> = norms.iter().map(|norms| norms[0]).collect();
        // With strata the ranks' batches are no independent draws, and say nothing of the noise.
        if !matches!(self.state.sampler, TimestepSampler::Stratified { .. }) {
            self.state.noise.update(&parts, grad_norm, self.settings.train.global_batch);
        }
        in_range(c"clip", || clip(&mut gradients, grad_norm, self.settings.train.grad_clip))?;
        let state = &mut self.state;
        let lr = self.lr.at(state.step);
        state.step += 1;
        self.clock.images += self.settings.train.global_batch as u64;
        if !grad_norm.is_finite() {
            state.skipped += 1;
            state.skipped_in_a_row += 1;
            tracing::warn!("step {}: the gradient is not finite, so the weights stay as they are", state.step);
            if state.skipped_in_a_row >= self.settings.train.skip_nonfinite {
                return Err(Failure::new(
                    Exit::Diverged,
                    format!(
                        "training diverged: the gradient was not finite {} times in a row, up to step {}. Lower \
                         train.lr or train.grad_clip and go on from the last checkpoint.",
                        state.skipped_in_a_row, state.step
                    ),
                )
                .everywhere());
            }
        } else {
            state.skipped_in_a_row = 0;
            in_range(c"optimizer", || state.optimizer.step(state.weights.flat(), &gradients, lr))?;
            if state.step.is_multiple_of(self.settings.ema.every) {
                in_range(c"EMA", || {
                    state.averages.iter_mut().try_for_each(|average| average.update(state.weights.flat()))
                })?;
            }
        }
        Ok(Update { grad_norm, lr })
    }
}
