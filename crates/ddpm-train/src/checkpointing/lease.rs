//! Acquiring the lease on a run's checkpoints before the first save.

use std::thread;
use std::time::{Duration, Instant};

use ddpm_checkpoint::{CheckpointError, Lease, Store};
use ddpm_comm::{Collective, agree};
use ddpm_config::Settings;
use ddpm_model::{Error, ErrorKind, Failure, Remedy};
use serde_json::Value;

use crate::program::Program;
use crate::stop::StopRequest;

/// Pause between two attempts to take the lease.
const PAUSE: Duration = Duration::from_millis(500);

/// Rank 0 checks that the store supports exclusive writers, and takes the lease. If another job holds it, all ranks
/// wait for up to twice its lifetime, because that job may have been killed. They wait in a loop of short
/// collectives, so that the watchdog does not consider any rank frozen.
pub(super) fn acquire(
    comm: &dyn Collective,
    store: &Store,
    settings: &Settings,
    stop: &StopRequest,
    program: &Program,
) -> Result<Option<Lease>, Failure> {
    let first = comm.rank() == 0;
    agree::act_on_root(comm, || store.probe().map_err(Error::from))?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let owner = format!("{} (process {} on {})", settings.run.name, std::process::id(), host.trim());
    let ttl = Duration::from_secs(settings.checkpoint.lease_s);
    let begun = Instant::now();
    let mut reported = false;
    loop {
        stop.check_before_start(comm)?;
        let tried = match if first { Some(store.acquire_lease(&owner, ttl)) } else { None } {
            Some(Err(CheckpointError::Held { owner: holder, .. })) if begun.elapsed() < 2 * ttl => {
                if !reported {
                    let longest = 2 * ttl;
                    let uri = store.uri();
                    let waiting =
                        format!("{holder} writes to {uri} or was killed; waiting up to {longest:?} to find out");
                    let remedy = Remedy::Unlock { uri: uri.into(), force: false };
                    let waiting = Error::new(ErrorKind::ResumeRefused, waiting).or(remedy);
                    tracing::info!("{}", (program.word)(&waiting));
                    reported = true;
                }
                Ok(None)
            }
            Some(tried) => tried.map(Some).map_err(Error::from),
            None => Ok(None),
        };
        let lease = agree::unanimous(comm, tried)?;
        let taken = comm.broadcast_bytes(vec![u8::from(lease.is_some())], 0);
        if taken == [1] {
            return Ok(lease);
        }
        thread::sleep(PAUSE);
    }
}

/// On rank 0: writes the run's identity. Fails if another job has saved to the store before this one took the lease.
pub(super) fn begin_run(store: &Store, config: &Value, newest: Option<u64>) -> Result<(), Error> {
    if store.list()?.first().copied() != newest {
        let message = format!("another job saved to {} while this one started; start this one again", store.uri());
        return Err(Error::new(ErrorKind::Stopped, message));
    }
    store.create_run(config)?;
    Ok(())
}
