//! Writers that race on a server whose conditional writes are independent of ours and the rig's.

use std::{sync::Barrier, thread};

use super::{servers::Moto, *};

const COMPETITORS: usize = 6;

/// The result of each competitor; all start at once, each with its own client.
fn race<T: Send>(open: &(impl Fn() -> Store + Sync), attempt: impl Fn(usize, &Store, &Barrier) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(COMPETITORS);
    thread::scope(|scope| {
        let (attempt, barrier) = (&attempt, &barrier);
        let competitors: Vec<_> = (0..COMPETITORS).map(|i| scope.spawn(move || attempt(i, &open(), barrier))).collect();
        competitors.into_iter().map(|competitor| competitor.join().unwrap()).collect()
    })
}

/// Checks that one competitor commits and one holds the lease, each time, in the store that `open` opens.
fn check_races(open: impl Fn() -> Store + Sync) {
    open().probe().unwrap();
    for round in 1..=3 {
        let outcomes = race(&open, |_, store, barrier| {
            let manifest = write(store, round, 1, &[("weights", values(4, 1))]);
            barrier.wait();
            finish(store.start_commit(manifest.clone(), None)).map(|_| manifest.nonce)
        });
        let winners: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(winners, [&open().read_manifest(round).unwrap().nonce], "{outcomes:?}");
        let fenced = |outcome: &&Result<_, _>| matches!(outcome, Err(CheckpointError::Fenced { .. }));
        assert_eq!(outcomes.iter().filter(fenced).count(), COMPETITORS - 1, "{outcomes:?}");

        let mut leases = race(&open, |i, store, barrier| {
            barrier.wait();
            store.acquire_lease(&i.to_string(), Duration::from_secs(60))
        });
        let held = |outcome: &&Result<_, _>| matches!(outcome, Err(CheckpointError::Held { .. }));
        assert_eq!(leases.iter().filter(held).count(), COMPETITORS - 1, "{leases:?}");
        let winner = leases.remove(leases.iter().position(Result::is_ok).unwrap()).unwrap();
        assert_eq!(winner.holder().generation, round);
        winner.release().unwrap();
    }
}

#[test]
fn on_moto_one_competitor_commits_and_one_holds_the_lease() {
    let moto = Moto::start();
    check_races(|| Store::open_in(&moto.env(), "s3://bucket/some/run", StoreOptions::default(), |_| Ok(())).unwrap());
}

#[test]
#[ignore = "for a server that the environment names: scripts/store_check.sh and the test of Azurite run it"]
fn one_competitor_commits_and_one_holds_the_lease() {
    let uri = named_store().expect(NAMED_STORE).uri().to_owned();
    check_races(|| Store::open(&uri).unwrap());
}
