//! `eval fid`: the Fréchet distance of images from a data set, or from statistics in a file.

use ddpm_comm::World;
use ddpm_model::Failure;
use ddpm_model::compare::MOST_FEATURES;
use serde_json::json;

use super::compare::{open, report};
use crate::cli::FidArgs;
use crate::failure::relieve_with;

/// Computes the distance and prints it.
pub fn run(args: &FidArgs, world: &World, json: bool) -> Result<(), Failure> {
    let (comm, statistics) = (world.collective(), args.write_reference.as_deref());
    let comparison = open(&args.compare, args.reference.as_deref(), world)?;
    let dim = comparison.dim();
    if dim > MOST_FEATURES {
        relieve_with(format!(
            "Give fewer features by --features FILE.pt: {dim} of them have {dim} x {dim} covariances"
        ));
    }
    let (distance, origin) = comparison.frechet_distance(comm.as_ref(), statistics)?;
    let result = json!({ "frechet_distance": distance, "statistics": origin });
    Ok(report(world, &comparison, json, result, &format!("frechet   {distance:.4}"))?)
}
