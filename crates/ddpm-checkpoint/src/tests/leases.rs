//! The lease: who may write, and what happens to a writer that has lost it.

use std::thread::sleep;

use super::{background::start_save, *};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(600);

fn renew(store: &Store, lease: &Lease) -> Result<(), CheckpointError> {
    store.block_on(lease.holder().renew())
}

fn is_lost<T>(result: Result<T, CheckpointError>) -> bool {
    matches!(result, Err(CheckpointError::LeaseLost { generation: 1, .. }))
}

/// A lease whose holder was frozen right after acquiring it, until it had expired.
fn frozen(store: &Store) -> Lease {
    let lease = store.acquire_lease("frozen", SHORT).unwrap();
    lease.keeper.abort();
    sleep(SHORT + Duration::from_millis(50));
    lease
}

#[test]
fn a_lease_has_one_holder() {
    on_each_store(|store| {
        let first = store.acquire_lease("first", LONG).unwrap();
        renew(store, &first).unwrap();
        assert_eq!(first.holder().generation, 1);
        let error = store.acquire_lease("second", LONG).unwrap_err();
        assert!(matches!(&error, CheckpointError::Held { owner, .. } if owner == "first"), "{error}");
        assert!(error.to_string().contains("another 60 s"), "{error}");
        first.release().unwrap();
        let second = store.acquire_lease("second", LONG).unwrap();
        assert_eq!(second.holder().generation, 2);
        assert!(matches!(store.acquire_lease("third", LONG), Err(CheckpointError::Held { .. })));
    });
}

#[test]
fn an_expired_lease_can_be_taken_over_and_is_then_lost() {
    on_each_store(|store| {
        let first = frozen(store);
        renew(store, &first).unwrap();
        assert!(matches!(store.acquire_lease("second", LONG), Err(CheckpointError::Held { .. })), "renewed late");
        sleep(SHORT + Duration::from_millis(50));
        let second = store.acquire_lease("second", LONG).unwrap();
        assert_eq!(second.holder().generation, 2);
        first.check().unwrap();
        assert!(is_lost(renew(store, &first)));
        assert!(is_lost(first.check()));
        assert!(is_lost(first.release()));
        renew(store, &second).unwrap();
    });
}

#[test]
fn a_lease_is_renewed_for_as_long_as_its_holder_lives() {
    let store = Store::open("memory://").unwrap();
    let ttl = Duration::from_millis(1200);
    let lease = store.acquire_lease("first", ttl).unwrap();
    sleep(2 * ttl);
    assert!(matches!(store.acquire_lease("second", ttl), Err(CheckpointError::Held { .. })));
    drop(lease);
    sleep(2 * ttl);
    assert_eq!(store.acquire_lease("second", ttl).unwrap().holder().generation, 2);
}

#[test]
fn one_of_many_competitors_gets_the_lease() {
    let dir = tempfile::tempdir().unwrap();
    let held: Vec<_> = std::thread::scope(|scope| {
        let taker = |i: usize| local(&dir).acquire_lease(&i.to_string(), LONG);
        let takers: Vec<_> = (0..6).map(|i| scope.spawn(move || taker(i))).collect();
        takers.into_iter().map(|taker| taker.join().unwrap()).collect()
    });
    assert_eq!(held.iter().filter(|lease| lease.is_ok()).count(), 1);
    let refused = |lease: &&Result<_, _>| matches!(lease, Err(CheckpointError::Held { .. }));
    assert_eq!(held.iter().filter(refused).count(), 5, "{held:?}");
}

#[test]
fn a_writer_frozen_past_its_lease_neither_commits_nor_deletes() {
    on_each_store(|store| {
        let late = frozen(store);
        for step in [10, 20, 30] {
            save(store, step, 1);
        }
        let now = store.acquire_lease("now", LONG).unwrap();
        assert!(is_lost(start_save(store, 40, Some(&late))));
        let keep_one = Retention { keep_last: 1, keep_every: None, keep_step: None };
        assert!(is_lost(store.prune(&keep_one, Some(&late))));
        assert_eq!(store.list().unwrap(), [30, 20, 10]);
        assert_eq!(start_save(store, 40, Some(&now)).unwrap().deleted, [20, 10]);
        assert_eq!(store.read_manifest(40).unwrap().lease, 2);
    });
}

#[test]
fn a_manifest_that_arrives_after_the_takeover_does_not_fence_the_new_holder() {
    on_each_store(|store| {
        drop(frozen(store));
        let now = store.acquire_lease("now", LONG).unwrap();
        let mut late = write(store, 20, 1, &[("weights", values(4, 1))]);
        late.lease = 1;
        put(store, &manifest_name(20), crate::manifest::seal(&late));
        start_save(store, 20, Some(&now)).unwrap();
        assert_eq!(store.read_manifest(20).unwrap().lease, 2);
        assert_eq!(latest(store), Some((20, vec![])));
        // A writer without a lease still counts as another writer.
        save(store, 30, 1);
        assert!(matches!(start_save(store, 30, Some(&now)), Err(CheckpointError::Fenced { step: 30, .. })));
    });
}

#[test]
fn a_step_that_the_same_writer_already_committed_counts_as_committed() {
    on_each_store(|store| {
        let lease = store.acquire_lease("ours", LONG).unwrap();
        for (step, lease) in [(10, Some(&lease)), (20, None)] {
            start_save(store, step, lease).unwrap();
            let first = store.read_manifest(step).unwrap();
            // Given up for lost, and saved again under a new attempt.
            let mut again = write(store, step, 1, &[("weights", values(4, 1))]);
            again.nonce = first.nonce.clone();
            finish(store.start_commit(again, lease)).unwrap();
            assert_eq!(store.read_manifest(step).unwrap(), first);
        }
    });
}

#[test]
fn a_missing_or_damaged_lease_is_not_held() {
    on_each_store(|store| {
        let lease = store.acquire_lease("first", LONG).unwrap();
        put(store, "lease.json", b"{}".to_vec());
        assert!(matches!(store.acquire_lease("second", LONG), Err(CheckpointError::DamagedLease { .. })));
        assert!(start_save(store, 10, Some(&lease)).is_err());
        // No other run holds it either, and the message must not claim so.
        store.create_run(&json!({})).unwrap();
        remove(store, "lease.json");
        let error = start_save(store, 10, Some(&lease)).unwrap_err();
        assert!(matches!(error, CheckpointError::Vanished { emptied: false, .. }), "{error}");
        assert!(error.to_string().contains("lease.json, by which the run holds the store, was deleted"), "{error}");
        assert!(matches!(lease.check(), Err(CheckpointError::Vanished { .. })));
        assert_eq!(store.list().unwrap(), [0; 0]);
    });
}

#[test]
fn a_store_emptied_under_its_writer_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(&dir);
    let lease = store.acquire_lease("first", LONG).unwrap();
    store.create_run(&json!({})).unwrap();
    save(&store, 10, 1);
    for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    let error = start_save(&store, 20, Some(&lease)).unwrap_err();
    assert!(matches!(error, CheckpointError::Vanished { emptied: true, .. }), "{error}");
    assert!(error.to_string().starts_with("the store was deleted while this run was writing to"), "{error}");
}

#[test]
fn breaking_a_lease_frees_the_store_and_fences_its_holder() {
    on_each_store(|store| {
        assert!(store.lease_status().unwrap().is_none());
        let first = store.acquire_lease("first", LONG).unwrap();
        save(store, 5, 1);
        let seen = store.lease_status().unwrap().unwrap();
        assert_eq!(seen.owner, "first");
        assert!(seen.is_being_renewed() && !seen.remaining().is_zero());
        assert!(seen.describe().starts_with(&format!("first has held {} for ", store.uri())), "{seen:?}");
        assert!(seen.prospects().contains("so this one is alive, or died since. "), "{seen:?}");
        // The holder is alive and renews meanwhile.
        renew(store, &first).unwrap();
        store.break_lease(&seen, "unlock").unwrap();
        assert!(store.lease_status().unwrap().is_none());
        assert!(
            matches!(start_save(store, 10, Some(&first)), Err(CheckpointError::LeaseLost { owner, .. }) if owner == "unlock")
        );
        let keep_one = Retention { keep_last: 1, keep_every: None, keep_step: None };
        assert!(is_lost(store.prune(&keep_one, Some(&first))));
        assert!(is_lost(store.drop_checkpoint(5, &first)));
        assert_eq!(store.list().unwrap(), [5]);
        let second = store.acquire_lease("second", LONG).unwrap();
        assert_eq!(second.holder().generation, 3);
        start_save(store, 10, Some(&second)).unwrap();
        // An outdated status does not take the lease from a later holder.
        assert!(
            matches!(store.break_lease(&seen, "unlock"), Err(CheckpointError::Held { owner, .. }) if owner == "second")
        );
        renew(store, &second).unwrap();
        second.release().unwrap();
        store.break_lease(&seen, "unlock").unwrap();
    });
}

#[test]
fn an_expired_lease_is_not_broken_if_its_holder_came_back() {
    on_each_store(|store| {
        let first = frozen(store);
        let seen = store.lease_status().unwrap().unwrap();
        assert!(seen.remaining().is_zero() && !seen.is_being_renewed());
        renew(store, &first).unwrap();
        assert!(matches!(store.break_lease(&seen, "unlock"), Err(CheckpointError::Held { .. })));
        renew(store, &first).unwrap();
    });
}

#[test]
fn a_damaged_lease_is_replaced_by_one_newer_than_any_manifest() {
    on_each_store(|store| {
        let lease = store.acquire_lease("first", LONG).unwrap();
        start_save(store, 10, Some(&lease)).unwrap();
        put(store, "lease.json", b"{}".to_vec());
        assert!(matches!(store.lease_status(), Err(CheckpointError::DamagedLease { .. })));
        store.replace_damaged_lease("unlock").unwrap();
        assert!(is_lost(start_save(store, 20, Some(&lease))));
        assert_eq!(store.acquire_lease("second", LONG).unwrap().holder().generation, 3);
    });
}

#[test]
fn a_lease_survives_lost_answers_and_conflicts() {
    let faults = [
        json!("lose_answer"),
        json!({ "deny": { "status": 500, "code": "InternalError" } }),
        json!({ "deny": { "status": 412, "code": "PreconditionFailed" } }),
        json!({ "refuse": { "status": 412, "code": "PreconditionFailed" } }),
        json!({ "refuse": { "status": 409, "code": "ConditionalRequestConflict" } }),
        json!({ "refuse": { "status": 503, "code": "SlowDown" } }),
    ];
    for fault in faults {
        let server = Server::new();
        let store = server.store();
        let rules = json!([{ "op": "PutObject", "key": "lease.json", "times": 1, "fault": fault }]);
        server.fail(rules.clone());
        let lease = store.acquire_lease("first", LONG).unwrap();
        server.fail(rules.clone());
        renew(&store, &lease).unwrap();
        server.fail(rules);
        lease.release().unwrap();
        assert_eq!(store.acquire_lease("second", LONG).unwrap().holder().generation, 2, "{fault}");
    }
}

#[test]
fn a_lease_is_held_where_quotes_count_as_a_part_of_the_etag() {
    let server = Server::new();
    server.fail(json!([{ "op": "PutObject", "fault": "quoted_etag" }]));
    let store = server.store();
    store.probe().unwrap();
    let first = frozen(&store);
    renew(&store, &first).unwrap();
    // Another process, which has to find out for itself; it waits until the lease has run out.
    let other = server.store();
    while matches!(other.acquire_lease("second", LONG), Err(CheckpointError::Held { .. })) {
        sleep(Duration::from_millis(20));
    }
    assert!(is_lost(renew(&store, &first)));
    let seen = other.lease_status().unwrap().unwrap();
    other.break_lease(&seen, "test").unwrap();
    other.acquire_lease("third", LONG).unwrap().release().unwrap();
}

#[test]
fn a_lease_renewed_during_a_takeover_stays_with_its_holder() {
    let server = Server::new();
    let store = server.store();
    let first = frozen(&store);
    let writes = server.rig.seen(Op::PutObject, "lease.json");
    server.fail(json!([{ "op": "PutObject", "key": "lease.json", "times": 1, "fault": { "delay": { "ms": 1000 } } }]));
    std::thread::scope(|scope| {
        let second = scope.spawn(|| store.acquire_lease("second", LONG));
        while server.rig.seen(Op::PutObject, "lease.json") == writes {
            sleep(Duration::from_millis(1));
        }
        // As a live holder does, until the delayed write arrives.
        while !second.is_finished() {
            renew(&store, &first).unwrap();
            sleep(Duration::from_millis(20));
        }
        assert!(matches!(second.join().unwrap(), Err(CheckpointError::Held { .. })));
    });
    renew(&store, &first).unwrap();

    // The same in a directory, where the competitor waits for the lock.
    let dir = tempfile::tempdir().unwrap();
    let store = local(&dir);
    drop(frozen(&store));
    let mut record: Value = crate::manifest::unseal(&get(&store, "lease.json")).ok().unwrap();
    let lock = std::fs::File::open(dir.path().join("lease.lock")).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| store.acquire_lease("second", LONG));
        sleep(Duration::from_millis(200));
        let hour = std::time::SystemTime::now() + Duration::from_secs(3600);
        let until = hour.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        record["expiry_unix_ms"] = until.into();
        put(&store, "lease.json", crate::manifest::seal(&record));
        drop(lock);
        assert!(matches!(second.join().unwrap(), Err(CheckpointError::Held { .. })));
    });
}
