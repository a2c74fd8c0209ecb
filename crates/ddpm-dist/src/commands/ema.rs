//! `ema`: a run that holds an average of another run's weights, of any width.

use ddpm_comm::{World, agree};
use ddpm_model::{Error, Failure, Imported, Model, WeightChoice};
use ddpm_train::DataRecord;
use serde_json::json;
use tch::Device;

use crate::cli::EmaArgs;
use crate::commands::patience::PATIENCE;
use crate::failure::program;
use crate::output::print;

/// Reconstructs the average on rank 0 and writes a run with it, all ranks together.
pub fn run(args: &EmaArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    world.watch(PATIENCE);
    let model = Model::open(comm.as_ref(), &args.model, WeightChoice::Width(args.width), Device::Cpu)?;
    let trained = || match &model.origin {
        Some(origin) => Ok::<_, Error>((origin.step, DataRecord::read(origin.step, &origin.state)?)),
        None => Ok((0, DataRecord::unknown())),
    };
    let (step, data) = agree::unanimous(comm.as_ref(), trained())?;
    let held = agree::unanimous(comm.as_ref(), Imported::of(model, &args.out))?;
    ddpm_train::adopt(&comm, held, step, data, &program())?;
    let (run, source, width) = (&args.out, &args.model, args.width);
    let summary = || match json {
        true => print(json!({ "run": run, "step": step, "width": width })),
        false => print(format_args!("{run} holds the average of width {width} of {source} at step {step}")),
    };
    Ok(agree::act_on_root(comm.as_ref(), summary)?)
}
