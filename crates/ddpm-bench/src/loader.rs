//! `bench loader`: decoding images, without training at the same time.

use std::time::Instant;

use ddpm_comm::agree;
use ddpm_data::Split;
use ddpm_model::{Error, Failure, data};
use ddpm_train::DataRecord;

use crate::context::Bench;
use crate::measure::{cpu_seconds, largest};
use crate::report::Report;

/// Batches decoded before the clock starts: the first one runs with cold caches, and the next ones cost nothing if the
/// loader was ahead.
const WARMUP: u64 = 10;

/// Times `steps` batches; every rank decodes its slice of each.
pub fn loader(bench: &Bench, steps: u64) -> Result<Report, Failure> {
    let (comm, settings) = (bench.comm.as_ref(), &bench.settings);
    let source = agree::unanimous(comm, data::open(settings, Split::Train))?;
    let order = DataRecord::new(source.as_ref(), settings.data.window()).order(settings.seed, source.as_ref());
    let loader = agree::unanimous(comm, ddpm_train::loader(settings, &source, order, 0, comm.rank(), comm.size(), ()))?;
    let decode = |batches| {
        let (started, cpu) = (Instant::now(), cpu_seconds());
        (0..batches).try_for_each(|_| loader.next().map(|batch| loader.recycle(batch)))?;
        Ok::<_, Error>((started.elapsed().as_secs_f64(), cpu_seconds() - cpu))
    };
    let decoded = decode(WARMUP).and_then(|_| decode(steps));
    let (seconds, cpu) = agree::unanimous(comm, decoded)?;
    let (seconds, cpu) = (largest(comm, seconds), largest(comm, cpu));
    let traffic = source.traffic();
    let images = steps * settings.train.global_batch as u64;
    Ok(bench
        .report(None)
        .with("workers", settings.data.workers)
        .with("images", images)
        .with("images_per_s", images as f64 / seconds)
        .with("images_per_cpu_s", images as f64 / (cpu * comm.size() as f64))
        .with("data_wait_s", seconds)
        .with("data_requests", traffic.map(|traffic| traffic.requests))
        .with("data_mb", traffic.map(|traffic| traffic.bytes as f64 / 1e6)))
}
