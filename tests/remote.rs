//! Training from an object store: the same results as from local files, whatever the store and the cache do.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::rig::Rig;
use crate::common::{
    buffers, check_same_bits, losses, metrics, newest_manifest, program, root, run, sets, signal, succeed, train, wait,
    wait_for,
};

/// Every tenth request is refused, some are slow, some responses end in the middle.
const FAULTS: &str = r#"[
    {"op": "GetObject", "key": "set/", "percent": 10, "fault": {"refuse": {"status": 503, "code": "SlowDown"}}},
    {"op": "GetObject", "key": "set/", "percent": 10, "fault": {"cut_answer": {"at": 100000}}},
    {"op": "GetObject", "key": "set/", "percent": 10, "fault": {"delay": {"ms": 400}}}
]"#;

/// Packs drawn digits into files of 100 images each, as PNGs of 16 x 16, in a folder of the server's bucket too.
fn pack(rig: &Rig, dir: &Path, format: &str) {
    let packed = dir.join(format);
    let mut command = program();
    command.args(["data", "pack", "--config", "smoke", "--per-shard", "100", "--format", format, "--out"]);
    succeed(command.arg(&packed).args(sets(&["data.count=1500"])));
    let set = rig.bucket().join("set").join(format);
    fs::create_dir_all(&set).unwrap();
    for file in fs::read_dir(&packed).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), set.join(file.file_name())).unwrap();
    }
}

/// `train` on files of `kind` at `path`, for 30 steps of 32 images.
fn training(ranks: usize, at: &Path, steps: u64, kind: &str, path: &str, more: &[String]) -> Command {
    let mut command = train(ranks, at, steps, &[]);
    let (kind, path) = (format!("data.kind={kind}"), format!("data.path={path}"));
    let options = ["train.global_batch=32", "monitor.sample_every=0", "data.workers=2", "checkpoint.every=100"];
    command.args(sets(&options)).args(sets(&[kind, path])).args(sets(more));
    command
}

#[test]
fn training_from_a_failing_store_gives_the_bits_of_training_from_local_files() {
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    rig.set_rules(FAULTS);
    for (format, shuffle, ranks, cache_gb) in
        [("parquet", "shards", 2, "0.0012"), ("webdataset", "global", 2, "0.0006"), ("webdataset", "shards", 1, "0")]
    {
        if !dir.path().join(format).exists() {
            pack(&rig, dir.path(), format);
        }
        let name = format!("{format}-{shuffle}");
        let [local, remote, cache] = ["local", "remote", "cache"].map(|part| dir.path().join(format!("{name}-{part}")));
        let options = |cache: &str| {
            let cache = format!("data.cache_dir={}", dir.path().join(cache).display());
            let shuffle = format!("data.shuffle={shuffle}");
            vec![cache, shuffle, "data.shuffle_window=4".into(), format!("data.cache_gb={cache_gb}")]
        };
        let files = dir.path().join(format);
        succeed(&mut training(ranks, &local, 60, format, files.to_str().unwrap(), &options("index")));
        let address = format!("s3://bucket/set/{format}");
        let start = |ranks, steps| {
            let mut command = training(ranks, &remote, steps, format, &address, &options(&format!("{name}-cache")));
            rig.serve(&mut command);
            command
        };
        succeed(&mut start(ranks, 27));
        // In the middle of an epoch and of a window.
        succeed(&mut start(ranks, 60));
        assert_eq!(losses(&remote), losses(&local), "{name}");
        check_same_bits(&name, &buffers(&remote, 60), &buffers(&local, 60));
        // The second run may find all in the cache.
        let first = &metrics(&remote)[&27];
        let (requests, mb) = (first["data_requests"].as_u64(), first["data_mb"].as_f64());
        assert!(requests.is_some_and(|n| n > 0) && mb.is_some_and(|mb| mb > 0.0), "{first}");
        assert!(metrics(&local)[&60].get("data_requests").is_none());
        let blocks = walk(&cache.join("blocks"));
        let limit = (cache_gb.parse::<f64>().unwrap() * 1e9) as u64;
        assert!(blocks <= limit && (limit == 0 || blocks > 0), "{blocks} bytes of {limit}");
    }
}

/// The bytes of the blocks in a cache.
fn walk(folder: &Path) -> u64 {
    let Ok(objects) = fs::read_dir(folder) else { return 0 };
    let objects = objects.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = objects.flat_map(|object| fs::read_dir(object).unwrap());
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn the_shuffle_may_only_change_if_that_is_allowed() {
    let (rig, dir) = (Rig::start(), TempDir::new().unwrap());
    pack(&rig, dir.path(), "webdataset");
    let at = dir.path().join("run");
    let cache = format!("data.cache_dir={}", dir.path().join("cache").display());
    let start = |steps, shuffle: &str| {
        let more = [cache.clone(), format!("data.shuffle={shuffle}")];
        let mut command = training(1, &at, steps, "webdataset", "s3://bucket/set/webdataset/*.tar", &more);
        rig.serve(&mut command);
        command
    };
    succeed(&mut start(5, "global"));
    let refused = run(&mut start(10, "shards"));
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("data.shuffle"), "{}", refused.stderr);
    let allowed = succeed(start(10, "shards").args(["--allow-change", "data.shuffle"]));
    assert!(allowed.stderr.contains("data.shuffle has changed since step 5"), "{}", allowed.stderr);
    // 1500 images, of which 160 were used before: an epoch of its own begins there.
    let line = &metrics(&at)[&10];
    let epoch = line["epoch"].as_f64().unwrap();
    assert!((epoch - (1.0 + 160.0 / 1500.0)).abs() < 1e-9, "{line}");
    // The set changes under its address, which is more than another order.
    let shard = rig.bucket().join("set/webdataset/train-00003-of-00015.tar");
    fs::copy(rig.bucket().join("set/webdataset/train-00004-of-00015.tar"), shard).unwrap();
    let refused = run(start(12, "global").args(["--allow-change", "data.shuffle"]));
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("have changed since step 10"), "{}", refused.stderr);
}

#[test]
fn data_sets_are_found_in_a_store_as_on_a_disk() {
    let (rig, dir) = (Rig::start(), TempDir::new().unwrap());
    let golden = root().join("tests/golden/data");
    for (from, to) in [
        ("samples-000.tar", "set/train/a-000.tar"),
        ("samples-001.tar", "set/train/a-001.tar"),
        ("samples-001.tar", "set/test/a-000.tar"),
        ("samples-001.tar", "set/train/.hidden/a-003.tar"),
        ("named.tar.gz", "set/packed/named.tar.gz"),
        ("edm.zip", "zips/edm.zip"),
        ("plain.parquet", "tables/plain.parquet"),
    ] {
        let to = rig.bucket().join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(golden.join(from), to).unwrap();
    }
    let info = |kind: &str, path: &str, more: &[&str]| {
        let mut command = program();
        let cache = dir.path().join("cache");
        let [kind, path] = [format!("data.kind={kind}"), format!("data.path={path}")];
        command.args(["data", "info", "--check", "--config", "smoke"]).args(more);
        command.args(sets(&[kind, path, format!("data.cache_dir={}", cache.display()), "data.channels=3".into()]));
        run(rig.serve(&mut command))
    };
    for (kind, path, more, phrase) in [
        ("webdataset", "s3://bucket/set", &[][..], "12 images of the train split in 2 tar files at s3://bucket/set,"),
        ("webdataset", "s3://bucket/set/", &["--split", "test"], "4 images of the test split in 1 tar file"),
        ("webdataset", "s3://bucket/set/*/a-{000..001}.tar", &[], "12 images of the train split in 2 tar files"),
        ("webdataset", "s3://bucket/set/test/a-000.tar", &[], "4 images in 1 tar file"),
        ("webdataset", "s3://bucket/set/packed/named.tar.gz", &[], "12 images in 1 tar file"),
        ("zip", "s3://bucket/zips", &[], "12 images in 1 ZIP file"),
        ("parquet", "s3://bucket/tables/plain.parquet", &[], "12 images in 1 Parquet file"),
    ] {
        // Scanned, and then from the index.
        for _ in 0..2 {
            let outcome = info(kind, path, more);
            assert_eq!(outcome.code, 0, "{path}: {}", outcome.stderr);
            assert!(outcome.stdout.starts_with(phrase), "{path}: {}", outcome.stdout);
        }
    }
    for (kind, path, code, parts) in [
        ("webdataset", "s3://bucket/none", 4, &["s3://bucket/none: there is no tar file", "below this folder"][..]),
        ("webdataset", "s3://bucket/none.tar", 4, &["s3://bucket/none.tar: there is no such file"]),
        ("webdataset", "s3://bucket/set/*/a-{000..007}.tar", 4, &["a-002.tar: no file matches this pattern"]),
        ("webdataset", "s3://bucket/set/*.tar", 4, &["no file matches this pattern"]),
        ("parquet", "s3://elsewhere/x.parquet", 4, &["s3://elsewhere/x.parquet: ", "."]),
        ("parquet", "s3a://bucket/tables", 2, &["Write s3://bucket/tables"]),
        ("parquet", "file:///tables", 2, &["Write /tables"]),
        ("folder", "s3://bucket/set", 2, &["is the address of a store where a local path is needed"]),
    ] {
        let outcome = info(kind, path, &[]);
        assert_eq!(outcome.code, code, "{path}: {}", outcome.stderr);
        for part in parts {
            assert!(outcome.stderr.contains(part), "{path}: '{part}' is not in: {}", outcome.stderr);
        }
    }
    let mut command = program();
    command.args(["data", "info", "--config", "smoke"]).args(sets(&["data.shuffle=shards"]));
    let outcome = run(&mut command);
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("data.shuffle = \"shards\" mixes files of many images"), "{}", outcome.stderr);
}

#[test]
fn a_request_to_stop_is_honoured_while_the_store_is_down() {
    let (mut rig, dir) = (Rig::start(), TempDir::new().unwrap());
    pack(&rig, dir.path(), "parquet");
    let [at, messages] = ["run", "messages"].map(|name| dir.path().join(name));
    let start = |steps, cache: &str| {
        let cache = format!("data.cache_dir={}", dir.path().join(cache).display());
        let more = [cache, "data.cache_gb=0".into()];
        let mut command = training(1, &at, steps, "parquet", "s3://bucket/set/parquet", &more);
        rig.serve(&mut command);
        command
    };
    succeed(&mut start(5, "cache"));
    let mut commands = ["cache", "empty"].map(|cache| start(1_000_000, cache));
    rig.set_rules(r#"[{"op": "GetObject", "key": "set/", "fault": {"refuse": {"status": 503, "code": "SlowDown"}}}]"#);
    // With an index, images are waited for: to be shown, and to be trained on. Without, its scan waits.
    for command in &mut commands {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&messages).unwrap());
        let child = command.spawn().unwrap();
        let text = || fs::read_to_string(&messages).unwrap();
        wait_for(|| text().contains("retrying for up to"));
        let asked = Instant::now();
        assert!(signal("TERM", child.id()));
        assert_eq!(wait(child), 75, "{}", text());
        // Requests are repeated for two minutes.
        assert!(asked.elapsed() < Duration::from_secs(60), "{}", text());
        for part in ["cannot be read", "cannot be drawn", "error: "] {
            assert!(!text().contains(part), "'{part}' is in: {}", text());
        }
        assert_eq!(newest_manifest(&at.join("checkpoints")), 5);
    }
}
