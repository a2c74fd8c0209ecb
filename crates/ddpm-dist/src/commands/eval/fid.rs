//! `eval fid`: the Fréchet distance of images from a data set, or from statistics in a file.

use ddpm_comm::World;
use ddpm_model::Failure;
use serde_json::json;

use super::compare::{open, report, with_progress};
use crate::cli::FidArgs;

/// Computes the distance and prints it.
pub fn run(args: &FidArgs, world: &World, json: bool) -> Result<(), Failure> {
    let (comm, statistics) = (world.collective(), args.write_reference.as_deref());
    let comparison = open(&args.compare, args.reference.as_deref(), world)?;
    let measure = |progress: &dyn Fn(usize, usize)| comparison.frechet_distance(comm.as_ref(), statistics, progress);
    let (distance, origin) = with_progress(world, measure)?;
    let result = json!({ "frechet_distance": distance, "statistics": origin });
    Ok(report(world, &comparison, json, result, &format!("frechet   {distance:.4}"))?)
}
