//! `eval pr`: precision and recall of images with respect to a data set.

use ddpm_comm::World;
use ddpm_model::Failure;
use serde_json::json;

use super::compare::{open, report, with_progress};
use crate::cli::PrArgs;

/// Computes both and prints them.
pub fn run(args: &PrArgs, world: &World, json: bool) -> Result<(), Failure> {
    let (comm, neighbours) = (world.collective(), args.neighbours);
    let comparison = open(&args.compare, None, world)?;
    let measure = |progress: &dyn Fn(usize, usize)| comparison.precision_recall(comm.as_ref(), neighbours, progress);
    let found = with_progress(world, measure)?;
    let result = json!({ "precision": found.precision, "recall": found.recall, "neighbours": neighbours });
    let text = format!("precision {:.4} (k = {neighbours})\nrecall    {:.4}", found.precision, found.recall);
    Ok(report(world, &comparison, json, result, &text)?)
}
