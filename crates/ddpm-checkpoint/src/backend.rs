//! The limits on the requests to a store of checkpoints.

use std::time::Duration;

use ddpm_store::{Limits, patience_or};

use crate::pace::Pace;

/// The smallest part size of a multipart upload that every store accepts, including R2, which wants parts of equal
/// size.
pub(crate) const MIN_PART: usize = 8 << 20;

/// Limits on the requests to a store. One request with its retries ends within `retry_timeout + request_timeout`; an
/// operation takes a handful of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes per part of an upload and per request of a download: a multiple of 4, and 8 MiB (the default) or more.
    pub part_bytes: usize,
    /// The most parts, or requests, in flight at once. A transfer begins with 4 parts, and has more in flight if that
    /// is faster, fewer if parts take too long. Parts are sent from the values and received into the buffers that they
    /// fill, so they take no memory; a copy from store to store holds as many parts. Default: 16.
    pub concurrency: usize,
    /// Time limit of one request, from its first byte to the last byte of the response. A request transfers at most one
    /// part, so the default of 60 s lets the first four parts of 8 MiB share a link of 600 kB/s, and later ones take
    /// turns. Connecting may take 5 s of it.
    pub request_timeout: Duration,
    /// A request that failed (no connection, timeout, 429, 5xx) is retried with jittered exponential backoff until this
    /// long after it was first sent. Default: 60 s, or the patience of the person who waits for the process.
    pub retry_timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { part_bytes: MIN_PART, concurrency: 16, request_timeout: minute, retry_timeout: patience_or(minute) }
    }
}

impl StoreOptions {
    /// Checks the options; an error says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self { concurrency: 0, .. } => Err("a store needs at least one request in flight".into()),
            Self { part_bytes, .. } if *part_bytes < MIN_PART || part_bytes % 4 != 0 => {
                Err(format!("parts of {part_bytes} bytes are not a multiple of 4 of at least {MIN_PART}"))
            }
            _ => Ok(()),
        }
    }

    /// The number of parts in flight before anything is known about the link. A part should take a quarter of the time
    /// that its request may take.
    pub(crate) fn pace(&self) -> Pace {
        Pace::new(self.concurrency, self.request_timeout / 4)
    }

    /// The limits that concern the client.
    pub(crate) fn limits(&self) -> Limits {
        Limits { request_timeout: self.request_timeout, retry_timeout: self.retry_timeout }
    }
}
