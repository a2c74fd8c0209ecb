//! `export`: a model for other programs. All ranks draw the images of the model card, rank 0 writes.

use ddpm_comm::{World, agree};
use ddpm_model::{Export, ExportFolder, ExportOptions, Failure, Model};
use ddpm_telemetry::Showing;
use serde_json::json;

use crate::cli::ExportArgs;
use crate::commands::patience::PATIENCE;
use crate::failure::relieve_with;
use crate::output::print;

/// Exports a model.
pub fn run(args: &ExportArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    world.watch(PATIENCE);
    let folder = agree::unanimous(comm, ExportFolder::claim(&args.out, args.overwrite))?;
    let model = Model::open(comm, &args.model, args.weights, args.on.resolve(world)?)?;
    let options = ExportOptions { format: args.format, variants: !args.no_variants, license: &args.license };
    let export = agree::unanimous(comm, Export::of(&model, options))?;
    tracing::info!("exporting {}", model.description);
    relieve_with("Leave out the sample images with --no-grid");
    let samples = if args.no_grid { None } else { Some(export.draw(comm, Showing::on(comm.rank()))?) };
    agree::act_on_root(comm, || {
        let variants = export.write(&folder, samples.as_deref())?;
        let out = args.out.display().to_string();
        if json {
            print(json!({ "out": out, "format": args.format, "model": model.description, "variants": variants }))
        } else {
            tracing::info!("wrote {out}");
            Ok(())
        }
    })?;
    Ok(())
}
