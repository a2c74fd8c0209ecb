//! The history of commits: who may add to it, and what is listed, kept, swept and set aside.

use std::fs;

use super::*;

/// The folders of attempts that are not empty.
fn folders(store: &Store) -> Vec<String> {
    let found = store.block_on(store.bucket.objects.list_with_delimiter(Some(&Path::from("ckpt")))).unwrap();
    found.common_prefixes.iter().map(Path::to_string).collect()
}

fn folder(manifest: &Manifest) -> String {
    layout::attempt_folder(manifest.step, &manifest.attempt).to_string()
}

#[test]
fn an_empty_store_has_no_checkpoint() {
    on_each_store(|store| {
        assert_eq!(store.list().unwrap(), [0; 0]);
        assert_eq!(latest(store), None);
        assert!(matches!(discover(store, Want::Step(1)), Err(CheckpointError::NotFound { .. })));
        assert!(matches!(store.read_manifest(1), Err(CheckpointError::NotFound { .. })));
    });
}

#[test]
fn commits_are_listed_newest_first_and_foreign_files_ignored() {
    on_each_store(|store| {
        for step in [9, 1_000_000_000_000, 10] {
            save(store, step, 1);
        }
        put(store, "manifest/notes.txt", vec![]);
        put(store, "manifest/11.json", vec![]);
        assert_eq!(store.list().unwrap(), [1_000_000_000_000, 10, 9]);
        assert_eq!(discover(store, Want::Step(10)).unwrap().unwrap().0, 10);
    });
}

#[test]
fn an_interrupted_save_does_not_count() {
    on_each_store(|store| {
        let buffers = [("weights", values(10, 1))];
        write(store, 10, 2, &buffers);
        assert_eq!(latest(store), None);
        save(store, 10, 2);
        write(store, 20, 2, &buffers);
        assert_eq!(latest(store), Some((10, vec![])));
    });
}

#[test]
fn a_commit_may_be_repeated_by_its_author_only() {
    on_each_store(|store| {
        let ours = save(store, 10, 2);
        commit(store, &ours).unwrap();
        let theirs = write(store, 10, 2, &[("weights", values(4, 1))]);
        let error = commit(store, &theirs).unwrap_err();
        let CheckpointError::Fenced { step: 10, attempt, .. } = error else { panic!("{error}") };
        assert_eq!(attempt, ours.attempt.to_string());
        assert_eq!(store.read_manifest(10).unwrap(), ours);
    });
}

#[test]
fn one_of_many_writers_commits() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let writer = || {
            let store = local(&dir);
            commit(&store, &write(&store, 10, 1, &[("weights", values(4, 1))]))
        };
        let writers: Vec<_> = (0..6).map(|_| scope.spawn(writer)).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let fenced = |outcome: &&Result<_, _>| matches!(outcome, Err(CheckpointError::Fenced { .. }));
    assert_eq!(outcomes.iter().filter(fenced).count(), 5, "{outcomes:?}");
    assert_eq!(latest(&local(&dir)), Some((10, vec![])));
}

#[test]
fn a_commit_without_its_shards_is_refused() {
    on_each_store(|store| {
        let manifest = write(store, 10, 2, &[("weights", values(4, 1))]);
        remove(store, &manifest.shards[1].path);
        assert!(matches!(commit(store, &manifest), Err(CheckpointError::Damaged { .. })));
        assert_eq!(store.list().unwrap(), [0; 0]);
    });
}

#[test]
fn retention_keeps_exactly_what_it_must() {
    on_each_store(|store| {
        let saved: Vec<_> = (1..=6).map(|i| save(store, 10 * i, 2)).collect();
        let done = retain(store, 2, Some(30), Some(20)).unwrap();
        assert_eq!(done, RetentionReport { deleted: vec![40, 10], ..RetentionReport::default() });
        assert_eq!(store.list().unwrap(), [60, 50, 30, 20]);
        let kept: Vec<_> = saved.iter().filter(|m| ![10, 40].contains(&m.step)).map(folder).collect();
        assert_eq!(folders(store), kept);
        for step in store.list().unwrap() {
            assert_eq!(store.verify(step).unwrap().faults, [""; 0]);
        }
        assert_eq!(retain(store, 2, Some(30), Some(20)).unwrap(), RetentionReport::default());
        assert!(matches!(retain(store, 0, None, None), Err(CheckpointError::Invalid { .. })));
    });
}

#[test]
fn a_damaged_checkpoint_does_not_count_as_kept() {
    on_each_store(|store| {
        let saved: Vec<_> = (1..=5).map(|i| save(store, i, 2)).collect();
        remove(store, &saved[4].shards[0].path);
        put(store, &manifest_name(4), b"garbage".to_vec());
        let done = retain(store, 2, None, None).unwrap();
        assert_eq!((done.deleted, done.warnings.len()), (vec![1], 2));
        assert_eq!(store.list().unwrap(), [5, 4, 3, 2]);
        assert_eq!(latest(store), Some((3, vec![5, 4])));
    });
}

#[test]
fn only_old_orphans_are_swept() {
    on_each_store(|store| {
        let committed = save(store, 10, 1);
        let buffers = [("weights", values(4, 1))];
        let orphans = [write(store, 10, 1, &buffers), write(store, 20, 1, &buffers)];
        assert_eq!(retain(store, 1, None, None).unwrap(), RetentionReport::default());
        let mut done = RetentionReport::default();
        store.block_on(store.bucket.sweep(Duration::ZERO, None, &mut done)).unwrap();
        done.swept.sort();
        assert_eq!(done, RetentionReport { swept: orphans.iter().map(folder).collect(), ..RetentionReport::default() });
        assert_eq!(folders(store), [folder(&committed)]);
        assert_eq!(latest(store), Some((10, vec![])));
    });
}

#[test]
fn a_directory_is_swept_by_the_age_of_its_files_and_with_its_staging_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(&dir);
    save(&store, 10, 1);
    let orphan = write(&store, 20, 1, &[("weights", values(4, 1))]);
    let shard = dir.path().join(&orphan.shards[0].path);
    fs::write(format!("{}#1", shard.display()), "half").unwrap();
    let two_days_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 86400);
    fs::File::options().write(true).open(&shard).unwrap().set_modified(two_days_ago).unwrap();
    assert_eq!(retain(&store, 1, None, None).unwrap().swept, [folder(&orphan)]);
    assert!(!shard.parent().unwrap().exists());
}

#[test]
fn a_rewound_checkpoint_is_kept_for_a_day_whatever_its_age() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(&dir);
    save(&store, 10, 1);
    let left = save(&store, 20, 1);
    let shard = dir.path().join(&left.shards[0].path);
    let two_days_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 86400);
    fs::File::options().write(true).open(&shard).unwrap().set_modified(two_days_ago).unwrap();
    assert_eq!(store.rewind(Some(10)).unwrap(), [20]);
    assert_eq!(retain(&store, 1, None, None).unwrap(), RetentionReport::default());
    // A new checkpoint of the same step does not change that.
    let again = save(&store, 20, 1);
    assert_eq!(retain(&store, 2, None, None).unwrap(), RetentionReport::default());
    assert!(shard.exists());
    let [aside] = &fs::read_dir(dir.path().join("aside")).unwrap().collect::<Vec<_>>()[..] else { panic!("one") };
    let aside = aside.as_ref().unwrap().path();
    let then = ulid::Ulid::from_datetime(two_days_ago);
    fs::rename(&aside, aside.with_file_name(format!("{:012}-{then}.json", 20))).unwrap();
    assert_eq!(retain(&store, 2, None, None).unwrap().swept, [folder(&left)]);
    assert!(!shard.exists() && store.verify(again.step).unwrap().faults.is_empty());
}

#[test]
fn a_deletion_that_fails_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(&dir);
    let (old, _) = (save(&store, 10, 1), save(&store, 20, 1));
    let folder = dir.path().join(folder(&old));
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let done = retain(&store, 1, None, None).unwrap();
    assert_eq!((done.deleted, done.warnings.len()), (vec![10], 1));
    assert_eq!(latest(&store), Some((20, vec![])));
}

#[test]
fn dropping_a_checkpoint_deletes_everything_written_for_its_step() {
    on_each_store(|store| {
        let lease = store.acquire_lease("drop", Duration::from_secs(60)).unwrap();
        save(store, 10, 2);
        let doomed = save(store, 20, 2);
        // An attempt that was never committed.
        write(store, 20, 1, &[("weights", values(4, 1))]);
        put(store, &doomed.shards[0].path, b"garbage".to_vec());
        store.drop_checkpoint(20, &lease).unwrap();
        assert_eq!((store.list().unwrap(), folders(store).len()), (vec![10], 1));
        assert_eq!(store.verify(10).unwrap().faults, [""; 0]);
        let error = store.drop_checkpoint(20, &lease).unwrap_err();
        assert!(
            matches!(error, CheckpointError::NotFound { .. }) && error.to_string().contains("it has 10"),
            "{error}"
        );
        put(store, &manifest_name(10), b"garbage".to_vec());
        store.drop_checkpoint(10, &lease).unwrap();
        assert_eq!((store.list().unwrap(), folders(store).len()), (vec![], 0));
    });
}

#[test]
fn dropping_a_checkpoint_deletes_its_manifest_first() {
    let server = Server::new();
    let store = server.impatient();
    let lease = store.acquire_lease("drop", Duration::from_secs(60)).unwrap();
    save(&store, 10, 1);
    for (key, left) in [("manifest/", vec![10]), ("ckpt/", vec![])] {
        server.fail(json!([{ "op": "DeleteObject", "key": key, "fault": { "refuse": { "status": 403, "code": "AccessDenied" } } }]));
        assert!(matches!(store.drop_checkpoint(10, &lease), Err(CheckpointError::Store { .. })));
        server.fail(json!([]));
        assert_eq!(store.list().unwrap(), left, "{key}");
        assert!(left.iter().all(|step| store.verify(*step).unwrap().faults.is_empty()));
    }
}

#[test]
fn a_store_adopts_a_run_only_if_it_has_none() {
    on_each_store(|store| {
        let theirs = Run { schema: SCHEMA, id: nonce(), config: json!({ "seed": 1 }) };
        assert_eq!(store.adopt_run(&theirs).unwrap(), theirs);
        assert_eq!(store.create_run(&json!({ "seed": 2 })).unwrap(), theirs);
        let others = Run { id: nonce(), ..theirs.clone() };
        assert_eq!(store.adopt_run(&others).unwrap(), theirs);
    });
}

#[test]
fn rewound_steps_can_be_committed_again() {
    on_each_store(|store| {
        for step in [10, 20, 30] {
            save(store, step, 1);
        }
        put(store, &manifest_name(30), b"garbage".to_vec());
        assert_eq!(store.rewind(Some(10)).unwrap(), [30, 20]);
        assert_eq!(latest(store), Some((10, vec![])));
        let again = save(store, 20, 1);
        assert_eq!(store.read_manifest(20).unwrap(), again);
        assert_eq!(store.rewind(None).unwrap(), [20, 10]);
        assert_eq!(latest(store), None);
        let aside = store.block_on(store.bucket.objects.list_with_delimiter(Some(&Path::from("aside")))).unwrap();
        assert_eq!(aside.objects.len(), 4);
    });
}

#[test]
fn an_unreadable_store_is_an_error() {
    let is_store_error = |store: &Store| {
        matches!(store.list(), Err(CheckpointError::Store { .. }))
            && matches!(discover(store, Want::Latest), Err(CheckpointError::Store { .. }))
            && matches!(store.rewind(None), Err(CheckpointError::Store { .. }))
            && matches!(retain(store, 1, None, None), Err(CheckpointError::Store { .. }))
    };
    let dir = tempfile::tempdir().unwrap();
    let store = local(&dir);
    fs::write(dir.path().join("manifest"), "a file").unwrap();
    assert!(is_store_error(&store), "a file in place of the manifests");
    fs::remove_file(dir.path().join("manifest")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("manifest")).unwrap();
    assert!(is_store_error(&store), "a broken link");
    fs::write(dir.path().join("ckpt"), "a file").unwrap();
    let slice = OwnedSlice { name: "weights".into(), range: 0..1, data: vec![1.0] };
    let written = finish(store.start_upload(1, &Attempt::generate(), 0, 1, ready(vec![slice])));
    assert!(matches!(written, Err(CheckpointError::Store { .. })), "a file in place of the shards");
    dir.close().unwrap();
    assert!(is_store_error(&store), "a directory that has disappeared");
}

#[test]
fn addresses_are_parsed_and_invalid_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    for uri in [
        "s3://",
        "s3:///run",
        "gs://",
        "az://",
        "s3://bucket/a//b",
        "ftp://host/x",
        "memory://x",
        "file://host/x",
        "file:///a%20b",
        "",
    ] {
        assert!(matches!(Store::open(uri), Err(CheckpointError::Address { .. })), "{uri}");
    }
    let (new, file) = (format!("{root}/a/b"), format!("{root}/file"));
    let Err(error) = Store::open_existing(&new) else { panic!("opened a missing store") };
    assert!(matches!(error, CheckpointError::Absent { .. }), "{error}");
    assert_eq!(latest(&Store::open(&new).unwrap()), None);
    let store = Store::open_existing(&format!("file://{new}")).unwrap();
    assert_eq!(store.uri(), format!("file://{new}"));
    save(&store, 10, 1);
    assert_eq!(latest(&Store::open(&new).unwrap()), Some((10, vec![])));
    fs::write(&file, "").unwrap();
    for opened in [Store::open(&file), Store::open_existing(&file), Store::open(&format!("{file}/below"))] {
        assert!(matches!(opened, Err(CheckpointError::Store { .. })));
    }
}
