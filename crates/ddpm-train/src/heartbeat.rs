//! The heartbeat: before each step every rank reports its status to all others, so that all ranks act on the same
//! facts.

use ddpm_comm::{Agreed, Collective, agree};
use ddpm_model::{Error, Failure};
use serde::{Deserialize, Serialize};

use crate::checkpointing::SaveEvent;

/// What one rank reports.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Heartbeat {
    /// The rank was asked to stop.
    stop: bool,
    /// Why the rank has no batch to continue with.
    failure: Option<Error>,
    /// The event that concerns its part of the save in flight.
    save: Option<SaveEvent>,
}

/// The combined reports of all ranks; the same on every rank.
#[derive(Debug)]
pub struct Heard {
    /// Whether any rank was asked to stop.
    pub stop: bool,
    /// The failure of the lowest-numbered rank that has no batch.
    pub failure: Option<Agreed<Error>>,
    /// The events of the save in flight, by rank.
    pub saves: Vec<Option<SaveEvent>>,
}

/// Exchanges one heartbeat. A rank with nothing to report sends no bytes.
pub fn exchange(
    comm: &dyn Collective,
    stop: bool,
    failure: Option<Error>,
    save: Option<SaveEvent>,
) -> Result<Heard, Failure> {
    let quiet = !stop && failure.is_none() && save.is_none();
    let ours = Heartbeat { stop, failure, save };
    let all = agree::exchange(comm, (!quiet).then_some(&ours))?;
    let mut heard = Heard { stop: false, failure: None, saves: Vec::with_capacity(all.len()) };
    for (rank, theirs) in all.into_iter().enumerate() {
        let Heartbeat { stop, failure, save } = theirs.unwrap_or_default();
        heard.stop |= stop;
        heard.failure = heard.failure.or(failure.map(|error| Agreed::of_rank(rank, error)));
        heard.saves.push(save);
    }
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use ddpm_comm::World;
    use ddpm_model::ErrorKind;

    use super::*;

    #[test]
    fn what_a_rank_reports_is_heard_with_its_kind() {
        let world = World::init().unwrap();
        let comm = world.collective();
        let quiet = exchange(comm.as_ref(), false, None, None).unwrap();
        assert!(!quiet.stop && quiet.failure.is_none() && quiet.saves.len() == 1 && quiet.saves[0].is_none());
        let failed = Error::new(ErrorKind::Storage, "a.png is gone");
        let heard = exchange(comm.as_ref(), true, Some(failed), Some(SaveEvent::Committed)).unwrap();
        let failure = heard.failure.unwrap();
        assert_eq!((failure.error().kind(), failure.to_string().as_str()), (ErrorKind::Storage, "a.png is gone"));
        assert!(heard.stop && matches!(heard.saves[0], Some(SaveEvent::Committed)));
    }
}
