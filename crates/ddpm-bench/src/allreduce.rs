//! `bench allreduce`: averaging the gradients, compared with a plain MPI all-reduce of the same number of bytes.

use std::time::Duration;

use ddpm_comm::agree;
use ddpm_model::{Error, Failure};
use ddpm_nn::{Gradients, Network, Weights};

use ddpm_train::GradientSync;

use crate::context::Bench;
use crate::measure::{largest, median, timed};
use crate::report::Report;

/// Times the two alternately, on at least two ranks, so that other load on the machine affects both.
pub fn allreduce(bench: &Bench, repeat: u64) -> Result<Report, Failure> {
    let comm = bench.comm.as_ref();
    let network = agree::unanimous(comm, Network::new(bench.settings.architecture()).map_err(Error::from))?;
    let parameters = network.layout().len();
    let mut weights = Weights::initialise(network.layout(), bench.settings.seed, bench.place.device)?;
    let gradients = Gradients::attach(network.layout(), &mut weights)?;
    let average = GradientSync::new(
        &bench.comm,
        bench.place.memory,
        &bench.settings.comm,
        network.layout(),
        &gradients,
        &bench.program,
    );
    let mut average = agree::unanimous(comm, average)?;
    let sent = vec![1.0 + comm.rank() as f32; parameters as usize];
    let mut received = sent.clone();
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    // The first round is discarded: it includes the page faults of memory that was never touched.
    for round in 0..=repeat {
        let (waited, seconds) = timed(comm, || {
            average.begin();
            average.finish();
            // For a GPU's memory this only enqueues the work; reading a norm waits for it.
            if bench.place.is_gpu() { average.norms(None, &mut Duration::default()).map(drop) } else { Ok(()) }
        });
        waited?;
        let plainly = timed(comm, || bench.world.plain_all_reduce(&sent, &mut received)).1;
        let pair = [seconds, plainly].map(|seconds| largest(comm, seconds));
        if round > 0 {
            ours.push(pair[0]);
            plain.push(pair[1]);
        }
    }
    let waited: f64 = ours.iter().sum();
    let (ours, plain) = (median(ours), median(plain));
    let bytes = 4 * parameters;
    Ok(bench
        .report(Some(parameters))
        .with("bytes", bytes)
        .with("buckets", average.buckets())
        .with("repeat", repeat)
        .with("comm_wait_s", waited)
        .with("median_s", ours)
        .with("plain_median_s", plain)
        .with("ratio", ours / plain)
        .with("mb_s", bytes as f64 / 1e6 / ours))
}
