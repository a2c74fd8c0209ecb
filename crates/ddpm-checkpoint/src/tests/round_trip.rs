//! Data is restored bit for bit, whichever number of ranks wrote it and whichever reads it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::manifest::{seal, unseal};

fn check_round_trip(store: &Store, step: u64, world: usize, n: usize) {
    let buffers = [("weights", values(n, 1)), ("exp_avg", values(n, 2)), ("ema/0.9999", values(n, 3))];
    let written = write(store, step, world, &buffers);
    commit(store, &written).unwrap();
    let read = store.read_manifest(step).unwrap();
    assert_eq!(read, written);
    assert_eq!(store.verify(step).unwrap().faults, [""; 0]);
    for (index, shard) in read.shards.iter().enumerate() {
        assert_eq!(shard.size, get(store, &shard.path).len() as u64);
        let range = share(n, index, world);
        let hold = |(name, _): &(&str, _)| ShardRange {
            buffer: name.to_string(),
            start: range.start as u64,
            end: range.end as u64,
        };
        assert_eq!(shard.holds, buffers.iter().map(hold).collect::<Vec<_>>());
        let held = read_shard(store, &read, index).unwrap();
        for (held, (name, data)) in held.iter().zip(&buffers) {
            assert_eq!(bits(held), bits(&data[range.clone()]), "{name}, shard {index}");
        }
    }
    for (name, data) in &buffers {
        assert_eq!(bits(&store.load_buffer(&read, name).unwrap()), bits(data), "{name} of {n} by {world}");
    }
}

#[test]
fn every_bit_is_restored_from_any_number_of_writers() {
    on_each_store(|store| {
        let cases = (1..=4).flat_map(|world| [0, 1, 2, 3, 5, 64, 1001].map(|n| (world, n)));
        for (step, (world, n)) in cases.enumerate() {
            check_round_trip(store, step as u64, world, n);
        }
    });
}

#[test]
fn shards_larger_than_a_part_are_restored() {
    on_each_store(|store| check_round_trip(store, 1, 2, 1_500_001));
}

#[test]
fn a_shard_is_a_safetensors_file() {
    on_each_store(|store| {
        let manifest = save(store, 1, 2);
        let bytes = get(store, &manifest.shards[1].path);
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let weights = file.tensor("weights").unwrap();
        let expected: Vec<u8> = values(10, 1)[5..].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!((weights.shape(), weights.data()), ([5].as_slice(), expected.as_slice()));
        assert_eq!(file.len(), 2);
    });
}

#[test]
fn a_missing_buffer_is_reported_with_the_existing_ones() {
    on_each_store(|store| {
        let manifest = save(store, 1, 2);
        let error = store.load_buffer(&manifest, "ema/0.5").unwrap_err();
        assert!(matches!(error, CheckpointError::NotFound { .. }));
        assert!(error.to_string().contains("it holds weights, ema/0.9999"), "{error}");
        assert!(matches!(read_shard(store, &manifest, 2), Err(CheckpointError::Invalid { .. })));
    });
}

#[test]
fn places_of_another_length_are_refused() {
    let store = Store::open("memory://").unwrap();
    let manifest = save(&store, 1, 2);
    for lens in [&[5][..], &[5, 4], &[5, 6], &[5, 5, 5]] {
        let mut values: Vec<_> = lens.iter().map(|len| vec![0.0; *len]).collect();
        let places = values.iter_mut().map(Vec::as_mut_slice).collect();
        let read = store.read_shard(&manifest, 0, places);
        assert!(matches!(read, Err(CheckpointError::Invalid { .. })), "{lens:?}");
    }
}

#[test]
fn inconsistent_slices_are_not_written() {
    on_each_store(|store| {
        let slice = |name: &str, end| OwnedSlice { name: name.into(), range: 0..end, data: vec![1.0, 2.0] };
        for (rank, slices) in [
            (0, vec![slice("weights", 3)]),
            (0, vec![slice("weights", 2), slice("weights", 2)]),
            (1, vec![slice("weights", 2)]),
        ] {
            let written = finish(store.start_upload(1, &Attempt::generate(), rank, 1, ready(slices.clone())));
            assert!(matches!(written, Err(CheckpointError::Invalid { .. })), "{slices:?}");
        }
    });
}

#[test]
fn the_run_is_created_once() {
    on_each_store(|store| {
        let first = store.create_run(&json!({ "seed": 1 })).unwrap();
        assert_eq!(store.create_run(&json!({ "seed": 2 })).unwrap(), first);
        assert_eq!(first.config, json!({ "seed": 1 }));
        put(store, "run.json", b"{}".to_vec());
        assert!(matches!(store.create_run(&json!({})), Err(CheckpointError::Damaged { .. })));
    });
}

proptest! {
    #[test]
    fn shares_tile_the_buffer_evenly(n in 0usize..1 << 40, world in 1usize..300) {
        let mut at = 0;
        for rank in 0..world {
            let range = share(n, rank, world);
            prop_assert_eq!(range.start, at);
            prop_assert!(range.len() - n / world <= 1);
            at = range.end;
        }
        prop_assert_eq!(at, n);
    }

    #[test]
    fn numbers_in_the_state_keep_their_bits(x in any::<f64>().prop_filter("not finite", |x| x.is_finite()), n: u64) {
        let bytes = seal(&json!({ "schema": 1, "x": x, "n": n }));
        let Ok(read) = unseal::<Value>(&bytes) else { panic!("refused its own seal") };
        prop_assert_eq!(read["x"].as_f64().map(f64::to_bits), Some(x.to_bits()));
        prop_assert_eq!(read["n"].as_u64(), Some(n));
    }

    #[test]
    fn object_names_parse_back(step in 0u64..1 << 50) {
        let attempt = Attempt::generate();
        let folder = layout::attempt_folder(step, &attempt);
        prop_assert_eq!(layout::attempt_of_folder(folder.filename().unwrap()), Some((step, attempt)));
        let manifest = layout::manifest_path(step);
        prop_assert_eq!(layout::step_of_manifest(manifest.filename().unwrap()), Some(step));
    }
}
