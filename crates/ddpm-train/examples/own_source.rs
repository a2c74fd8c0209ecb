//! Trains on a custom `Source`, here discs drawn on the fly, on any number of ranks:
//! `mpirun -np 2 target/release/examples/own_source RUN_DIR`.

use std::sync::Arc;
use std::time::Duration;

use ddpm_comm::{World, abort, install_panic_hook};
use ddpm_config::Settings;
use ddpm_data::{DataError, ImageShape, Source};
use ddpm_model::{Error, Failure, Place};
use ddpm_train::{Monitor, Plan, ResumeFrom, StopRequest, Trainer};

/// A white disc on black; image `id` has its own place and radius.
struct Discs;

impl Source for Discs {
    fn len(&self) -> u64 {
        10_000
    }

    fn image(&self) -> ImageShape {
        ImageShape::square(1, 16)
    }

    fn classes(&self) -> Option<usize> {
        None
    }

    fn fingerprint(&self) -> u64 {
        0 // A checkpoint records it, and a resume compares it: change it when the images change.
    }

    fn read(&self, id: u64, out: &mut [u8]) -> Result<Option<u32>, DataError> {
        let (x, y, radius) = ((id % 8 + 4) as f32, (id / 8 % 8 + 4) as f32, (id / 64 % 3 + 2) as f32);
        for (i, pixel) in out.iter_mut().enumerate() {
            let distance = ((i % 16) as f32 - x).hypot((i / 16) as f32 - y);
            *pixel = if distance < radius { 255 } else { 0 };
        }
        Ok(None)
    }

    fn describe(&self) -> String {
        "10000 discs".into()
    }
}

fn main() {
    let world = World::init().unwrap_or_else(|error| abort(1, &error.to_string()));
    install_panic_hook();
    world.watch(Duration::from_secs(600));
    ddpm_telemetry::init_logging("info".parse().expect("a level"), world.rank(), false);
    let run_dir = std::env::args().nth(1).unwrap_or("runs/discs".into());
    match train(&world, &run_dir) {
        Ok(()) => world.finish(0),
        Err(failure) => failure.end(world, 1),
    }
}

fn train(world: &World, run_dir: &str) -> Result<(), Failure> {
    let comm = world.collective();
    let options = [format!("run.dir={run_dir:?}"), "train.steps=200".into(), "data.image_size=16".into()];
    let settings = Settings::load("smoke", &options).map_err(Error::from)?;
    let plan = Plan::resuming(comm.as_ref(), settings, ResumeFrom::Auto, &[], None)?;
    let mut trainer = Trainer::prepare_on(Arc::new(Discs), &comm, Place::CPU, plan, &StopRequest::default())?;
    let monitor = Monitor::open(&trainer.run())?;
    trainer.observe(monitor);
    trainer.train().map(drop)
}
