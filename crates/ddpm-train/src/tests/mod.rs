//! Unit tests on a single rank: each part of the trainer separately, on a network of a few hundred weights.

mod build;
mod passes;
mod restore;
mod saver;
mod select;
mod step;

use std::path::Path;
use std::sync::Arc;

use ddpm_comm::{Collective, Memory, World};
use ddpm_config::Settings;
use ddpm_data::{Loader, Source, Split};
use ddpm_model::{Place, data};
use tch::{Device, Kind, Tensor};

use crate::ahead::Ahead;
use crate::build::loader;
use crate::clock::Clock;
use crate::data_record::DataRecord;
use crate::gradient_sync::GradientSync;
use crate::passes::Passes;
use crate::program::Program;
use crate::state::TrainState;
use crate::step::{Stepped, step};
use crate::stopwatch::Stopwatch;
use crate::task::Task;

/// Settings of a run in `dir` on the built-in digits, with additional overrides.
fn settings(dir: &Path, more: &[&str]) -> Settings {
    let small = [
        "data.image_size=8",
        "data.count=64",
        "data.workers=1",
        "model.channels=[8,8]",
        "model.attention=[false,true]",
        "model.layers_per_block=1",
        "model.norm_groups=4",
        "train.global_batch=8",
        "train.steps=100",
        "train.lr=1e-3",
        "train.warmup_steps=0",
        "ema.rates=[0.9,0.99]",
    ];
    let run_dir = format!("run.dir={:?}", dir.display().to_string());
    let options = [&[run_dir.as_str()], &small[..], more].concat();
    Settings::load("smoke", &options.into_iter().map(str::to_owned).collect::<Vec<_>>()).unwrap()
}

fn collective() -> Arc<dyn Collective> {
    World::init().unwrap().collective()
}

/// The parts of a trainer, without its loop.
struct Parts {
    comm: Arc<dyn Collective>,
    settings: Settings,
    task: Task,
    state: TrainState,
    sync: GradientSync,
    passes: Passes,
    source: Arc<dyn Source>,
    loader: Loader<Ahead>,
}

impl Parts {
    fn fresh(comm: &Arc<dyn Collective>, settings: Settings) -> Self {
        let task = Task::of(&settings, Device::Cpu, Kind::Float).unwrap();
        let state = TrainState::fresh(&settings, &task.network, Device::Cpu).unwrap();
        Self::with(comm, settings, task, state)
    }

    fn with(comm: &Arc<dyn Collective>, settings: Settings, task: Task, state: TrainState) -> Self {
        let (layout, program) = (task.network.layout(), Program::default());
        let sync = GradientSync::new(comm, Memory::Host, &settings.comm, layout, &state.gradients, &program).unwrap();
        let passes = Passes::new(&settings, Place::CPU, 1, sync.overlaps());
        let source = data::open(&settings, Split::Train).unwrap();
        let order = DataRecord::new(source.as_ref(), None).order(settings.seed, source.as_ref());
        let ahead = Ahead::of(&settings, &task.network, Device::Cpu);
        let loader = loader(&settings, &source, order, state.step, 0, 1, ahead).unwrap();
        Self { comm: Arc::clone(comm), settings, task, state, sync, passes, source, loader }
    }

    fn record(&self) -> DataRecord {
        DataRecord::new(self.source.as_ref(), None)
    }

    fn step(&mut self) -> Result<Stepped, ddpm_model::Failure> {
        let batch = self.loader.next().unwrap();
        let Self { task, state, sync, passes, .. } = self;
        step(task, state, sync, passes, &batch, (&mut Clock::started(), &mut Stopwatch::on(Device::Cpu)))
    }

    fn steps(&mut self, count: u64) {
        (0..count).for_each(|_| drop(self.step().unwrap()));
    }

    /// The values of all buffers of a checkpoint.
    fn numbers(&self) -> Vec<(String, Vec<f32>)> {
        self.state.buffers().into_iter().map(|(name, flat)| (name, numbers(flat))).collect()
    }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(&tensor.detach().view(-1)).unwrap()
}
