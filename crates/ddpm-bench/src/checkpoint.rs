//! `bench checkpoint`: saving the training state and loading it again, with the code that training uses.

use std::time::Instant;

use ddpm_checkpoint::{CheckpointError, Store, Want};
use ddpm_comm::agree;
use ddpm_model::{Error, Failure};
use ddpm_nn::Network;
use ddpm_telemetry::{peak_rss_mb, rss_mb};
use ddpm_train::{Checkpoint, DataRecord, Saver, TrainState, read_together, restore};

use crate::context::Bench;
use crate::measure::{forget_peak, largest, median, timed};
use crate::report::Report;
use crate::stall::background_saves;

/// Measures saves and loads, or with `steps` how much saves slow down training; deletes everything it wrote. None if a
/// rank was asked to stop.
pub fn checkpoint(bench: &Bench, repeat: u64, steps: Option<u64>, every: u64) -> Result<Option<Report>, Failure> {
    let measured = match steps {
        Some(steps) => background_saves(bench, repeat, steps, every),
        None => round_trips(bench, repeat),
    };
    let erase = || Store::open_existing(&bench.settings.checkpoint_uri())?.erase();
    let erased = match bench.comm.rank() {
        0 => erase(),
        _ => Ok(()),
    };
    match erased {
        Ok(()) | Err(CheckpointError::Absent { .. }) => measured,
        // The first failure is the more informative one.
        Err(error) => measured.and(Err(Error::from(error).into())),
    }
}

/// Saves the state and loads it again, `repeat` times.
fn round_trips(bench: &Bench, repeat: u64) -> Result<Option<Report>, Failure> {
    let (comm, settings) = (bench.comm.as_ref(), &bench.settings);
    let network = agree::unanimous(comm, Network::new(settings.architecture()).map_err(Error::from))?;
    let mut state = TrainState::fresh(settings, &network, bench.place.device)?;
    // A checkpoint records its data set, and none is opened here.
    let data = DataRecord { images: 1, fingerprint: None, order_start: 0, order_epoch: 0, window: None };
    let mut saver = Saver::open(&bench.comm, settings, data, None, None, bench.stop, &bench.program)?;
    let parameters = network.layout().len();
    let megabytes = state.megabytes();
    let (mut stalls, mut saves, mut reads, mut restores) = (vec![], vec![], vec![], vec![]);
    let mut above = f64::NAN;
    for round in 0..repeat {
        if bench.stopped() {
            return Ok(None);
        }
        state.step += 1;
        forget_peak();
        let before = rss_mb();
        let (begun, save) = timed(comm, || {
            let started = Instant::now();
            saver.save(&network, &state)?;
            let stall = started.elapsed().as_secs_f64();
            saver.finish().map(|()| stall)
        });
        stalls.push(largest(comm, begun?));
        saves.push(largest(comm, save));
        // In later rounds, memory left behind by loading would hide what a save takes.
        if round == 0 {
            above = largest(comm, peak_rss_mb() - before);
        }
        let store = saver.store();
        let missing = || Error::internal("the checkpoint just saved is not found");
        let find = || -> Result<_, Error> { store.search(Want::Latest)?.candidate()?.ok_or_else(missing) };
        let reload = || -> Result<f64, Failure> {
            let manifest = agree::on_root(comm, find)?;
            let started = Instant::now();
            let buffers = read_together(comm, settings, Some(store), &manifest)??;
            let read = started.elapsed().as_secs_f64();
            restore(&saver, comm, settings, &network, bench.place.device, &Checkpoint { manifest, buffers })
                .map(|_| read)
        };
        let (read, restored) = timed(comm, reload);
        reads.push(largest(comm, read?));
        restores.push(largest(comm, restored));
    }
    let [saved, restored] = [median(saves), median(restores)];
    let report = bench
        .report(Some(parameters))
        .with("repeat", repeat)
        .with("state_mb", megabytes)
        .with("upload_mb_s", megabytes / saved)
        .with("restore_mb_s", megabytes / restored)
        .with("stall_s", median(stalls))
        .with("save_s", saved)
        .with("restore_s", restored)
        .with("read_s", median(reads))
        .with("peak_above_state_mb", above)
        .with("snapshot_mb", megabytes / comm.size() as f64);
    Ok(Some(report))
}
