//! The loader: the same batches for any number of threads, ranks and restarts; errors at the right step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ddpm_data::{
    Batch, DataError, DataSpec, FolderLabels, ImageShape, Loader, LoaderConfig, OnCorrupt, Order, Source, SourceKind,
    Split, open, preview,
};
use image::{GrayImage, ImageFormat, Luma};
use tempfile::{TempDir, tempdir};

use crate::pictures::encode;
use crate::{check_refused, digits, read, spec, write};

fn config(global_batch: usize) -> LoaderConfig {
    LoaderConfig {
        global_batch,
        slice: 0..global_batch,
        start_step: 0,
        workers: 2,
        prefetch: 3,
        flip: true,
        flip_seed: 5,
    }
}

fn take(source: &Arc<dyn Source>, config: LoaderConfig, steps: usize) -> Vec<Batch> {
    let order = Order::new(source.len(), 11);
    let loader = Loader::new(Arc::clone(source), order, config, ()).expect("valid");
    (0..steps).map(|_| loader.next().expect("valid")).collect()
}

#[test]
fn batches_follow_the_order_across_epochs() {
    let source = digits(10);
    let order = Order::new(10, 11);
    for batch in take(&source, LoaderConfig { flip: false, ..config(4) }, 8) {
        assert_eq!(batch.first_position, 4 * batch.step);
        for (slot, image) in batch.images.chunks_exact(256).enumerate() {
            let id = order.id_at(batch.first_position + slot as u64);
            let (expected, class) = read(&*source, id).expect("valid");
            assert_eq!((batch.ids[slot], batch.labels[slot]), (id, i64::from(class.expect("digits have one"))));
            assert_eq!(image, expected);
        }
    }
}

#[test]
fn any_number_of_workers_gives_the_same_batches() {
    let source = digits(37);
    let reference = take(&source, LoaderConfig { workers: 1, prefetch: 1, ..config(8) }, 12);
    assert!(reference.iter().map(|batch| batch.step).eq(0..12));
    for (workers, prefetch) in [(1, 4), (3, 1), (5, 7)] {
        assert_eq!(take(&source, LoaderConfig { workers, prefetch, ..config(8) }, 12), reference);
    }
    let resumed = take(&source, LoaderConfig { start_step: 7, ..config(8) }, 5);
    assert_eq!(resumed, reference[7..]);
}

#[test]
fn several_ranks_together_load_the_batches_of_one() {
    let source = digits(37);
    let whole = take(&source, config(24), 4);
    for world in [2, 3, 4, 8] {
        let share = 24 / world;
        let ranks: Vec<_> = (0..world)
            .map(|rank| take(&source, LoaderConfig { slice: rank * share..(rank + 1) * share, ..config(24) }, 4))
            .collect();
        for (step, whole) in whole.iter().enumerate() {
            let joined = |part: fn(&Batch) -> Vec<u64>| -> Vec<u64> {
                ranks.iter().flat_map(|rank| part(&rank[step])).collect()
            };
            assert_eq!(joined(|b| b.ids.clone()), whole.ids);
            assert_eq!(joined(|b| b.images.iter().map(|v| u64::from(*v)).collect()).len(), whole.images.len());
            assert!(ranks.iter().flat_map(|rank| &rank[step].images).eq(&whole.images));
            assert!(ranks.iter().flat_map(|rank| &rank[step].labels).eq(&whole.labels));
            assert_eq!(ranks[1][step].first_position, whole.first_position + share as u64);
        }
    }
}

#[test]
fn flips_belong_to_positions_and_mirror_rows() {
    let source = digits(8);
    let mirror =
        |image: &[u8]| -> Vec<u8> { image.chunks_exact(16).flat_map(|row| row.iter().rev()).copied().collect() };
    let plain = take(&source, LoaderConfig { flip: false, ..config(8) }, 50);
    let flipped = take(&source, config(8), 50);
    let other_seed = take(&source, LoaderConfig { flip_seed: 6, ..config(8) }, 50);
    assert_ne!(flipped, other_seed);
    let mut turned = Vec::new();
    for (a, b) in plain.iter().zip(&flipped) {
        for (slot, (a, b)) in a.images.chunks_exact(256).zip(b.images.chunks_exact(256)).enumerate() {
            assert!(b == a || b == mirror(a));
            turned.push((plain[0].ids[slot], b != a));
        }
    }
    let count = turned.iter().filter(|(_, turned)| *turned).count();
    assert!((140..260).contains(&count), "{count} of 400, expected half");
}

#[test]
fn recycled_batches_leave_no_trace() {
    let source = digits(20);
    let reference = take(&source, config(6), 20);
    let loader = Loader::new(source, Order::new(20, 11), config(6), ()).expect("valid");
    for expected in &reference {
        let batch = loader.next().expect("valid");
        assert_eq!(batch, *expected);
        loader.recycle(Batch { skipped: 99, ..batch });
    }
    assert_eq!(loader.skipped(), 0);
}

/// Ten grey PNGs of which those in `corrupt` are text; the brightness of the others is ten times their id.
fn folder_with(corrupt: &[u8], on_corrupt: OnCorrupt) -> (TempDir, Arc<dyn Source>) {
    let dir = tempdir().expect("temporary folder");
    for id in 0..10u8 {
        let png = encode(GrayImage::from_pixel(8, 8, Luma([10 * id])), ImageFormat::Png);
        write(&dir, &format!("{id}.png"), if corrupt.contains(&id) { b"text".to_vec() } else { png });
    }
    let kind = SourceKind::Folder { root: dir.path().into(), split: Split::Train, labels: FolderLabels::None };
    let source = open(&DataSpec { on_corrupt, ..spec(kind, 8, 1) }).expect("valid");
    (dir, source)
}

#[test]
fn errors_are_returned_at_their_step_and_the_next_step_follows() {
    let (_dir, source) = folder_with(&[4], OnCorrupt::Error);
    let order = Order::new(10, 11);
    let bad = (0..10).find(|position| order.id_at(*position) == 4).expect("a permutation");
    let loader = Loader::new(source, order, LoaderConfig { prefetch: 8, ..config(1) }, ()).expect("valid");
    for step in 0..10 {
        match loader.next() {
            Ok(batch) => assert_eq!((batch.step, batch.labels), (step, vec![-1])),
            error => {
                assert_eq!(step, bad);
                check_refused(error, &["4.png", "a text file; only JPEG, PNG, WebP"]);
            }
        }
    }
}

#[test]
fn skipping_uses_the_same_next_image_on_every_rank() {
    let (_dir, source) = folder_with(&[3, 4, 9], OnCorrupt::Skip);
    let skip = |slice, workers| LoaderConfig { slice, workers, ..config(4) };
    let order = Order::new(10, 11);
    let loader = Loader::new(Arc::clone(&source), order.clone(), skip(0..4, 3), ()).expect("valid");
    let mut whole = Vec::new();
    for _ in 0..5 {
        let batch = loader.next().expect("skipped");
        for (slot, id) in batch.ids.iter().enumerate() {
            let expected = match order.id_at(batch.first_position + slot as u64) {
                3 | 4 => 5,
                9 => 0,
                id => id,
            };
            assert_eq!((*id, u64::from(batch.images[slot * 64])), (expected, 10 * expected));
        }
        whole.push(batch);
    }
    assert_eq!(loader.skipped(), 6, "three corrupt images in two epochs");
    let (low, high) = (take(&source, skip(0..1, 1), 5), take(&source, skip(1..4, 2), 5));
    for ((low, high), whole) in low.iter().zip(&high).zip(&whole) {
        assert_eq!([&low.images[..], &high.images].concat(), whole.images);
        assert_eq!(low.skipped + high.skipped, whole.skipped);
    }
}

#[test]
fn skipping_gives_up_if_no_image_is_usable() {
    let (_dir, source) = folder_with(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], OnCorrupt::Skip);
    let loader = Loader::new(source, Order::new(10, 0), config(2), ()).expect("valid");
    check_refused(loader.next(), &["10 images in a row", ".png: this is a text file", "data.path"]);
}

#[test]
fn files_that_disappear_are_not_skipped() {
    let (dir, source) = folder_with(&[], OnCorrupt::Skip);
    std::fs::remove_file(dir.path().join("6.png")).expect("written above");
    let loader = Loader::new(source, Order::new(10, 0), config(10), ()).expect("valid");
    check_refused(loader.next(), &["6.png", "has disappeared since", "Restore it."]);
}

#[test]
fn previews_skip_as_training_does() {
    let (_dir, source) = folder_with(&[0, 1, 5], OnCorrupt::Skip);
    let batch = preview(&*source, 0, 7, 3).expect("skipped");
    assert_eq!((batch.ids, batch.skipped), (vec![2, 2, 2, 3, 4, 6, 6], 3));
    assert!(batch.images.chunks_exact(64).map(|image| image[0]).eq([20, 20, 20, 30, 40, 60, 60]));
    let (_dir, source) = folder_with(&[0, 1, 5], OnCorrupt::Error);
    check_refused(preview(&*source, 0, 7, 3), &["0.png", "a text file", "data.on_corrupt = \"skip\""]);
}

#[test]
fn invalid_settings_are_refused() {
    let refused =
        |config, n, parts: &[&str]| check_refused(Loader::new(digits(10), Order::new(n, 0), config, ()), parts);
    refused(LoaderConfig { slice: 2..2, ..config(4) }, 10, &["slots 2..2"]);
    refused(LoaderConfig { slice: 2..5, ..config(4) }, 10, &["slots 2..5", "global batch of 4"]);
    refused(LoaderConfig { workers: 0, ..config(4) }, 10, &["data.workers is 0"]);
    refused(config(4), 9, &["covers 9 samples", "has 10"]);
}

/// Counts the images read; image 5 makes the decoder panic.
struct Counting(AtomicU64);

impl Source for Counting {
    fn len(&self) -> u64 {
        100
    }
    fn image(&self) -> ImageShape {
        ImageShape::square(1, 1)
    }
    fn classes(&self) -> Option<usize> {
        None
    }
    fn fingerprint(&self) -> u64 {
        0
    }
    fn read(&self, id: u64, _: &mut [u8]) -> Result<Option<u32>, DataError> {
        assert_ne!(id, 5, "a decoder with a bug");
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(None)
    }
    fn describe(&self) -> String {
        "a counter".into()
    }
}

#[test]
fn a_panicking_decoder_is_an_error_and_dropping_ends_the_threads() {
    let source = Arc::new(Counting(AtomicU64::new(0)));
    let order = Order::new(100, 11);
    let bad = (0..100).find(|position| order.id_at(*position) == 5).expect("a permutation") / 4;
    let loader = Loader::new(Arc::clone(&source) as Arc<dyn Source>, order, config(4), ()).expect("valid");
    for step in 0..25 {
        let result = loader.next();
        assert_eq!(result.is_err(), step == bad, "step {step}");
        assert!(result.is_ok() || matches!(result, Err(DataError::Panicked { step }) if step == bad));
    }
    drop(loader);
    assert_eq!(Arc::strong_count(&source), 1, "no thread holds the source any longer");
    // 25 steps taken, at most `prefetch` = 3 ahead.
    assert!(source.0.load(Ordering::SeqCst) <= 4 * 28);
}
