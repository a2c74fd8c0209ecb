//! Damage of any kind is detected before the data is used, and the next older checkpoint is used instead.

use proptest::{prelude::*, sample::Index};
use serde_json::json;

use super::*;
use crate::{bucket::MANIFEST_LIMIT, manifest::seal};

fn is_damaged<T>(result: Result<T, CheckpointError>) -> bool {
    matches!(result, Err(CheckpointError::Damaged { .. }))
}

#[test]
fn every_flipped_bit_is_detected() {
    on_each_store(|store| {
        save(store, 10, 2);
        let newest = save(store, 20, 3);
        let mut paths: Vec<_> = newest.shards.iter().map(|shard| shard.path.clone()).collect();
        paths.push(manifest_name(20));
        let config = ProptestConfig::with_cases(if store.uri().contains("://bucket/") { 25 } else { 250 });
        proptest!(config, |(object in any::<Index>(), at in any::<Index>(), bit in 0u32..8)| {
            let object = object.index(paths.len());
            let sound = get(store, &paths[object]);
            let mut flipped = sound.clone();
            flipped[at.index(sound.len())] ^= 1u8 << bit;
            put(store, &paths[object], flipped);
            match object {
                3 => prop_assert!(is_damaged(store.read_manifest(20))),
                shard => {
                    prop_assert!(is_damaged(read_shard(store, &newest, shard)));
                    let faults = store.verify(20).unwrap().faults;
                    prop_assert!(faults.len() == 1 && faults[0].starts_with(&paths[object]), "{:?}", faults);
                }
            }
            prop_assert_eq!(latest(store), Some((10, vec![20])));
            put(store, &paths[object], sound);
            prop_assert_eq!(latest(store), Some((20, vec![])));
        });
    });
}

#[test]
fn damaged_shards_are_detected_and_an_older_checkpoint_is_used() {
    type Harm = fn(&Store, &str, &str);
    let harms: [(&str, Harm); 5] = [
        ("truncated", |store, a, _| put(store, a, get(store, a)[..100].to_vec())),
        ("grown", |store, a, _| put(store, a, [get(store, a), vec![0; 4]].concat())),
        ("empty", |store, a, _| put(store, a, vec![])),
        ("missing", |store, a, _| remove(store, a)),
        ("swapped", |store, a, b| {
            let (x, y) = (get(store, a), get(store, b));
            assert_eq!(x.len(), y.len());
            put(store, a, y);
            put(store, b, x);
        }),
    ];
    for (name, harm) in harms {
        on_each_store(|store| {
            save(store, 10, 1);
            let newest = save(store, 20, 2);
            harm(store, &newest.shards[0].path, &newest.shards[1].path);
            assert!(is_damaged(read_shard(store, &newest, 0)), "{name}");
            assert!(is_damaged(store.load_buffer(&newest, "weights")), "{name}");
            assert!(is_damaged(discover(store, Want::Step(20))), "{name}");
            assert_eq!(latest(store), Some((10, vec![20])), "{name}");
        });
    }
}

#[test]
fn no_valid_checkpoint_is_an_error_and_not_a_fresh_start() {
    on_each_store(|store| {
        for step in [10, 20] {
            let manifest = save(store, step, 1);
            remove(store, &manifest.shards[0].path);
        }
        let error = discover(store, Want::Latest).unwrap_err();
        assert!(error.to_string().contains("step 20: ") && error.to_string().contains("step 10: "), "{error}");
        assert!(matches!(error, CheckpointError::NoneVerifies { .. }));
    });
}

#[test]
fn an_inconsistent_manifest_is_neither_read_nor_committed() {
    type Lie = fn(&mut Manifest);
    let lies: [(&str, Lie); 16] = [
        ("gap", |m| m.shards[1].holds[0].start += 1),
        ("overlap", |m| m.shards[1].holds[0].start -= 1),
        ("short", |m| m.shards[1].holds[0].end -= 1),
        ("longer buffer", |m| m.buffers[1].len += 1),
        ("backwards", |m| m.shards[1].holds[0].end = 0),
        ("vast range", |m| m.shards[1].holds[0].end = u64::MAX),
        ("vast buffer", |m| {
            m.shards[1].holds[0].end = u64::MAX / 8;
            m.buffers[0].len = u64::MAX / 8;
        }),
        ("unknown buffer", |m| m.shards[0].holds[1].buffer = "exp_avg".into()),
        ("range twice", |m| {
            let hold = ShardRange { buffer: "weights".into(), start: 10, end: 10 };
            m.shards[1].holds.push(hold);
        }),
        ("buffer twice", |m| m.buffers[1].name = "weights".into()),
        ("no shards", |m| m.shards.clear()),
        ("foreign path", |m| m.shards[0].path = "../secret".into()),
        ("no hash", |m| m.shards[0].sha256 = "0".into()),
        ("tensor outside", |m| m.tensors[0].offset = 1),
        ("vast tensor", |m| m.tensors[0].shape = vec![u64::MAX, 3]),
        ("tensors overlap", |m| m.tensors.push(TensorEntry { name: "bias".into(), ..m.tensors[0].clone() })),
    ];
    on_each_store(|store| {
        save(store, 10, 2);
        for (name, lie) in lies {
            let mut manifest = write(store, 20, 2, &[("weights", values(10, 1)), ("exp_avg_sq", values(10, 2))]);
            lie(&mut manifest);
            assert!(matches!(commit(store, &manifest), Err(CheckpointError::Invalid { .. })), "{name}");
            assert_eq!(store.list().unwrap(), [10], "{name}");
            put(store, &manifest_name(20), seal(&manifest));
            assert!(is_damaged(store.read_manifest(20)), "{name}");
            assert_eq!(latest(store), Some((10, vec![20])), "{name}");
            remove(store, &manifest_name(20));
        }
    });
}

#[test]
fn a_manifest_stored_under_the_wrong_step_is_damaged() {
    on_each_store(|store| {
        save(store, 10, 1);
        put(store, &manifest_name(20), get(store, &manifest_name(10)));
        assert_eq!(latest(store), Some((10, vec![20])));
    });
}

#[test]
fn a_newer_schema_is_refused_rather_than_skipped() {
    on_each_store(|store| {
        save(store, 10, 1);
        put(store, &manifest_name(20), seal(&json!({ "schema": SCHEMA + 1, "shards": "elsewhere" })));
        let error = discover(store, Want::Latest).unwrap_err();
        assert!(matches!(error, CheckpointError::Incompatible { schema, .. } if schema == SCHEMA + 1), "{error}");
    });
}

#[test]
fn a_garbage_manifest_is_refused() {
    let huge = vec![b' '; MANIFEST_LIMIT as usize + 1];
    let garbage = [vec![], b"{}".to_vec(), vec![b'['; 1 << 20], seal(&json!({ "schema": 1 })), huge];
    let store = Store::open("memory://").unwrap();
    save(&store, 10, 1);
    for bytes in garbage {
        put(&store, &manifest_name(20), bytes);
        assert_eq!(latest(&store), Some((10, vec![20])));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_not_a_manifest(bytes: Vec<u8>) {
        prop_assert!(crate::manifest::unseal::<Manifest>(&bytes).is_err());
    }

    /// Even with a matching hash, a file that is not the shard described is refused.
    #[test]
    fn arbitrary_bytes_are_not_a_shard(header in 0u64..200, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let store = Store::open("memory://").unwrap();
        let mut manifest = save(&store, 10, 1);
        let entry = &mut manifest.shards[0];
        let bytes = [header.to_le_bytes().as_slice(), &body].concat();
        entry.size = bytes.len() as u64;
        entry.sha256 = crate::manifest::hex(&<sha2::Sha256 as sha2::Digest>::digest(&bytes));
        put(&store, &entry.path, bytes);
        prop_assert!(is_damaged(read_shard(&store, &manifest, 0)));
    }
}

/// A file with other names or another order than the manifest's is refused, although its hash matches: its values would
/// have been read into the wrong places.
#[test]
fn a_shard_of_other_ranges_is_refused() {
    let headers = [("ema/0.9999", 10, "weights", 10), ("weights", 10, "exp_avg", 10), ("weights", 9, "ema/0.9999", 11)];
    for (first, n, second, m) in headers {
        let store = Store::open("memory://").unwrap();
        let mut manifest = save(&store, 10, 1);
        let header = crate::shard::header(&[(first, n), (second, m)]).unwrap();
        let bytes = [header, vec![1; 80]].concat();
        let entry = &mut manifest.shards[0];
        entry.size = bytes.len() as u64;
        entry.sha256 = crate::manifest::hex(&<sha2::Sha256 as sha2::Digest>::digest(&bytes));
        put(&store, &entry.path, bytes);
        assert!(is_damaged(read_shard(&store, &manifest, 0)), "{first}, {second}");
    }
}
