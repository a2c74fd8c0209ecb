//! Reading from a real server that fails by rule: the right bytes or the right error, and how many requests that takes.

use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ddpm_store::{Limits, Location, resolve};
use serde_json::{Value, json};
use tempfile::TempDir;
use walkdir::WalkDir;

use super::bucket::{Bucket, CONCURRENCY};
use super::disk::Disk;
use super::object::Object;
use super::plan::BLOCK;
use crate::DataError;
use crate::hash::mix;
use crate::interrupt::heeding;
use crate::ranges::Ranges;

#[path = "../../../ddpm-checkpoint/tests/rig/mod.rs"]
mod rig;

use rig::{Op, Rig};

/// A server with one object, `set/a.bin`.
struct Server {
    rig: Rig,
    root: TempDir,
    content: Vec<u8>,
}

impl Server {
    fn start(length: usize) -> Self {
        let root = TempDir::new().unwrap();
        let rig = Rig::start(root.path(), 0, rig::Addressing::Path, vec![]).unwrap();
        let content: Vec<u8> = (0..length as u64).map(|i| mix(i) as u8).collect();
        let server = Server { rig, root, content };
        server.store(&server.content);
        server
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("bucket/set/a.bin")
    }

    fn store(&self, content: &[u8]) {
        fs::create_dir_all(self.file().parent().unwrap()).unwrap();
        fs::write(self.file(), content).unwrap();
    }

    fn rules(&self, rules: Value) {
        let idle = self.rig.set_rules(serde_json::from_value(rules).unwrap());
        assert!(idle.is_empty(), "{idle:?}");
    }

    /// The bucket as a process sees it, with this many bytes in memory, and on the disk in a folder.
    fn bucket(&self, memory: usize, disk: Option<(&Path, u64)>) -> Arc<Bucket> {
        self.bucket_with(memory, CONCURRENCY, disk)
    }

    /// One that has so many announced requests on their way at once.
    fn bucket_with(&self, memory: usize, concurrency: usize, disk: Option<(&Path, u64)>) -> Arc<Bucket> {
        self.bucket_retrying(60, memory, concurrency, disk)
    }

    /// One whose requests are repeated for so many seconds.
    fn bucket_retrying(
        &self,
        seconds: u64,
        memory: usize,
        concurrency: usize,
        disk: Option<(&Path, u64)>,
    ) -> Arc<Bucket> {
        let retry_timeout = Duration::from_secs(seconds);
        let limits = Limits { request_timeout: Duration::from_secs(30), retry_timeout };
        let Ok(Location::Objects(store)) = resolve("s3://bucket/", limits, &self.rig.env()) else { panic!("no store") };
        let disk = disk.map(|(folder, limit)| Disk::open(folder.to_path_buf(), limit).unwrap());
        Arc::new(Bucket::over(store, "s3://bucket/".into(), memory, concurrency, disk).unwrap())
    }

    fn object(&self, bucket: &Arc<Bucket>) -> Object {
        self.try_object(bucket).unwrap()
    }

    fn try_object(&self, bucket: &Arc<Bucket>) -> Result<Object, DataError> {
        Object::open(bucket, Path::new("s3://bucket/set/a.bin"))
    }

    fn gets(&self) -> usize {
        self.rig.seen(Op::GetObject, "set/a.bin")
    }
}

fn read(object: &Object, start: u64, length: usize) -> Result<Vec<u8>, DataError> {
    let mut out = vec![0; length];
    object.read_exact_at(&mut out, start).map_err(DataError::io(Path::new("?")))?;
    Ok(out)
}

/// Reads `count` pieces anywhere in the object, each right.
fn check_reads(server: &Server, object: &Object, seed: u64, count: u64) {
    for i in 0..count {
        let [a, b] = [mix(seed + 2 * i), mix(seed + 2 * i + 1)];
        let start = a % server.content.len() as u64;
        let length = (b % 400_000).min(server.content.len() as u64 - start);
        let found = read(object, start, length as usize).unwrap();
        assert!(found == server.content[start as usize..(start + length) as usize], "{length} bytes at {start}");
    }
}

#[test]
fn threads_read_the_right_bytes_from_a_server_that_fails_with_caches_that_are_too_small() {
    let server = Server::start(5_000_001);
    let dir = TempDir::new().unwrap();
    server.rules(json!([
        { "op": "GetObject", "percent": 10, "fault": { "refuse": { "status": 503, "code": "SlowDown" } } },
        { "op": "GetObject", "percent": 5, "fault": { "cut_answer": { "at": 70_000 } } },
        { "op": "GetObject", "percent": 3, "fault": { "delay": { "ms": 300 } } },
    ]));
    let disk = Some((dir.path(), 1_500_000));
    for (memory, disk) in [(64 << 20, None), (600_000, disk), (600_000, disk), (0, None)] {
        let bucket = server.bucket(memory, disk);
        let object = server.object(&bucket);
        thread::scope(|scope| {
            for seed in 0..3 {
                let (server, object) = (&server, &object);
                scope.spawn(move || check_reads(server, object, 1000 * seed, 40));
                scope.spawn(move || {
                    for part in 0..20 {
                        object.announce([part * 250_000..part * 250_000 + 10, 4_990_000..9_000_000]);
                    }
                });
            }
        });
        let traffic = bucket.traffic();
        assert!(traffic.requests > 0 && traffic.bytes > 0);
    }
}

#[test]
fn what_was_announced_or_read_is_not_requested_again() {
    let server = Server::start(9 * BLOCK as usize + 17);
    let dir = TempDir::new().unwrap();
    let bucket = server.bucket(64 << 20, Some((dir.path(), 64 << 20)));
    let object = server.object(&bucket);
    let (started, middle) = (Instant::now(), 3 * BLOCK + 5);
    assert_eq!(object.announce([middle..middle + 10, 4 * BLOCK..5 * BLOCK, 8 * BLOCK..8 * BLOCK + 1]), 3 * BLOCK);
    assert_eq!(object.announce(iter::once(middle..middle + 10)), 0, "it is on its way");
    assert_eq!(read(&object, middle, 10).unwrap(), server.content[middle as usize..][..10]);
    assert_eq!(read(&object, 8 * BLOCK, 3).unwrap(), server.content[8 * BLOCK as usize..][..3]);
    assert_eq!(bucket.traffic().requests, 2, "neighbours come together");
    assert_eq!(read(&object, 9 * BLOCK, 17).unwrap(), server.content[9 * BLOCK as usize..]);
    assert_eq!((bucket.traffic().requests, bucket.traffic().bytes), (3, 3 * BLOCK + 17));
    // Blocks are at hand before they are on the disk.
    let blocks = || WalkDir::new(dir.path()).min_depth(2).into_iter().filter_map(Result::ok).count();
    while blocks() < 4 {
        assert!(started.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(10));
    }
    drop((object, bucket));
    // Another process, later.
    let bucket = server.bucket(0, Some((dir.path(), 64 << 20)));
    let object = server.object(&bucket);
    assert_eq!(object.announce(iter::once(middle..middle + 10)), 0, "it is on the disk");
    assert_eq!(read(&object, middle, 10).unwrap(), server.content[middle as usize..][..10]);
    assert_eq!(bucket.traffic().requests, 0);
    assert_eq!(server.gets(), 3);
}

#[test]
fn a_block_is_fetched_once_whoever_asks_for_it_and_however_many() {
    let server = Server::start(41 * BLOCK as usize + 5);
    server.rules(json!([{ "op": "GetObject", "percent": 50, "fault": { "delay": { "ms": 20 } } }]));
    let dir = TempDir::new().unwrap();
    // Without memory, a block is on its way until it is on the disk.
    for (memory, disk) in [(64 << 20, None), (0, Some((dir.path(), 64 << 20)))] {
        let bucket = server.bucket(memory, disk);
        let object = server.object(&bucket);
        thread::scope(|scope| {
            for seed in 0..4 {
                let (server, object) = (&server, &object);
                scope.spawn(move || check_reads(server, object, 1000 * (seed % 2), 60));
                scope.spawn(move || {
                    for part in (0..42).map(|part| (part * (2 * seed + 1)) % 42) {
                        object.announce(iter::once(part * BLOCK..part * BLOCK + 1));
                    }
                });
            }
        });
        assert!(read(&object, 0, server.content.len()).unwrap() == server.content);
        assert_eq!(bucket.traffic().bytes, server.content.len() as u64);
    }
}

#[test]
fn neighbours_that_wait_are_fetched_together_whichever_step_they_are_for() {
    let server = Server::start(50 * BLOCK as usize);
    let bucket = server.bucket_with(64 << 20, 0, None);
    let object = server.object(&bucket);
    let block = |number: u64| number * BLOCK..number * BLOCK + 1;
    // Four steps.
    for (wanted, new) in [([3, 20], 2), ([5, 20], 1), ([4, 40], 2), ([2, 41], 2)] {
        assert_eq!(object.announce(wanted.map(block)), new * BLOCK);
    }
    assert_eq!(bucket.traffic().requests, 0, "they wait for their turn");
    // A reader does not, and takes the neighbours along.
    for (number, requests) in [(4, 1), (2, 1), (3, 1), (5, 1), (40, 2), (41, 2), (20, 3)] {
        let found = read(&object, number * BLOCK, 100).unwrap();
        assert_eq!(found, server.content[(number * BLOCK) as usize..][..100]);
        assert_eq!(bucket.traffic().requests, requests, "block {number}");
    }
    assert_eq!(bucket.traffic().bytes, 7 * BLOCK);
}

#[test]
fn what_was_announced_stays_in_memory_until_it_is_read() {
    let server = Server::start(60 * BLOCK as usize);
    // Room for ten blocks: of what is announced, about half may be there before it is read.
    let bucket = server.bucket(10 * BLOCK as usize, None);
    let object = server.object(&bucket);
    // Every other block, so that each takes a request.
    let announced = (0..30).map(|number| 2 * number * BLOCK..2 * number * BLOCK + 1);
    assert_eq!(object.announce(announced.clone()), 30 * BLOCK);
    for part in announced {
        assert_eq!(read(&object, part.start, 10).unwrap(), server.content[part.start as usize..][..10]);
    }
    assert_eq!(bucket.traffic().bytes, 30 * BLOCK);
}

#[test]
fn a_part_without_bytes_is_not_fetched() {
    let server = Server::start(3 * BLOCK as usize);
    let bucket = server.bucket(64 << 20, None);
    let object = server.object(&bucket);
    assert_eq!(object.announce([10..10, BLOCK + 7..BLOCK + 7]), 0);
    assert!(read(&object, 5, 0).unwrap().is_empty());
    assert_eq!((bucket.traffic().requests, server.gets()), (0, 0));
}

#[test]
fn a_long_read_takes_several_rounds() {
    let server = Server::start(150 * BLOCK as usize + 9);
    let bucket = server.bucket(64 << 20, None);
    let object = server.object(&bucket);
    object.announce(iter::once(70 * BLOCK..75 * BLOCK));
    let found = read(&object, 7, server.content.len() - 7).unwrap();
    assert!(found == server.content[7..]);
    assert_eq!(bucket.traffic().bytes, server.content.len() as u64);
}

#[test]
fn a_thread_that_is_to_stop_does_not_wait_for_a_store_that_is_down() {
    let server = Server::start(1000);
    let bucket = server.bucket(0, None);
    let object = server.object(&bucket);
    server.rules(json!([{ "op": "GetObject", "fault": { "refuse": { "status": 503, "code": "SlowDown" } } }]));
    let (started, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let error = thread::scope(|scope| {
        let (object, ours) = (&object, Arc::clone(&stop));
        let reader = scope.spawn(move || heeding(ours, || read(object, 10, 20)));
        while server.gets() == 0 {
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, DataError::Stopped), "{error}");
    // So are listings, and questions whether there is an object.
    let listed = heeding(Arc::clone(&stop), || bucket.list(Path::new("s3://bucket/set")));
    assert!(matches!(listed, Err(DataError::Stopped)));
    assert!(matches!(heeding(stop, || server.try_object(&bucket)), Err(DataError::Stopped)));
    drop((object, bucket));
    // It would be the time for which requests are repeated.
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_file_that_is_read_in_sequence_takes_few_requests() {
    let server = Server::start(40 * BLOCK as usize);
    let bucket = server.bucket(64 << 20, None);
    let object = server.object(&bucket);
    let mut found = Vec::new();
    for start in (0..40 * BLOCK).step_by(10_000) {
        found.extend(read(&object, start, 10_000.min((40 * BLOCK - start) as usize)).unwrap());
    }
    assert!(found == server.content);
    assert_eq!(bucket.traffic().bytes, 40 * BLOCK);
    // Of 1, 2, 4, 8, 16, and the 9 blocks that remain; on a busy machine some are slow, and sent twice.
    assert!((6..=12).contains(&bucket.traffic().requests), "{}", bucket.traffic().requests);
}

#[test]
fn a_request_that_stalls_is_sent_again() {
    let server = Server::start(1000);
    let bucket = server.bucket(0, None);
    let object = server.object(&bucket);
    server.rules(json!([{ "op": "GetObject", "times": 1, "fault": { "delay": { "ms": 3_600_000 } } }]));
    let started = Instant::now();
    assert_eq!(read(&object, 10, 20).unwrap(), server.content[10..30]);
    assert_eq!((server.gets(), bucket.traffic().requests), (2, 2));
    // Longer would be the time limit of the request.
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn an_object_that_changes_or_vanishes_is_an_error() {
    let server = Server::start(3 * BLOCK as usize);
    let dir = TempDir::new().unwrap();
    let bucket = server.bucket(0, Some((dir.path(), 64 << 20)));
    let object = server.object(&bucket);
    read(&object, 0, 10).unwrap();
    let mut other = server.content.clone();
    other[2 * BLOCK as usize] ^= 1;
    let shorter = &server.content[..BLOCK as usize];
    let refusal = |start: u64| read(&object, start, 10).unwrap_err();
    for content in [&other[..], shorter] {
        server.store(content);
        let error = refusal(2 * BLOCK);
        assert!(matches!(&error, DataError::Changed { path } if path.ends_with("set/a.bin")), "{error}");
        let text =
            "s3://bucket/set/a.bin: this file has changed since the data set was opened. Restore it, or start again.";
        assert_eq!(error.to_string(), text);
    }
    fs::remove_file(server.file()).unwrap();
    let error = refusal(2 * BLOCK);
    assert!(matches!(error, DataError::Vanished { .. }), "{error}");
    // Its other state has a name of its own in the cache.
    server.store(&other);
    let changed = server.object(&bucket);
    assert_eq!(read(&changed, 2 * BLOCK, 10).unwrap(), other[2 * BLOCK as usize..][..10]);
    assert_eq!(read(&changed, 0, 10).unwrap(), other[..10]);
    assert_eq!(read(&object, 0, 10).unwrap(), server.content[..10], "kept from before");
}

#[test]
fn an_object_that_is_replaced_in_the_middle_of_a_response_is_called_changed() {
    let server = Server::start(1000);
    let bucket = server.bucket_retrying(5, 0, CONCURRENCY, None);
    let object = server.object(&bucket);
    // The client continues each response where it broke off.
    server.rules(json!([{ "op": "GetObject", "fault": { "cut_answer": { "at": 10 } } }]));
    let error = thread::scope(|scope| {
        let reader = scope.spawn(|| read(&object, 10, 20));
        while server.gets() < 2 {
            thread::sleep(Duration::from_millis(10));
        }
        server.store(&server.content[..900]);
        reader.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, DataError::Changed { .. }), "{error}");
}

#[test]
fn a_refusal_is_reported_although_the_store_does_not_say_whether_the_object_has_changed() {
    let server = Server::start(1000);
    let bucket = server.bucket(0, None);
    let object = server.object(&bucket);
    server.rules(json!([
        { "op": "GetObject", "fault": { "refuse": { "status": 403, "code": "AccessDenied" } } },
        { "op": "HeadObject", "fault": { "delay": { "ms": 3_600_000 } } },
    ]));
    let started = Instant::now();
    let error = read(&object, 10, 20).unwrap_err().to_string();
    assert!(error.contains("AccessDenied"), "{error}");
    // Longer would be the time limit of the request.
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_server_that_always_refuses_is_an_error_that_says_so() {
    let server = Server::start(1000);
    let bucket = server.bucket(0, None);
    let object = server.object(&bucket);
    server.rules(json!([{ "op": "GetObject", "fault": { "refuse": { "status": 403, "code": "AccessDenied" } } }]));
    let error = read(&object, 0, 10).unwrap_err().to_string();
    for part in ["s3://bucket/set/a.bin: cannot be read: ", "AccessDenied", "Use credentials that may"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains(".."), "{error}");
}
