//! Agreement: what one rank decides, or fails with, becomes what all ranks know.
//!
//! A rank that meets an error alone must not leave: the others would wait for it in their next collective. It brings its
//! result to [`unanimous`], where every rank learns of the failure and returns the same one, an [`Agreed`] error. That type is
//! the proof that all ranks are leaving: nothing else needs to be said, and nobody has to be aborted.
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
//! // Only rank 0 looks, and every rank gets what it found.
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

/// An error that every rank returns alike, so that all can leave in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed<E> {
    rank: usize,
    error: E,
}

impl<E> Agreed<E> {
    /// The error of rank `rank`, which every rank knows: from what all have exchanged.
    pub fn of_rank(rank: usize, error: E) -> Self {
        Self { rank, error }
    }

    /// An error that every rank has found by itself from what all of them know, such as an averaged gradient that is not
    /// finite.
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

    /// The error alone.
    pub fn into_error(self) -> E {
        self.error
    }

    /// The same agreement on what `change` makes of the error; it must make the same of it on every rank.
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
/// Costs 8 bytes per rank while all is well.
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
        // The error itself, which its serialized form may not hold all of.
        Err(error) if rank == comm.rank() => Err(Agreed { rank, error }),
        _ => Err(Agreed { rank, error: from_bytes(rank, &reports[rank]).unwrap_or_else(E::from) }),
    }
}

/// What each rank passes, in rank order, on every rank. A rank that passes nothing sends no bytes.
///
/// # Errors
/// [`CommError::Unreadable`] if another rank's value cannot be read, which the same program on every rank never meets.
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

/// What `make` returns on rank 0, on every rank from the same bytes; or its error, on every rank.
pub fn on_root<T, E>(comm: &dyn Collective, make: impl FnOnce() -> Result<T, E>) -> Result<T, Agreed<E>>
where
    T: Serialize + DeserializeOwned,
    E: Serialize + DeserializeOwned + From<CommError>,
{
    let made = if comm.rank() == 0 { make().map(|value| to_bytes(&value)) } else { Ok(Vec::new()) };
    // Rank 0's failure reaches all ranks before they wait for a value that does not come.
    let bytes = comm.broadcast_bytes(unanimous(comm, made)?, 0);
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    if !alike(comm, &hasher.finish().to_le_bytes()) {
        return Err(Agreed::known_to_all(CommError::Corrupted.into()));
    }
    unanimous(comm, from_bytes(0, &bytes).map_err(E::from))
}

/// Whether any rank says so; the same answer on every rank.
pub fn any(comm: &dyn Collective, ours: bool) -> bool {
    let none: &[u8] = &[];
    comm.gather_bytes(if ours { &[1] } else { none }).iter().any(|theirs| !theirs.is_empty())
}

/// Whether all ranks pass the same bytes; the same answer on every rank.
pub fn alike(comm: &dyn Collective, ours: &[u8]) -> bool {
    let all = comm.gather_bytes(ours);
    all.iter().all(|theirs| *theirs == all[0])
}

fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("what ranks exchange is plain data with string keys")
}

fn from_bytes<T: DeserializeOwned>(rank: usize, bytes: &[u8]) -> Result<T, CommError> {
    serde_json::from_slice(bytes).map_err(|error| CommError::Unreadable { rank, reason: error.to_string() })
}
