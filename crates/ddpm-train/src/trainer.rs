//! The trainer: the training loop and the parts it uses.

use std::mem;
use std::sync::Arc;

use ddpm_comm::{Collective, Memory, Reduce, agree, set_step};
use ddpm_config::Settings;
use ddpm_data::{Batch, DataError, Loader, Order, Source, Split};
use ddpm_diffusion::TimestepSampler;
use ddpm_model::{Error, Failure, Place, data, initial_weights};
use tch_ext::in_range;

use crate::ahead::{Ahead, Prepared};
use crate::build;
use crate::checkpointing::{Saver, restore};
use crate::clock::{Clock, Lap, timed};
use crate::data_record::DataRecord;
use crate::gradient_sync::GradientSync;
use crate::heartbeat;
use crate::huge_pages::HugePages;
use crate::observer::{Run, TrainObserver, is_due};
use crate::passes::Passes;
use crate::peak_flops::peak_tflops;
use crate::plan::Plan;
use crate::precision::{agree_on_precision, choose_convolutions};
use crate::program::Program;
use crate::rank_times::RankTimes;
use crate::report::{LogStep, Means};
use crate::state::TrainState;
use crate::step::{Stepped, step};
use crate::stop::StopRequest;
use crate::stopwatch::Stopwatch;
use crate::straggler::Change;
use crate::task::Task;
use crate::terms::{PendingTerms, SampleTerms, gather_terms};

/// How training ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Finished,
    /// A stop was requested, and everything is saved.
    Stopped,
}

/// Maximum number of steps whose terms may wait to be gathered.
const MAX_PENDING_STEPS: usize = 100;

/// A training run in progress, between two steps.
pub struct Trainer {
    settings: Settings,
    comm: Arc<dyn Collective>,
    place: Place,
    task: Task,
    source: Arc<dyn Source>,
    order: Order,
    loader: Loader<Ahead>,
    state: TrainState,
    sync: GradientSync,
    passes: Passes,
    /// Terms of past steps, still on the device and not yet gathered over the ranks.
    pending: Vec<PendingTerms>,
    saver: Saver,
    stop: StopRequest,
    clock: Clock,
    stopwatch: Stopwatch,
    rank_times: RankTimes,
    resumed: Option<u64>,
    program: Program,
    observers: Vec<Box<dyn TrainObserver>>,
}

impl Trainer {
    /// Prepares to train by `plan` on the data set that `[data]` describes; collective over all ranks.
    ///
    /// # Errors
    /// The data, the store or the settings cannot be used, or a stop is requested before the first step.
    pub fn prepare(comm: &Arc<dyn Collective>, place: Place, plan: Plan, stop: &StopRequest) -> Result<Self, Failure> {
        // Reading the checkpoint, which came before, and opening the data, which follows, may each take minutes.
        stop.check_before_start(comm.as_ref())?;
        let opened = stop.heeded(|| data::open_unchecked(&plan.settings, Split::Train));
        let source = agree::unanimous(comm.as_ref(), opened)?;
        Self::prepare_on(source, comm, place, plan, stop)
    }

    /// Like [`prepare`](Self::prepare), but on a data source of your own: the same on every rank, with the images and
    /// classes that the settings describe.
    pub fn prepare_on(
        source: Arc<dyn Source>,
        comm: &Arc<dyn Collective>,
        place: Place,
        plan: Plan,
        stop: &StopRequest,
    ) -> Result<Self, Failure> {
        let Plan { settings, resume, newest, data_change, program } = plan;
        let resumed = resume.as_ref().map(|checkpoint| checkpoint.manifest.step);
        let Place { device, memory } = place;
        agree::unanimous(comm.as_ref(), data::check_fits(&settings, source.as_ref()))?;
        data::check_same(comm.as_ref(), source.as_ref())?;
        choose_convolutions(&settings.train);
        let precision = agree_on_precision(comm.as_ref(), &settings.train, device);
        let task = agree::unanimous(comm.as_ref(), Task::of(&settings, device, precision))?;
        let window = settings.data.window();
        let record = match &resume {
            Some(checkpoint) => DataRecord::resumed(source.as_ref(), window, &checkpoint.manifest, data_change),
            None => Ok(DataRecord::new(source.as_ref(), window)),
        };
        let record = agree::unanimous(comm.as_ref(), record)?;
        let order = record.order(settings.seed, source.as_ref());
        let open = || Saver::open(comm, &settings, record, newest, resumed, stop, &program);
        let (saver, state) = match &resume {
            Some(checkpoint) => {
                let saver = open()?;
                let state = restore(&saver, comm.as_ref(), &settings, &task.network, device, checkpoint)?;
                (saver, state)
            }
            // The store is opened last: a start that is refused writes nothing there.
            None => {
                let weights = initial_weights(comm.as_ref(), &settings, &task.network, device)?;
                let begun = TrainState::starting_with(&settings, &task.network, weights);
                let begun = agree::unanimous(comm.as_ref(), begun)?;
                (open()?, begun)
            }
        };
        let sync = GradientSync::new(comm, memory, &settings.comm, task.network.layout(), &state.gradients, &program);
        let sync = agree::unanimous(comm.as_ref(), sync)?;
        let passes = Passes::new(&settings, place, task.passes(comm.size()), sync.overlaps());
        let ahead = Ahead::of(&settings, &task.network, device);
        let loader = build::loader(&settings, &source, order.clone(), state.step, comm.rank(), comm.size(), ahead);
        let loader = agree::unanimous(comm.as_ref(), loader)?;
        let rank_times = RankTimes::new(comm.size(), settings.comm.straggler_factor);
        let mut this = Self {
            settings,
            comm: Arc::clone(comm),
            place,
            task,
            source,
            order,
            loader,
            state,
            sync,
            passes,
            pending: Vec::new(),
            saver,
            stop: stop.clone(),
            clock: Clock::started(),
            stopwatch: Stopwatch::on(device),
            rank_times,
            resumed,
            program,
            observers: Vec::new(),
        };
        if memory == Memory::Host {
            this.observe(HugePages::default());
        }
        this.describe();
        Ok(this)
    }

    /// Adds an observer. Every rank must add the same observers; they are called in the order in which they were
    /// added.
    pub fn observe(&mut self, observer: impl TrainObserver + 'static) {
        self.observers.push(Box::new(observer));
    }

    /// The run as its observers see it.
    pub fn run(&mut self) -> Run<'_> {
        Run {
            settings: &self.settings,
            comm: &self.comm,
            place: self.place,
            task: &self.task,
            state: &self.state,
            source: self.source.as_ref(),
            order: &self.order,
            stop: &self.stop,
            resumed: self.resumed,
            program: &self.program,
            clock: &mut self.clock,
        }
    }

    /// Trains until the last step or a stop request, and saves as `[checkpoint]` configures; collective over all
    /// ranks.
    ///
    /// # Errors
    /// A rank has no more data, training diverged, or the store failed permanently. The state is saved first if that
    /// is still possible.
    pub fn train(mut self) -> Result<Ending, Failure> {
        let total = self.settings.train.steps;
        if self.state.step >= total {
            tracing::info!("all {total} steps are done already; raise train.steps to train further");
            self.notify(|observer, run| observer.finished(run))?;
            return Ok(Ending::Finished);
        }
        self.clock = Clock::started();
        while self.state.step < total {
            if !self.step()? {
                self.save_last()?;
                self.notify(|observer, run| observer.finished(run))?;
                return Ok(Ending::Stopped);
            }
            self.saver.snapshot(&self.task.network, &self.state);
            // Saved before the observers run: drawing samples takes long and may fail.
            if self.state.step == total {
                self.save_last()?;
            } else if is_due(&self.settings, self.state.step, self.settings.checkpoint.every) {
                self.save()?;
            }
            self.notify(|observer, run| observer.after_step(run))?;
        }
        self.notify(|observer, run| observer.finished(run))?;
        Ok(Ending::Finished)
    }

    /// Takes one step and logs it if that is due. Returns false, without taking a step, if any rank was asked to
    /// stop.
    pub fn step(&mut self) -> Result<bool, Failure> {
        set_step(self.state.step);
        self.notify(|observer, run| observer.before_step(run))?;
        in_range(c"step", || {
            let Some(batch) = self.fetch()? else { return Ok(false) };
            let Self { task, state, sync, passes, clock, stopwatch, .. } = self;
            let stepped = step(task, state, sync, passes, &batch, (clock, stopwatch))?;
            self.compare_ranks(&stepped.laps);
            // No copy from the batch is in flight any more: the host has read the norms, which the GPU computes last.
            self.loader.recycle(batch);
            self.report(stepped)?;
            Ok(true)
        })
    }

    /// Returns this rank's batch once every rank has one, or `None` if any rank was asked to stop. If any rank fails
    /// to get a batch, all ranks save the current state and return its failure.
    fn fetch(&mut self) -> Result<Option<Batch<Prepared>>, Failure> {
        // A store that does not respond is retried for minutes; the heartbeat then says that this rank has no batch
        // because it was asked to stop.
        let wait = || self.stop.heeded(|| self.loader.next());
        let (batch, missing) = match timed(c"data wait", &mut self.clock.data_wait, wait) {
            Ok(batch) => (Some(batch), None),
            Err(DataError::Stopped) => (None, None),
            Err(error) => (None, Some(Error::from(error))),
        };
        let (stop, event) = (self.stop.requested(), self.saver.poll());
        let beat = || heartbeat::exchange(self.comm.as_ref(), stop, missing, event);
        let heard = timed(c"heartbeat", &mut self.clock.comm_wait, beat)?;
        self.saver.apply_events(heard.saves)?;
        match heard.failure {
            None if heard.stop => Ok(None),
            None => Ok(batch),
            Some(failure) => Err(match self.save_last() {
                Ok(()) => failure.into(),
                Err(Failure::Agreed(unsaved)) => failure.map(|error| error.and_also(&unsaved)).into(),
                Err(Failure::Alone(unsaved)) => Failure::Alone(Error::named(failure).and_also(&unsaved)),
            }),
        }
    }

    /// Adds how the ranks spent the step before this one. Rank 0 reports those that have begun to hold up the others.
    fn compare_ranks(&mut self, laps: &[Lap]) {
        let changes = self.rank_times.record(laps);
        for change in changes.into_iter().filter(|_| self.comm.rank() == 0) {
            match change {
                Change::Slow { rank, steps, times } => tracing::warn!(
                    "rank {rank} is a straggler: in the {steps} steps up to {} it worked {times:.2} times as long as the median \
                     of the ranks, which wait for it. Look for other programs, throttling or a slow disk on its \
                     machine, or raise comm.straggler_factor",
                    self.state.step
                ),
                Change::Recovered { rank } => tracing::info!("rank {rank} keeps up with the others again"),
            }
        }
    }

    /// Queues the terms of a step until they are due to be gathered, and passes a log step to the observers.
    fn report(&mut self, stepped: Stepped) -> Result<(), Failure> {
        self.pending.push(stepped.terms);
        let logs = is_due(&self.settings, self.state.step, self.settings.monitor.log_every);
        let learns_timesteps = matches!(self.state.sampler, TimestepSampler::LossSecondMoment(_));
        if !logs && !learns_timesteps && self.pending.len() < MAX_PENDING_STEPS {
            return Ok(());
        }
        let terms = self.gather_pending()?;
        if !logs {
            return Ok(());
        }
        let mut corrupt = [self.loader.skipped() as f64];
        let sum = || self.comm.all_reduce_f64(&mut corrupt, Reduce::Sum);
        timed(c"sum corrupt", &mut self.clock.comm_wait, sum);
        let figures = LogStep {
            means: Means::of(&terms, self.task.diffusion.timesteps()),
            grad_norm: stepped.grad_norm,
            lr: stepped.lr,
            clock: self.take_clock(),
            ranks: self.rank_times.take(),
            corrupt: corrupt[0] as u64,
            missed_saves: self.saver.missed(),
        };
        self.notify(|observer, run| observer.on_log(run, &figures))
    }

    /// Gathers the pending terms of all ranks, and updates the bound and the sampler's history with them. Returns the
    /// terms of the last step's whole global batch.
    fn gather_pending(&mut self) -> Result<Vec<SampleTerms>, Failure> {
        let ours = self.pending.drain(..).map(PendingTerms::read).collect::<Result<Vec<_>, _>>()?;
        let gather = || gather_terms(self.comm.as_ref(), &ours);
        let steps = timed(c"gather terms", &mut self.clock.comm_wait, gather);
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

    fn notify(
        &mut self,
        mut event: impl FnMut(&mut dyn TrainObserver, &mut Run) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut observers = mem::take(&mut self.observers);
        // Observers read images: a store that does not respond must not hold up a stop.
        let stop = self.stop.clone();
        let notified =
            stop.heeded(|| observers.iter_mut().try_for_each(|observer| event(observer.as_mut(), &mut self.run())));
        self.observers = observers;
        notified
    }

    /// Saves the state and waits until it is committed.
    fn save_last(&mut self) -> Result<(), Failure> {
        self.gather_pending()?;
        self.saver.save_last(&self.task.network, &self.state)
    }

    /// Begins to save the state; training may continue when this returns.
    pub fn save(&mut self) -> Result<(), Failure> {
        self.gather_pending()?;
        let saving = || self.saver.save(&self.task.network, &self.state);
        timed(c"save", &mut self.clock.checkpoint_stall, saving)
    }

    /// Waits for the save in flight, if any.
    pub fn finish_save(&mut self) -> Result<(), Failure> {
        timed(c"finish save", &mut self.clock.checkpoint_stall, || self.saver.finish())
    }

    /// Returns the time accounting since the last log step or the last call, and resets it.
    pub fn take_clock(&mut self) -> Clock {
        self.clock.take()
    }

    /// The number of trained parameters.
    pub fn parameters(&self) -> i64 {
        self.task.network.layout().len()
    }

    /// Floating-point operations of a step on one image.
    pub fn flops(&self) -> Result<f64, Error> {
        self.task.flops(&self.state.weights)
    }

    /// What this rank's GPU computes at most, in TFLOP/s; `None` on the CPU, or if that is not known.
    pub fn peak_tflops(&self) -> Option<f64> {
        peak_tflops(&self.settings, self.place, self.task.network.precision())
    }

    /// Total size of a checkpoint's buffers over all ranks, in MB (10^6 bytes).
    pub fn checkpoint_mb(&self) -> f64 {
        self.state.megabytes()
    }

    fn describe(&self) {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let (ranks, threads) = (self.comm.size(), tch::get_num_threads() as usize);
        tracing::info!("data: {}", self.source.describe());
        if self.settings.model.classes.is_some() {
            tracing::info!("classes: {}", data::class_summary(self.source.as_ref()));
        }
        tracing::info!(
            "model: {} parameters; {} images a step on {ranks} rank{} of {threads} thread{}",
            self.parameters(),
            self.task.global_batch,
            plural(ranks),
            plural(threads),
        );
        if ranks > 1 {
            let buckets = self.sync.buckets();
            let when = if self.sync.overlaps() { "during" } else { "after" };
            tracing::info!("gradients: averaged in {buckets} bucket{} {when} backward", plural(buckets));
        }
        match self.resumed {
            Some(step) => tracing::info!("resuming from step {step}, saved in {}", self.saver.store().uri()),
            None => tracing::info!("starting at step 0 in {}", self.settings.run.dir),
        }
    }
}
