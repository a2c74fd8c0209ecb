//! `eval kid`: the kernel distance of images from a data set.

use ddpm_comm::World;
use ddpm_eval::Subsets;
use ddpm_model::Failure;
use ddpm_model::compare::kernel_distance;
use serde_json::json;

use super::compare::Comparison;
use crate::cli::KidArgs;

/// Computes the distance and prints it.
pub fn run(args: &KidArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    let comparison = Comparison::open(&args.compare, None, world)?;
    let subsets = Subsets { count: args.subsets, size: args.subset_size, seed: args.compare.seed };
    let (samples, reference) = comparison.rows(&args.compare, world, |count| Ok(subsets.check(count)?))?;
    let found = kernel_distance(comm, &samples, &reference, subsets, comparison.extractor.device())?;
    if world.rank() == 0 {
        let results = json!({
            "kernel_distance": found.mean, "kernel_distance_std": found.std, "subsets": subsets.count,
            "subset_size": subsets.size, "seed": subsets.seed,
        });
        let line = format!(
            "kernel    {:.6} ± {:.6} (standard deviation over {} subsets of {})",
            found.mean, found.std, subsets.count, subsets.size
        );
        comparison.report(&args.compare, json, results, None, &line)?;
    }
    Ok(())
}
