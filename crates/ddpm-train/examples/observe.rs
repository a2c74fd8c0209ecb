//! Observes every step of a training run: `target/release/examples/observe RUN_DIR` prints the loss of each step and
//! the distance of the weights from their initial values.

use std::time::Duration;

use ddpm_comm::{World, abort, install_panic_hook};
use ddpm_config::Settings;
use ddpm_model::{Error, Failure, Place};
use ddpm_train::{LogStep, Plan, Run, StopRequest, TrainObserver, Trainer};
use tch::Tensor;

/// Prints each step's loss and the distance of the weights from their initial values, on rank 0.
#[derive(Default)]
struct Distance {
    start: Option<Tensor>,
}

impl TrainObserver for Distance {
    fn before_step(&mut self, run: &mut Run) -> Result<(), Failure> {
        self.start.get_or_insert_with(|| run.state.weights.flat().copy());
        Ok(())
    }

    fn on_log(&mut self, run: &mut Run, figures: &LogStep) -> Result<(), Failure> {
        let Some(start) = &self.start else { return Ok(()) };
        let moved = run.state.weights.flat().f_sub(start)?.f_norm()?;
        if run.comm.rank() == 0 {
            let (step, loss) = (run.state.step, figures.means.loss);
            println!("step {step}: loss {loss:.4}, moved {:.4}", moved.double_value(&[]));
        }
        Ok(())
    }
}

fn main() {
    let world = World::init().unwrap_or_else(|error| abort(1, &error.to_string()));
    install_panic_hook();
    world.watch(Duration::from_secs(600));
    let run_dir = std::env::args().nth(1).unwrap_or("runs/observed".into());
    match train(&world, &run_dir) {
        Ok(()) => world.finish(0),
        Err(failure) => failure.end(world, 1),
    }
}

fn train(world: &World, run_dir: &str) -> Result<(), Failure> {
    let comm = world.collective();
    let options = [format!("run.dir={run_dir:?}"), "train.steps=10".into(), "monitor.log_every=1".into()];
    let settings = Settings::load("smoke", &options).map_err(Error::from)?;
    let mut trainer = Trainer::prepare(&comm, Place::CPU, Plan::fresh(settings), &StopRequest::default())?;
    trainer.observe(Distance::default());
    trainer.train().map(drop)
}
