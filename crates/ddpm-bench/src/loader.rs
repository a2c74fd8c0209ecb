//! `bench loader`: decoding images, without training at the same time.

use std::time::Instant;

use ddpm_comm::agree;
use ddpm_data::{Order, Split};
use ddpm_model::{Error, Failure, data};

use crate::context::Bench;
use crate::measure::largest;
use crate::report::Report;

/// Batches decoded before the clock starts: the first one runs with cold caches, and the next ones cost nothing if the
/// loader was ahead.
const WARMUP: u64 = 10;

/// Times `steps` batches; every rank decodes its slice of each.
pub fn loader(bench: &Bench, steps: u64) -> Result<Report, Failure> {
    let (comm, settings) = (bench.comm.as_ref(), &bench.settings);
    let source = agree::unanimous(comm, data::open(settings, Split::Train))?;
    let order = Order::new(source.len(), settings.seed);
    let loader = agree::unanimous(comm, ddpm_train::loader(settings, &source, order, 0, comm.rank(), comm.size(), ()))?;
    let decode = |batches| {
        let started = Instant::now();
        (0..batches).try_for_each(|_| loader.next().map(|batch| loader.recycle(batch)))?;
        Ok::<_, Error>(started.elapsed().as_secs_f64())
    };
    let decoded = decode(WARMUP).and_then(|_| decode(steps));
    let seconds = largest(comm, agree::unanimous(comm, decoded)?);
    let images = steps * settings.train.global_batch as u64;
    Ok(bench
        .report(None)
        .with("workers", settings.data.workers)
        .with("images", images)
        .with("images_per_s", images as f64 / seconds)
        .with("data_wait_s", seconds))
}
