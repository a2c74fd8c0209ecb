//! `eval fid`: the Fréchet distance of images from a data set, or from statistics in a file.

use ddpm_comm::World;
use ddpm_model::Failure;
use ddpm_model::compare::Origin;
use serde_json::json;

use super::compare::Comparison;
use crate::cli::FidArgs;

/// Computes the distance and prints it.
pub fn run(args: &FidArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let (comm, compare) = (comm.as_ref(), &args.compare);
    let comparison = Comparison::open(compare, args.reference.as_deref(), world)?;
    let statistics = comparison.reference().statistics(comm, &comparison.extractor, compare.batch)?;
    if let Some(path) = &args.write_reference {
        statistics.write(comm, path)?;
    }
    let distance = comparison.evaluated(&compare.evaluated, world, |images| {
        statistics.distance(comm, &images.moments(comm, &comparison.extractor, compare.batch)?)
    })?;
    if world.rank() == 0 {
        let origin = match (&statistics.origin, &args.reference) {
            (Origin::Given, path) => json!({ "file": path }),
            (Origin::Cached(path), _) => json!({ "cached": path }),
            (Origin::Computed, _) => json!("computed"),
        };
        let line = format!("frechet   {distance:.4}");
        comparison.report(compare, json, json!({ "frechet_distance": distance }), Some(origin), &line)?;
    }
    Ok(())
}
