//! Invariants when the store or the network fails: no commit that is not one, no commit reported as lost, and never "no
//! checkpoint".

use super::{background::start_save, *};

fn is_store_error<T: std::fmt::Debug>(result: Result<T, CheckpointError>) -> bool {
    matches!(result, Err(CheckpointError::Store { .. }))
}

fn refuse(status: u16, code: &str) -> Value {
    json!({ "refuse": { "status": status, "code": code } })
}

fn deny(status: u16, code: &str) -> Value {
    json!({ "deny": { "status": status, "code": code } })
}

/// Without faults, the store holds a valid checkpoint of this step and no other.
fn holds_only(server: &Server, step: u64) -> bool {
    server.fail(json!([]));
    let store = server.store();
    store.list().unwrap() == [step] && store.verify(step).unwrap().faults.is_empty()
}

#[test]
fn every_save_commits_while_one_request_in_ten_fails() {
    let save_eight = |(status, code)| {
        let server = Server::new();
        let store = server.store();
        server.fail(json!([{ "percent": 10, "fault": refuse(status, code) }]));
        let lease = store.acquire_lease("ours", Duration::from_secs(60)).unwrap();
        for step in 1..=8 {
            start_save(&store, step, Some(&lease)).unwrap();
        }
        server.fail(json!([]));
        assert_eq!(store.list().unwrap(), [8, 7], "{code}");
        assert_eq!(latest(&store), Some((8, vec![])), "{code}");
    };
    std::thread::scope(|scope| {
        let failures = [(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests")];
        let runs = failures.map(|failure| scope.spawn(move || save_eight(failure)));
        runs.into_iter().for_each(|run| run.join().unwrap());
    });
}

#[test]
fn a_store_that_always_fails_is_an_error_and_leaves_nothing() {
    let server = Server::new();
    let store = server.impatient();
    save(&store, 10, 1);
    for (status, code) in
        [(503, "SlowDown"), (403, "ExpiredToken"), (403, "RequestTimeTooSkewed"), (400, "ExpiredToken")]
    {
        server.fail(json!([{ "fault": refuse(status, code) }]));
        assert!(is_store_error(start_save(&store, 20, None)), "{code}");
        assert!(is_store_error(store.list()), "{code}");
        assert!(is_store_error(discover(&store, Want::Latest)), "{code}");
        assert!(is_store_error(store.rewind(None)), "{code}");
        assert!(is_store_error(retain(&store, 1, None, None)), "{code}");
        assert!(is_store_error(store.acquire_lease("ours", Duration::from_secs(9))), "{code}");
        assert!(is_store_error(store.create_run(&json!({}))), "{code}");
        assert!(is_store_error(store.probe()), "{code}");
    }
    assert!(holds_only(&server, 10));
}

#[test]
fn an_unreachable_server_is_an_error() {
    let server = Server::new();
    let store = server.impatient();
    drop(server);
    assert!(is_store_error(discover(&store, Want::Latest)));
    assert!(is_store_error(start_save(&store, 1, None)));
}

#[test]
fn a_missing_bucket_is_an_error() {
    let server = Server::new();
    let store = Store::open_in(&server.rig.env(), "s3://nowhere/run", StoreOptions::default(), |_| Ok(())).unwrap();
    assert!(is_store_error(discover(&store, Want::Latest)));
}

#[test]
fn a_resume_never_starts_from_scratch_because_the_store_cannot_be_read() {
    let server = Server::new();
    let store = server.impatient();
    save(&store, 10, 2);
    for (status, code) in [(503, "SlowDown"), (403, "AccessDenied"), (403, "ExpiredToken"), (200, "InternalError")] {
        // S3 never sends a list response with an error inside a 200, and object_store could not distinguish it from an
        // empty one.
        for op in ["ListObjectsV2", "GetObject", "HeadObject"].into_iter().skip((status == 200) as usize) {
            server.fail(json!([{ "op": op, "fault": refuse(status, code) }]));
            let found = discover(&store, Want::Latest);
            // A 200 means that these are the object's bytes, so they are damaged; any other status says nothing about
            // them.
            match status {
                200 => {
                    assert!(matches!(found, Err(CheckpointError::NoneVerifies { .. } | CheckpointError::Store { .. })))
                }
                _ => assert!(is_store_error(found), "{op} {code}"),
            }
        }
    }
    assert!(holds_only(&server, 10));
}

#[test]
fn a_response_lost_after_the_commit_does_not_lose_the_commit() {
    let faults =
        [json!("lose_answer"), deny(500, "InternalError"), deny(409, "Conflict"), deny(412, "PreconditionFailed")];
    for fault in faults {
        let server = Server::new();
        server.fail(json!([{ "op": "PutObject", "key": "manifest/", "times": 1, "fault": fault }]));
        start_save(&server.store(), 10, None).unwrap();
        assert!(holds_only(&server, 10), "{fault}");
    }
}

#[test]
fn a_commit_that_timed_out_is_checked_and_retried() {
    let server = Server::new();
    let request_timeout = Duration::from_millis(500);
    let store = server.store_with(StoreOptions { request_timeout, ..StoreOptions::default() });
    server.fail(json!([{ "op": "PutObject", "key": "manifest/", "times": 1, "fault": { "delay": { "ms": 5000 } } }]));
    start_save(&store, 10, None).unwrap();
    assert!(server.rig.seen(Op::PutObject, "manifest/") > 1 && holds_only(&server, 10));
}

#[test]
fn a_response_lost_after_a_shard_is_complete_does_not_lose_the_shard() {
    for fault in [json!("lose_answer"), deny(404, "NoSuchUpload"), deny(500, "InternalError")] {
        let server = Server::new();
        server.fail(json!([{ "op": "CompleteMultipartUpload", "times": 2, "fault": fault }]));
        start_save(&server.store(), 10, None).unwrap();
        assert!(holds_only(&server, 10), "{fault}");
    }
}

#[test]
fn a_conflict_without_a_manifest_is_retried() {
    for (status, code) in [(409, "ConditionalRequestConflict"), (412, "PreconditionFailed"), (200, "InternalError")] {
        let server = Server::new();
        server.fail(json!([{ "op": "PutObject", "key": "manifest/", "times": 2, "fault": refuse(status, code) }]));
        start_save(&server.store(), 10, None).unwrap();
        assert!(server.rig.seen(Op::PutObject, "manifest/") > 2);
        assert!(holds_only(&server, 10), "{code}");
    }
}

#[test]
fn an_error_inside_a_200_response_is_not_a_commit() {
    for (op, key) in [("PutObject", "manifest/"), ("CompleteMultipartUpload", "ckpt/")] {
        for code in ["InternalError", "AccessDenied"] {
            let server = Server::new();
            server.fail(json!([{ "op": op, "key": key, "fault": refuse(200, code) }]));
            let saved = start_save(&server.impatient(), 10, None);
            assert!(is_store_error(saved), "{op} {code}");
            server.fail(json!([]));
            assert_eq!(latest(&server.store()), None, "{op} {code}");
        }
    }
}

#[test]
fn a_transfer_that_is_cut_off_is_retried() {
    let server = Server::new();
    let store = server.store();
    server.fail(json!([
        { "op": "UploadPart", "times": 2, "fault": { "cut_request": { "at": 1000 } } },
        { "op": "GetObject", "key": "ckpt/", "times": 3, "fault": { "cut_answer": { "at": 1000 } } },
    ]));
    start_save(&store, 10, None).unwrap();
    assert_eq!(latest(&store), Some((10, vec![])));
    assert!(server.rig.seen(Op::UploadPart, "") == 4 && server.rig.seen(Op::GetObject, "ckpt/") == 5);
    assert!(holds_only(&server, 10));
}

#[test]
fn a_slow_store_succeeds_unless_it_exceeds_the_timeout() {
    let server = Server::new();
    server.fail(json!([{ "op": "UploadPart", "fault": { "slow": { "bytes_per_s": 40_000 } } }]));
    start_save(&server.store(), 10, None).unwrap();
    let times = Duration::from_millis(50);
    let impatient = StoreOptions { request_timeout: times, retry_timeout: times, ..StoreOptions::default() };
    server.fail(json!([{ "op": "UploadPart", "fault": { "delay": { "ms": 5000 } } }]));
    assert!(is_store_error(start_save(&server.store_with(impatient), 20, None)));
    assert!(holds_only(&server, 10));
}

#[test]
fn the_number_of_parts_in_flight_is_limited() {
    let server = Server::new();
    server.fail(json!([{ "op": "UploadPart", "fault": { "delay": { "ms": 100 } } }]));
    let store = server.store_with(StoreOptions { concurrency: 2, ..StoreOptions::default() });
    let slice = OwnedSlice { name: "weights".into(), range: 0..10_000_000, data: values(10_000_000, 1) };
    let entry = finish(store.start_upload(1, &Attempt::generate(), 0, 1, ready(vec![slice]))).unwrap();
    assert_eq!((server.rig.seen(Op::UploadPart, ""), server.rig.most_parts()), (5, 2));
    assert_eq!(get(&store, &entry.path).len() as u64, entry.size);
}

#[test]
fn a_bit_flipped_in_transit_is_detected() {
    let server = Server::new();
    let store = server.store();
    let manifest = save(&store, 10, 1);
    server.fail(json!([{ "op": "GetObject", "key": "ckpt/", "fault": { "flip": { "at": 95 } } }]));
    assert!(matches!(read_shard(&store, &manifest, 0), Err(CheckpointError::Damaged { .. })));
    assert_eq!(store.verify(10).unwrap().faults.len(), 1);
    server.fail(json!([{ "op": "GetObject", "key": "manifest/", "fault": { "flip": { "at": 95 } } }]));
    assert!(matches!(store.read_manifest(10), Err(CheckpointError::Damaged { .. })));
    // On the way to the store, the signature protects the bytes.
    server.fail(json!([{ "op": "UploadPart", "fault": { "flip": { "at": 95 } } }]));
    assert!(is_store_error(start_save(&server.impatient(), 20, None)));
    assert!(holds_only(&server, 10));
}

#[test]
fn one_rank_that_cannot_write_fails_alone() {
    let server = Server::new();
    server.fail(json!([{ "op": "UploadPart", "key": "r00001-of", "fault": refuse(500, "InternalError") }]));
    let store = server.impatient();
    let attempt = Attempt::generate();
    let data = values(10, 1);
    let start = |rank| {
        let slice = OwnedSlice { name: "weights".into(), range: 0..10, data: data.clone() };
        store.start_upload(10, &attempt, rank, 2, ready(vec![slice]))
    };
    let (first, second) = (start(0), start(1));
    assert!(finish(first).is_ok());
    assert!(is_store_error(finish(second)));
    assert_eq!(latest(&store), None);
}

#[test]
fn an_upload_that_is_dropped_or_fails_is_aborted() {
    let server = Server::new();
    let store = server.impatient();
    let start = || {
        let slice = OwnedSlice { name: "weights".into(), range: 0..10, data: values(10, 1) };
        store.start_upload(10, &Attempt::generate(), 0, 1, ready(vec![slice]))
    };
    let wait_for = |op, times| {
        let mut left = 1000;
        while server.rig.seen(op, "ckpt/") < times && left > 0 {
            std::thread::sleep(Duration::from_millis(10));
            left -= 1;
        }
        assert_eq!(server.rig.seen(op, "ckpt/"), times);
    };
    server.fail(json!([{ "op": "UploadPart", "fault": { "delay": { "ms": 60_000 } } }]));
    let upload = start();
    wait_for(Op::UploadPart, 1);
    drop(upload);
    wait_for(Op::AbortMultipartUpload, 1);
    server.fail(json!([{ "op": "UploadPart", "fault": refuse(403, "AccessDenied") }]));
    assert!(is_store_error(finish(start())));
    wait_for(Op::AbortMultipartUpload, 2);
    assert_eq!(server.rig.seen(Op::CompleteMultipartUpload, ""), 0);
}

#[test]
fn a_failed_deletion_leaves_only_valid_checkpoints_and_is_completed_later() {
    for (key, deleted) in [("manifest/", vec![]), ("ckpt/", vec![10])] {
        let server = Server::new();
        let store = server.impatient();
        for step in [10, 20, 30] {
            save(&store, step, 2);
        }
        server.fail(json!([{ "op": "DeleteObject", "key": key, "times": 5, "fault": refuse(403, "AccessDenied") }]));
        let keep = Retention { keep_last: 2, keep_every: None, keep_step: None };
        let done = store.prune(&keep, None).unwrap();
        assert_eq!((done.deleted, done.warnings.len()), (deleted, 1), "{key}");
        server.fail(json!([]));
        for step in store.list().unwrap() {
            assert_eq!(store.verify(step).unwrap().faults, [""; 0], "{key}");
        }
        store.prune(&keep, None).unwrap();
        store.block_on(store.bucket.sweep(Duration::ZERO, None, &mut RetentionReport::default())).unwrap();
        let folders = store.block_on(store.bucket.objects.list_with_delimiter(Some(&Path::from("ckpt")))).unwrap();
        assert_eq!((store.list().unwrap(), folders.common_prefixes.len()), (vec![30, 20], 2), "{key}");
    }
}
