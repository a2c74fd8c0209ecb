//! `--batch`: how many images a forward pass takes.

use ddpm_comm::World;
use ddpm_model::{Failure, Guides, Model, images_per_pass};

use crate::failure::relieve_by_batch;

/// The images per forward pass where each rank computes `ours` at most: those `given`, or else as many as fit into memory.
/// If memory runs out after all, the advice is to lower it.
pub fn resolve(
    given: Option<usize>,
    world: &World,
    model: &Model,
    guides: &Guides,
    ours: usize,
) -> Result<usize, Failure> {
    let batch = given.map_or_else(|| images_per_pass(world, model, guides, ours), Ok)?;
    relieve_by_batch(batch);
    Ok(batch)
}
