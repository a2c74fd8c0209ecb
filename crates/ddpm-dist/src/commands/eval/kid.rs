//! `eval kid`: the kernel distance of images from a data set.

use ddpm_comm::World;
use ddpm_eval::Subsets;
use ddpm_model::Failure;
use serde_json::json;

use super::compare::{open, report};
use crate::cli::KidArgs;
use crate::failure::relieve_with;

/// Computes the distance and prints it.
pub fn run(args: &KidArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let comparison = open(&args.compare, None, world)?;
    let (count, size) = (args.subsets, args.subset_size);
    let subsets = Subsets { count, size, seed: args.compare.seed };
    relieve_with(format!(
        "Lower --subset-size, which is {size}, --batch, which is {}, or the numbers of images, -n and --reference-count",
        comparison.batch()
    ));
    let found = comparison.kernel_distance(comm.as_ref(), subsets)?;
    let (mean, std, seed) = (found.mean, found.std, subsets.seed);
    let result = json!({
        "kernel_distance": mean, "kernel_distance_std": std, "subsets": count, "subset_size": size, "seed": seed,
    });
    let subsets = format!("{count} subsets of {size} drawn by seed {seed}");
    let text = format!("kernel    {mean:.6} ± {std:.6} (standard deviation over {subsets})");
    Ok(report(world, &comparison, json, result, &text)?)
}
