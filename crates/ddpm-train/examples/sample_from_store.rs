//! Draws images from a checkpoint in a store: `target/release/examples/sample_from_store s3://bucket/run OUT.png`.
//! The store may be a run directory or any object store that checkpoints are saved to; every rank draws its share.

use std::path::Path;

use ddpm_comm::{World, abort};
use ddpm_diffusion::{Ddim, Direction, Sampler, kept_timesteps};
use ddpm_model::{Error, Failure, Generation, Model, WeightChoice, pictures, steps};
use tch::Device;

fn main() {
    let world = World::init().unwrap_or_else(|error| abort(1, &error.to_string()));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, out] = arguments.as_slice() else { abort(2, "usage: sample_from_store STORE OUT.png") };
    match draw(&world, store, Path::new(out)) {
        Ok(()) => world.finish(0),
        Err(failure) => failure.end(world, 1),
    }
}

fn draw(world: &World, store: &str, out: &Path) -> Result<(), Failure> {
    let comm = world.collective();
    let model = Model::open(comm.as_ref(), store, WeightChoice::SlowestAverage, Device::Cpu)?;
    let whole = &model.diffusion;
    let kept = kept_timesteps(steps::spacing(None, whole), whole.timesteps(), whole.timesteps().min(50))?;
    let process = whole.respaced(&kept)?;
    let sampler = Sampler::Ddim(Ddim { eta: 0.0, direction: Direction::FromModel });
    let drawn = Generation::of(&model, &process, sampler).gather(comm.as_ref(), 16, |_, _| ())?;
    if world.rank() == 0 {
        let image = model.network.image();
        let grid = pictures::grid(&drawn.samples, image, 4)?;
        grid.save_png(out).map_err(|error| Error::file(out, error))?;
        println!("{} -> {}", model.description, out.display());
    }
    Ok(())
}
