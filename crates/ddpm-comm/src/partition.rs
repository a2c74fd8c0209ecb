//! Splitting a sequence among the ranks.

use std::ops::Range;

/// The range of `0..n` that rank `rank` of `world` gets: `rank * n / world..(rank + 1) * n / world`. Over all ranks the
/// ranges tile `0..n`; their lengths differ by one at most.
///
/// ```
/// assert_eq!([0, 1, 2].map(|rank| ddpm_comm::partition(8, rank, 3)), [0..2, 2..5, 5..8]);
/// ```
///
/// # Panics
/// If `rank` is not below `world`.
pub fn partition(n: usize, rank: usize, world: usize) -> Range<usize> {
    assert!(rank < world, "rank {rank} is not one of {world}");
    let bound = |r: usize| (r as u128 * n as u128 / world as u128) as usize;
    bound(rank)..bound(rank + 1)
}
