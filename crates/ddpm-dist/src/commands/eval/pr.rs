//! `eval pr`: precision and recall of images with respect to a data set.

use ddpm_comm::World;
use ddpm_eval::Manifold;
use ddpm_model::Failure;
use ddpm_model::compare::precision_recall;
use serde_json::json;

use super::compare::Comparison;
use crate::cli::PrArgs;

/// Computes both and prints them.
pub fn run(args: &PrArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let comparison = Comparison::open(&args.compare, None, world)?;
    let neighbours = args.neighbours;
    let (samples, reference) =
        comparison.rows(&args.compare, world, |count| Ok(Manifold::check(count, neighbours)?))?;
    let device = comparison.extractor.device();
    let found = precision_recall(comm.as_ref(), &samples, &reference, neighbours, device)?;
    if world.rank() == 0 {
        let results = json!({ "precision": found.precision, "recall": found.recall, "neighbours": neighbours });
        let line = format!("precision {:.4}\nrecall    {:.4}", found.precision, found.recall);
        comparison.report(&args.compare, json, results, None, &line)?;
    }
    Ok(())
}
