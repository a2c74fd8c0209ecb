//! `eval pr`: precision and recall of images with respect to a data set.

use ddpm_comm::World;
use ddpm_model::Failure;
use serde_json::json;

use super::compare::{open, report};
use crate::cli::PrArgs;
use crate::failure::relieve_with;

/// Computes both and prints them.
pub fn run(args: &PrArgs, world: &World, json: bool) -> Result<(), Failure> {
    let (comm, neighbours) = (world.collective(), args.neighbours);
    let comparison = open(&args.compare, None, world)?;
    relieve_with(format!(
        "Lower the numbers of images, -n and --reference-count, or --batch, which is {}",
        comparison.batch()
    ));
    let found = comparison.precision_recall(comm.as_ref(), neighbours)?;
    let result = json!({ "precision": found.precision, "recall": found.recall, "neighbours": neighbours });
    let text = format!("precision {:.4} (k = {neighbours})\nrecall    {:.4}", found.precision, found.recall);
    Ok(report(world, &comparison, json, result, &text)?)
}
