//! One conformance suite, run against every kind of store in this build.

mod azurite;
mod background;
mod certificates;
mod credentials;
mod damage;
mod environment;
mod faults;
mod history;
mod leases;
#[path = "../tests/memory_s3/mod.rs"]
mod memory_s3;
mod pace;
mod races;
#[path = "../tests/rig/mod.rs"]
mod rig;
mod round_trip;
mod servers;
mod transfer;

use std::ops::Range;
use std::time::Duration;

use object_store::{ObjectStoreExt, path::Path};
use rig::Op;
use serde_json::{Value, json};

use crate::*;

/// The part of `0..n` that rank `rank` of `world` saves.
fn share(n: usize, rank: usize, world: usize) -> Range<usize> {
    rank * n / world..(rank + 1) * n / world
}

/// A variable with the address of a folder in a third-party store, for which the environment has the credentials.
const NAMED_STORE: &str = "DDPM_TEST_STORE";

/// An empty store in the folder of [`NAMED_STORE`], if that is set.
fn named_store() -> Option<Store> {
    let folder = std::env::var(NAMED_STORE).ok()?;
    Some(Store::open(&format!("{folder}/{}", nonce())).unwrap())
}

/// Runs `check` on an empty store of each kind, or on the one that the environment names.
fn on_each_store(check: impl Fn(&Store)) {
    if let Some(store) = named_store() {
        return check(&store);
    }
    check(&Store::open("memory://").unwrap());
    let dir = tempfile::tempdir().unwrap();
    check(&local(&dir));
    check(&Server::new().store());
    check(&Server::with(rig::Addressing::VirtualHost).store());
    let memory = memory_s3::MemoryS3::start(0).unwrap();
    check(&Store::open_in(&memory.env(), "s3://bucket/some/run", StoreOptions::default(), |_| Ok(())).unwrap());
}

/// A private S3 server, and the rules by which it fails.
struct Server {
    rig: rig::Rig,
    _dir: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        Self::with(rig::Addressing::Path)
    }

    fn with(addressing: rig::Addressing) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { rig: rig::Rig::start(dir.path(), 0, addressing, vec![]).unwrap(), _dir: dir }
    }

    /// A client with the default timeouts.
    fn store(&self) -> Store {
        self.store_with(StoreOptions::default())
    }

    /// A client that gives up quickly.
    fn impatient(&self) -> Store {
        let retry_timeout = Duration::from_millis(300);
        self.store_with(StoreOptions { retry_timeout, ..StoreOptions::default() })
    }

    fn store_with(&self, options: StoreOptions) -> Store {
        Store::open_in(&self.rig.env(), "s3://bucket/some/run", options, |_| Ok(())).unwrap()
    }

    /// Makes the server fail by these rules, given as JSON, from now on. The previous ones must have fired.
    fn fail(&self, rules: Value) {
        let idle = self.rig.set_rules(serde_json::from_value(rules).unwrap());
        assert!(idle.is_empty(), "rules that never fired: {idle:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.fail(json!([]));
        }
    }
}

fn local(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path().to_str().unwrap()).unwrap()
}

/// `n` floats of every kind: normal, subnormal, infinite, and NaNs with payloads, quiet and signalling.
fn values(n: usize, salt: u32) -> Vec<f32> {
    let special = [0x7fc0_1234, 0x7f80_0001, 0xffff_ffff, 0x8000_0000, 0x0000_0001, 0xff80_0000];
    let bits = |i: u32| special.get(i as usize % 97).copied().unwrap_or((i ^ salt).wrapping_mul(0x9e37_79b1));
    (0..n as u32).map(|i| f32::from_bits(bits(i))).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Values that are there already.
fn ready(slices: Vec<OwnedSlice>) -> Values {
    Box::new(|| Ok(slices))
}

/// Writes the shards of a checkpoint, each rank on its own thread, and returns the manifest to commit.
fn write(store: &Store, step: u64, world: usize, buffers: &[(&str, Vec<f32>)]) -> Manifest {
    let attempt = Attempt::generate();
    let rank_writes = &|rank| {
        let slices: Vec<_> = buffers
            .iter()
            .map(|(name, data)| {
                let range = share(data.len(), rank, world);
                OwnedSlice { name: name.to_string(), data: data[range.clone()].to_vec(), range }
            })
            .collect();
        finish(store.start_upload(step, &attempt, rank, world, ready(slices))).unwrap()
    };
    let shards = std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..world).map(|rank| scope.spawn(move || rank_writes(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    let weights = buffers[0].1.len() as u64;
    Manifest {
        schema: SCHEMA,
        step,
        position: step * 128,
        epoch: 3,
        seed: u64::MAX,
        attempt,
        nonce: nonce(),
        lease: 0,
        program: "0.1.0".into(),
        config_hash: "c0ffee".into(),
        config: json!({ "train": { "lr": 2e-4 } }),
        state: json!({ "adam_steps": step, "loss_history": [0.1, 1e-300, -0.0] }),
        buffers: buffers
            .iter()
            .map(|(name, data)| BufferEntry { name: name.to_string(), len: data.len() as u64 })
            .collect(),
        shards,
        tensors: vec![TensorEntry {
            name: "conv_in.weight".into(),
            shape: vec![weights],
            offset: 0,
            dtype: Dtype::F32,
        }],
    }
}

/// Commits without a lease.
fn commit(store: &Store, manifest: &Manifest) -> Result<(), CheckpointError> {
    finish(store.start_commit(manifest.clone(), None))
}

/// Polls until there is a result.
fn finish<T: Send + 'static>(mut pending: Pending<T>) -> Result<T, CheckpointError> {
    loop {
        if let Some(result) = pending.poll() {
            assert!(pending.poll().is_none(), "the result was returned twice");
            return result;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Prunes without a lease.
fn retain(
    store: &Store,
    keep_last: usize,
    keep_every: Option<u64>,
    keep_step: Option<u64>,
) -> Result<RetentionReport, CheckpointError> {
    store.prune(&Retention { keep_last, keep_every, keep_step }, None)
}

/// A committed checkpoint of two small buffers.
fn save(store: &Store, step: u64, world: usize) -> Manifest {
    let buffers = [("weights", values(10, step as u32)), ("ema/0.9999", values(10, !step as u32))];
    let manifest = write(store, step, world, &buffers);
    commit(store, &manifest).unwrap();
    manifest
}

fn get(store: &Store, path: &str) -> Vec<u8> {
    let path = Path::from(path);
    store.block_on(async { store.bucket.objects.get(&path).await.unwrap().bytes().await.unwrap().to_vec() })
}

fn put(store: &Store, path: &str, bytes: Vec<u8>) {
    store.block_on(store.bucket.objects.put(&Path::from(path), bytes.into())).unwrap();
}

fn remove(store: &Store, path: &str) {
    store.block_on(store.bucket.objects.delete(&Path::from(path))).unwrap();
}

fn manifest_name(step: u64) -> String {
    layout::manifest_path(step).to_string()
}

/// The values of a shard, range by range.
fn read_shard(store: &Store, manifest: &Manifest, index: usize) -> Result<Vec<Vec<f32>>, CheckpointError> {
    let holds = manifest.shards.get(index).map_or(&[][..], |shard| shard.holds.as_slice());
    let mut values: Vec<_> = holds.iter().map(|hold| vec![f32::NAN; (hold.end - hold.start) as usize]).collect();
    store.read_shard(manifest, index, values.iter_mut().map(Vec::as_mut_slice).collect())?;
    Ok(values)
}

/// The step that a resume would use, and those that it would skip.
fn latest(store: &Store) -> Option<(u64, Vec<u64>)> {
    discover(store, Want::Latest).unwrap()
}

/// Searches as a resume does, reading every byte of the chosen checkpoint.
fn discover(store: &Store, want: Want) -> Result<Option<(u64, Vec<u64>)>, CheckpointError> {
    let mut search = store.search(want)?;
    while let Some(manifest) = search.candidate()? {
        match (0..manifest.shards.len()).try_for_each(|index| read_shard(store, &manifest, index).map(drop)) {
            Ok(()) => return Ok(Some((manifest.step, search.skipped.iter().map(|(step, _)| *step).collect()))),
            Err(error) => search.reject(manifest.step, error)?,
        }
    }
    Ok(None)
}
