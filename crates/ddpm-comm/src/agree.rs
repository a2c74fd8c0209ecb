//! Agreement: a decision or failure of one rank becomes known to all ranks.
//!
//! A rank with an error of its own must not simply exit: the others would wait for it in their next collective. It
//! passes its result to [`unanimous`], where every rank learns of the failure and returns the same [`Agreed`] error.
//! That type proves that all ranks return this error, so they can exit in order and none has to be aborted.
//!
//! ```
//! use ddpm_comm::{CommError, World, agree};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Serialize, Deserialize, thiserror::Error)]
//! enum Error {
//!     #[error("{0} is missing")]
//!     Missing(String),
//!     #[error("{0}")]
//!     Comm(String),
//! }
//!
//! impl From<CommError> for Error {
//!     fn from(error: CommError) -> Self {
//!         Self::Comm(error.to_string())
//!     }
//! }
//!
//! let world = World::init().unwrap();
//! let comm = world.collective();
//! // Only rank 0 runs the closure, and every rank gets its result.
//! let steps: Vec<u64> = agree::on_root(comm.as_ref(), || Ok::<_, Error>(vec![100, 200])).unwrap();
//! assert_eq!(steps, [100, 200]);
//! // If any rank fails, all fail with the error of the lowest one.
//! let opened: Result<(), Error> = Err(Error::Missing("data/train".into()));
//! let agreed = agree::unanimous(comm.as_ref(), opened).unwrap_err();
//! assert_eq!((agreed.rank(), agreed.to_string()), (0, "data/train is missing".to_owned()));
//! # world.finish(0)
//! ```

use std::error::Error;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::collective::Collective;
use crate::error::CommError;

/// An error that every rank returns, so that all can exit in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed<E> {
    rank: usize,
    error: E,
}

impl<E> Agreed<E> {
    /// The error of rank `rank`, which every rank knows from data that all have exchanged.
    pub fn of_rank(rank: usize, error: E) -> Self {
        Self { rank, error }
    }

    /// An error that every rank has detected by itself from data that is the same on all, such as an averaged gradient
    /// that is not finite.
    pub fn known_to_all(error: E) -> Self {
        Self { rank: 0, error }
    }

    /// The lowest rank that failed.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Its error.
    pub fn error(&self) -> &E {
        &self.error
    }

    /// The error without the rank.
    pub fn into_error(self) -> E {
        self.error
    }

    /// Applies `change` to the error; it must return the same on every rank.
    pub fn map<F>(self, change: impl FnOnce(E) -> F) -> Agreed<F> {
        Agreed { rank: self.rank, error: change(self.error) }
    }
}

impl<E: fmt::Display> fmt::Display for Agreed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rank {
            0 => self.error.fmt(f),
            rank => write!(f, "rank {rank}: {}", self.error),
        }
    }
}

impl<E: Error + 'static> Error for Agreed<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// This rank's value if every rank has one; else the error of the lowest rank that failed, on every rank.
///
/// Costs 8 bytes per rank if no rank fails.
pub fn unanimous<T, E>(comm: &dyn Collective, result: Result<T, E>) -> Result<T, Agreed<E>>
where
    E: Serialize + DeserializeOwned + From<CommError>,
{
    let report = match &result {
        Ok(_) => Vec::new(),
        Err(error) => to_bytes(error),
    };
    let reports = comm.gather_bytes(&report);
    let Some(rank) = reports.iter().position(|report| !report.is_empty()) else {
        return Ok(result.unwrap_or_else(|_| unreachable!("this rank's report would not be empty")));
    };
    match result {
        // This rank's own error rather than its serialized form, which may lack details.
        Err(error) if rank == comm.rank() => Err(Agreed { rank, error }),
        _ => Err(Agreed { rank, error: from_bytes(rank, &reports[rank]).unwrap_or_else(E::from) }),
    }
}

/// Every rank's value, in rank order, on every rank. A rank that passes `None` sends no bytes.
///
/// # Errors
/// [`CommError::Unreadable`] if another rank's value cannot be deserialized; this cannot happen if all ranks run the same
/// program.
pub fn exchange<T>(comm: &dyn Collective, ours: Option<&T>) -> Result<Vec<Option<T>>, CommError>
where
    T: Serialize + DeserializeOwned,
{
    let read = |(rank, bytes): (usize, &Vec<u8>)| match bytes.as_slice() {
        [] => Ok(None),
        bytes => from_bytes(rank, bytes).map(Some),
    };
    comm.gather_bytes(&ours.map(to_bytes).unwrap_or_default()).iter().enumerate().map(read).collect()
}

/// Runs `make` on rank 0 and returns its result on every rank, deserialized from the same bytes; or its error, on every
/// rank.
pub fn on_root<T, E>(comm: &dyn Collective, make: impl FnOnce() -> Result<T, E>) -> Result<T, Agreed<E>>
where
    T: Serialize + DeserializeOwned,
    E: Serialize + DeserializeOwned + From<CommError>,
{
    let made = if comm.rank() == 0 { make().map(|value| to_bytes(&value)) } else { Ok(Vec::new()) };
    // Rank 0's failure must reach all ranks before they wait for its value.
    let bytes = comm.broadcast_bytes(unanimous(comm, made)?, 0);
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    if !alike(comm, &hasher.finish().to_le_bytes()) {
        return Err(Agreed::known_to_all(CommError::Corrupted.into()));
    }
    unanimous(comm, from_bytes(0, &bytes).map_err(E::from))
}

/// Runs `act` on rank 0 only, for its effect; its failure becomes that of every rank.
pub fn act_on_root<E>(comm: &dyn Collective, act: impl FnOnce() -> Result<(), E>) -> Result<(), Agreed<E>>
where
    E: Serialize + DeserializeOwned + From<CommError>,
{
    unanimous(comm, if comm.rank() == 0 { act() } else { Ok(()) })
}

/// Whether any rank passes true; the same result on every rank.
pub fn any(comm: &dyn Collective, ours: bool) -> bool {
    let none: &[u8] = &[];
    comm.gather_bytes(if ours { &[1] } else { none }).iter().any(|theirs| !theirs.is_empty())
}

/// Whether all ranks pass the same bytes; the same result on every rank.
pub fn alike(comm: &dyn Collective, ours: &[u8]) -> bool {
    let all = comm.gather_bytes(ours);
    all.iter().all(|theirs| *theirs == all[0])
}

fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("exchanged values are plain data with string keys")
}

fn from_bytes<T: DeserializeOwned>(rank: usize, bytes: &[u8]) -> Result<T, CommError> {
    serde_json::from_slice(bytes).map_err(|error| CommError::Unreadable { rank, reason: error.to_string() })
}
