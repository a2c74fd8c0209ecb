//! Uploads and commits in the background, copies, and the probe.

use super::*;

const KEEP_TWO: Retention = Retention { keep_last: 2, keep_every: None, keep_step: None };

fn owned(buffers: &[(&str, Vec<f32>)], rank: usize, world: usize) -> Vec<OwnedSlice> {
    let slice = |(name, data): &(&str, Vec<f32>)| {
        let range = share(data.len(), rank, world);
        OwnedSlice { name: name.to_string(), data: data[range.clone()].to_vec(), range }
    };
    buffers.iter().map(slice).collect()
}

/// Saves in the background with two ranks, and keeps two.
pub(super) fn start_save(store: &Store, step: u64, lease: Option<&Lease>) -> Result<RetentionReport, CheckpointError> {
    let buffers = [("weights", values(1001, step as u32)), ("exp_avg", values(77, 1))];
    let mut manifest = write(&Store::open("memory://").unwrap(), step, 2, &buffers);
    let upload = |rank| store.start_upload(step, &manifest.attempt, rank, 2, ready(owned(&buffers, rank, 2)));
    let uploads = [0, 1].map(upload);
    manifest.shards = uploads.into_iter().map(finish).collect::<Result<_, _>>()?;
    finish(store.start_commit(manifest, lease))?;
    finish(store.start_retention(KEEP_TWO, lease))
}

#[test]
fn expired_checkpoints_are_deleted_in_the_background() {
    on_each_store(|store| {
        for step in [10, 20, 30] {
            let retained = start_save(store, step, None).unwrap();
            let deleted = if step == 30 { vec![10] } else { vec![] };
            assert_eq!(retained, RetentionReport { deleted, ..RetentionReport::default() });
        }
        let keep_one = Retention { keep_last: 1, ..KEEP_TWO };
        assert_eq!(store.prunable(&keep_one).unwrap(), (vec![20], vec![]));
        assert_eq!(store.list().unwrap(), [30, 20]);
        let before = store.objects_deleted();
        assert_eq!(store.prune(&keep_one, None).unwrap().deleted, [20]);
        assert!(store.objects_deleted() > before);
    });
}

#[test]
fn values_may_come_later_or_not_at_all() {
    on_each_store(|store| {
        let slice = OwnedSlice { name: "weights".into(), range: 0..2, data: vec![1.0, f32::NAN] };
        let attempt = Attempt::generate();
        let (send, receive) = std::sync::mpsc::channel();
        let mut upload = store.start_upload(1, &attempt, 0, 1, Box::new(move || Ok(vec![receive.recv()?])));
        assert!(upload.poll().is_none(), "it waits for the values");
        send.send(slice.clone()).unwrap();
        let entry = finish(upload).unwrap();
        let at_once = finish(store.start_upload(1, &Attempt::generate(), 0, 1, ready(vec![slice]))).unwrap();
        assert_eq!((entry.sha256, entry.size), (at_once.sha256, at_once.size));
        let failed = finish(store.start_upload(2, &attempt, 0, 1, Box::new(|| Err("the GPU is lost".into()))));
        let failed = failed.unwrap_err().to_string();
        assert!(failed.starts_with("the values of ckpt/") && failed.contains(": the GPU is lost."), "{failed}");
    });
}

#[test]
fn invalid_uploads_and_retention_are_refused() {
    let store = Store::open("memory://").unwrap();
    let slice = OwnedSlice { name: "weights".into(), range: 0..2, data: vec![1.0] };
    let upload = store.start_upload(1, &Attempt::generate(), 0, 1, ready(vec![slice]));
    assert!(matches!(finish(upload), Err(CheckpointError::Invalid { .. })));
    save(&store, 1, 1);
    let keep_none = Retention { keep_last: 0, ..KEEP_TWO };
    assert!(matches!(finish(store.start_retention(keep_none, None)), Err(CheckpointError::Invalid { .. })));
    assert_eq!(store.list().unwrap(), [1]);
}

#[test]
fn a_copy_is_complete_or_absent() {
    on_each_store(|store| {
        let elsewhere = Store::open("memory://").unwrap();
        let ours = save(store, 10, 3);
        assert_eq!(store.copy_checkpoint(10, &elsewhere).unwrap(), ours);
        assert_eq!([store.bytes_read(), elsewhere.bytes_read()], [ours.bytes(); 2]);
        assert_eq!(store.copy_checkpoint(10, &elsewhere).unwrap(), ours, "repeated");
        assert_eq!(elsewhere.read_manifest(10).unwrap(), ours);
        assert_eq!(bits(&elsewhere.load_buffer(&ours, "weights").unwrap()), bits(&values(10, 10)));
        let theirs = save(&elsewhere, 20, 2);
        assert_eq!(elsewhere.copy_checkpoint(20, store).unwrap(), theirs);
        assert_eq!(latest(store), Some((20, vec![])));

        let damaged = save(store, 30, 2);
        let mut bytes = get(store, &damaged.shards[1].path);
        bytes[90] ^= 1;
        put(store, &damaged.shards[1].path, bytes);
        assert!(matches!(store.copy_checkpoint(30, &elsewhere), Err(CheckpointError::Damaged { .. })));
        assert!(matches!(store.copy_checkpoint(40, &elsewhere), Err(CheckpointError::NotFound { .. })));
        assert_eq!(elsewhere.list().unwrap(), [20, 10]);
        save(&elsewhere, 30, 1);
        save(store, 50, 1);
        save(&elsewhere, 50, 1);
        assert!(matches!(store.copy_checkpoint(50, &elsewhere), Err(CheckpointError::Fenced { step: 50, .. })));
    });
}

#[test]
fn the_probe_accepts_conditional_writes_and_cleans_up() {
    on_each_store(|store| {
        store.probe().unwrap();
        let left = store.block_on(store.bucket.objects.list_with_delimiter(Some(&Path::from("probe")))).unwrap();
        assert_eq!(left.objects.len(), 0);
        assert!(store.bucket.root.as_ref().is_none_or(|root| !root.join("probe").exists()));
    });
}

#[test]
fn a_mark_is_seen_in_its_own_store_only() {
    on_each_store(|store| {
        let mark = store.leave_mark().unwrap();
        assert!(store.has_mark(&mark).unwrap());
        let elsewhere = Store::open("memory://").unwrap();
        assert!(!elsewhere.has_mark(&mark).unwrap());
        assert!(!elsewhere.has_mark(&mark).unwrap(), "it is deleted where it did not belong");
        store.remove_mark(&mark).unwrap();
        assert!(!store.has_mark(&mark).unwrap());
        assert!(store.bucket.root.as_ref().is_none_or(|root| !root.join("probe").exists()));
    });
}

#[test]
fn the_probe_refuses_a_store_without_conditional_writes() {
    let server = Server::new();
    server.fail(json!([{ "op": "PutObject", "key": "probe/", "fault": "overwrite" }]));
    let refused = server.store().probe();
    assert!(matches!(refused, Err(CheckpointError::Unconditional { .. })), "{refused:?}");

    // Updates are refused, whatever their condition.
    let fault = json!({ "refuse": { "status": 412, "code": "PreconditionFailed" } });
    server.fail(json!([{ "op": "PutObject", "key": "probe/", "skip": 2, "fault": fault }]));
    let refused = server.store().probe().unwrap_err().to_string();
    assert!(refused.contains("it refuses to update an object although the condition holds"), "{refused}");

    let mut env = server.rig.env();
    env.push(("AWS_CONDITIONAL_PUT".into(), "disabled".into()));
    let store = Store::open_in(&env, "s3://bucket/run", StoreOptions::default(), |_| Ok(())).unwrap();
    assert!(matches!(store.probe(), Err(CheckpointError::Unconditional { .. })));
}

#[test]
fn options_and_addresses_are_checked_before_anything_is_sent() {
    for (part_bytes, concurrency) in [(1 << 20, 4), ((8 << 20) + 1, 4), (8 << 20, 0)] {
        let options = StoreOptions { part_bytes, concurrency, ..StoreOptions::default() };
        assert!(matches!(Store::open_with("memory://", options), Err(CheckpointError::Invalid { .. })));
    }
    let open = |env: &[(String, String)]| {
        Store::open_in(env, "s3://bucket/run", StoreOptions::default(), |_| Ok(())).map(drop)
    };
    let mut env = Server::new().rig.env();
    open(&env).unwrap();
    env.retain(|(name, _)| name != "AWS_ALLOW_HTTP");
    let error = open(&env).unwrap_err();
    assert!(
        matches!(error, CheckpointError::Address { .. }) && error.to_string().contains("AWS_ALLOW_HTTP"),
        "{error}"
    );
    env.retain(|(name, _)| name != "AWS_SECRET_ACCESS_KEY");
    assert!(matches!(open(&env), Err(CheckpointError::Address { .. })));
    let azure = |env: &[(String, String)]| {
        Store::open_in(env, "az://container/run", StoreOptions::default(), |_| Ok(())).map(drop)
    };
    assert!(matches!(azure(&[]), Err(CheckpointError::Address { .. })), "no account");
    azure(&[("AZURE_STORAGE_ACCOUNT_NAME".into(), "account".into())]).unwrap();
    Store::open_in(&[], "gs://bucket/run", StoreOptions::default(), |_| Ok(())).unwrap();
}
