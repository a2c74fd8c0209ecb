//! `import`: a run that holds a model from elsewhere.

use ddpm_comm::{World, agree};
use ddpm_model::{Failure, import};
use ddpm_train::DataRecord;
use serde_json::json;

use crate::cli::ImportArgs;
use crate::commands::patience::PATIENCE;
use crate::failure::program;
use crate::output::print;

/// Imports on all ranks, each of which reads the source; prints what the run holds.
pub fn run(args: &ImportArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    world.watch(PATIENCE);
    let arguments = args.openai.arguments();
    let imported = import(&args.source, &arguments, &args.out, &args.overrides, comm.rank() == 0);
    let imported = agree::unanimous(comm.as_ref(), imported)?;
    let (run, step, image) = (imported.settings.run.dir.clone(), args.step, imported.network.image());
    let parameters = imported.network.layout().len();
    ddpm_train::adopt(&comm, imported, step, DataRecord::unknown(), &program())?;
    let summary = || match json {
        true => print(json!({ "run": run, "step": step, "parameters": parameters, "image": image.sizes() })),
        false => print(format_args!(
            "{run} holds the model at step {step}: {parameters} parameters, images of {image} (channels, height, width)"
        )),
    };
    Ok(agree::act_on_root(comm.as_ref(), summary)?)
}
