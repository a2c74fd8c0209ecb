//! `bench loader`: decoding images, with nobody training meanwhile.

use std::time::Instant;

use ddpm_data::{Order, Split};

use super::Bench;
use super::measure::largest;
use super::report::Report;
use crate::assemble;
use crate::coordinator::unanimous;
use crate::failure::Failure;

/// Batches that are decoded before the clock starts: the first one meets cold caches and, where the loader was ahead,
/// the next ones would come for nothing.
const WARMUP: u64 = 10;

/// Times `steps` batches, on every rank its slice.
pub fn run(bench: &Bench, steps: u64) -> Result<Report, Failure> {
    let (comm, settings) = (bench.comm.as_ref(), &bench.settings);
    let source = unanimous(comm, assemble::open_data(settings, Split::Train))?;
    let order = Order::new(source.len(), settings.seed);
    let loader = unanimous(comm, assemble::loader(settings, &source, order, 0, comm.rank(), comm.size()))?;
    let decode = |batches| {
        let started = Instant::now();
        (0..batches).try_for_each(|_| loader.next().map(|batch| loader.recycle(batch)))?;
        Ok::<_, Failure>(started.elapsed().as_secs_f64())
    };
    let decoded = decode(WARMUP).and_then(|_| decode(steps));
    let seconds = largest(comm, unanimous(comm, decoded)?);
    let images = steps * settings.train.global_batch as u64;
    Ok(bench
        .report(None)
        .with("workers", settings.data.workers)
        .with("images", images)
        .with("images_per_s", images as f64 / seconds)
        .with("data_wait_s", seconds))
}
