//! Packing any source, and what is read back.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use ddpm_data::{
    DataSpec, Extent, FolderLabels, Manifest, OnCorrupt, PackFormat, Packing, ShardFormat, ShardLabels, ShardSpec,
    Source, SourceKind, Split, Survey, open, pack, verify,
};
use image::{GrayImage, ImageFormat, Luma};
use tempfile::{TempDir, tempdir};

use crate::pictures::encode;
use crate::shards::{all, expected, golden, shards};
use crate::{check_refused, digits, source, spec, write};

pub const FORMATS: [(PackFormat, ShardFormat); 2] =
    [(PackFormat::Parquet, ShardFormat::Parquet), (PackFormat::Webdataset, ShardFormat::Webdataset)];

fn packing(format: PackFormat, per_shard: u64, resized: bool) -> Packing {
    Packing { format, split: Split::Train, per_shard, resized }
}

fn packed(source: &dyn Source, folder: &Path, packing: &Packing) -> Manifest {
    let done = AtomicU64::new(0);
    let manifest = pack(source, folder, packing, &done).expect("an empty folder");
    assert_eq!(done.into_inner(), source.len());
    manifest
}

#[test]
fn what_was_packed_is_read_back_in_the_same_order() {
    let dir = tempdir().expect("temporary folder");
    let original =
        shards(ShardFormat::Parquet, golden("parquet"), Split::Train, ShardLabels::Auto, &dir).expect("valid");
    for (format, reads) in FORMATS {
        for resized in [false, true] {
            let folder = dir.path().join(format!("{format:?}-{resized}"));
            let manifest = packed(&*original, &folder, &packing(format, 5, resized));
            let images: Vec<u64> = manifest.shards.iter().map(|shard| shard.images).collect();
            assert_eq!((manifest.images, manifest.left_out, images), (12, 0, vec![5, 5, 2]));
            assert_eq!(manifest.classes[1], ("bee".into(), 4));
            assert_eq!(manifest.resized, resized.then_some([3, 16, 16]));
            let again = shards(reads, &folder, Split::Train, ShardLabels::Auto, &dir).expect("valid");
            assert!(all(&*again) == expected(), "{format:?}");
            assert_eq!(again.class_table(), original.class_table(), "{format:?}");
            assert_eq!(verify(&folder).expect("readable"), Some(Vec::new()));
            // The original files, or PNGs of all.
            let stored = again.encoded(3).expect("whole").expect("stored as files").bytes;
            assert_eq!(stored.starts_with(b"\x89PNG"), resized);
            if !resized {
                assert_eq!(stored, original.encoded(3).expect("whole").expect("stored as files").bytes);
            }
        }
    }
}

#[test]
fn sources_without_files_are_packed_as_png() {
    let dir = tempdir().expect("temporary folder");
    let digits = digits(30);
    for (format, reads) in FORMATS {
        let folder = dir.path().join(format!("{format:?}"));
        packed(&*digits, &folder, &packing(format, 8, false));
        let (path, cache) = (folder, Some(dir.path().join("cache")));
        let kind = SourceKind::Shards(ShardSpec {
            format: reads,
            path,
            split: Split::Train,
            labels: ShardLabels::Auto,
            cache,
            cache_bytes: 0,
        });
        let again = source(kind, 16, 1).expect("valid");
        assert!(all(&*again) == all(&*digits), "{format:?}");
        assert_eq!(again.class_table(), digits.class_table());
    }
}

#[test]
fn packing_twice_gives_the_same_bytes() {
    let dir = tempdir().expect("temporary folder");
    let digits = digits(50);
    for (format, _) in FORMATS {
        let folders = ["one", "two"].map(|name| dir.path().join(format!("{format:?}-{name}")));
        let manifests = folders.each_ref().map(|folder| packed(&*digits, folder, &packing(format, 7, false)));
        assert_eq!(manifests[0], manifests[1]);
        for entry in fs::read_dir(&folders[0]).expect("folder").map(|entry| entry.expect("entry")) {
            let other = folders[1].join(entry.file_name());
            assert!(fs::read(entry.path()).expect("file") == fs::read(other).expect("file"), "{entry:?}");
        }
    }
}

/// A folder with a PNG, half a PNG, and the first again.
fn folder(dir: &TempDir, on_corrupt: OnCorrupt) -> std::sync::Arc<dyn Source> {
    let png = encode(GrayImage::from_fn(16, 12, |x, y| Luma([(x * 16 + y) as u8])), ImageFormat::Png);
    write(dir, "set/a.png", &png);
    write(dir, "set/b.png", &png[..png.len() / 2]);
    write(dir, "set/c.png", &png);
    let root = dir.path().join("set");
    let kind = SourceKind::Folder { root, split: Split::Train, labels: FolderLabels::None };
    open(&DataSpec { on_corrupt, ..spec(kind, 8, 1) }).expect("valid")
}

#[test]
fn unusable_images_are_left_out_if_allowed() {
    let dir = tempdir().expect("temporary folder");
    let out = dir.path().join("packed");
    let tars = packing(PackFormat::Webdataset, 10, false);
    let refused = pack(&*folder(&dir, OnCorrupt::Error), &out, &tars, &AtomicU64::new(0));
    check_refused(refused, &["b.png", "data.on_corrupt = \"skip\""]);
    check_refused(
        pack(&*folder(&dir, OnCorrupt::Skip), &out, &tars, &AtomicU64::new(0)),
        &["packed: this folder is not empty"],
    );
    fs::remove_dir_all(&out).expect("remove");
    let manifest = packed(&*folder(&dir, OnCorrupt::Skip), &out, &tars);
    assert_eq!((manifest.images, manifest.left_out), (2, 1));
    // A shard of which nothing is left is not written.
    for (format, reads) in FORMATS {
        let out = dir.path().join(format!("{format:?}"));
        let manifest = packed(&*folder(&dir, OnCorrupt::Skip), &out, &packing(format, 1, false));
        assert_eq!(manifest.shards.iter().map(|shard| shard.images).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(shards(reads, &out, Split::Train, ShardLabels::Auto, &dir).expect("valid").len(), 2);
    }
}

#[test]
fn a_manifest_detects_changed_and_missing_shards() {
    let dir = tempdir().expect("temporary folder");
    let out = dir.path().join("packed");
    let manifest = packed(&*digits(20), &out, &packing(PackFormat::Parquet, 10, false));
    let [first, second] = [0, 1].map(|shard| out.join(&manifest.shards[shard].name));
    let mut bytes = fs::read(&first).expect("shard");
    bytes[100] ^= 1;
    fs::write(&first, bytes).expect("shard");
    fs::remove_file(&second).expect("shard");
    let faults = verify(&out).expect("readable").expect("there is a manifest");
    assert_eq!(faults.len(), 2);
    assert!(
        faults[0].contains("train-00000-of-00002.parquet: this shard is not the one that was packed"),
        "{faults:?}"
    );
    assert!(faults[1].contains("train-00001-of-00002.parquet: this shard is missing"), "{faults:?}");
    write(&dir, "half/manifest.json", &fs::read(out.join("manifest.json")).expect("manifest")[..100]);
    check_refused(verify(&dir.path().join("half")), &["manifest.json: it is damaged", "pack again"]);
    write(&dir, "other/manifest.json", "{\"images\": 3}");
    assert_eq!(verify(&dir.path().join("other")).expect("readable"), None);
    assert_eq!(verify(&dir.path().join("nowhere")).expect("readable"), None);
}

#[test]
fn a_survey_counts_measures_and_finds_equal_images() {
    let dir = tempdir().expect("temporary folder");
    let survey = Survey::of(&*folder(&dir, OnCorrupt::Skip), Extent::Statistics).expect("all are looked at");
    assert_eq!((survey.read, survey.faults.len(), survey.ends), (2, 1, false));
    assert!(survey.faults[0].contains("b.png"), "{:?}", survey.faults);
    assert_eq!((survey.duplicates.clone(), survey.repeated()), (vec![vec![0, 2]], 1));
    assert_eq!(survey.sizes.into_iter().collect::<Vec<_>>(), [((16, 12), 2)]);
    let strict = Survey::of(&*folder(&dir, OnCorrupt::Error), Extent::Check).expect("all are looked at");
    assert!(strict.ends && strict.duplicates.is_empty());

    // What concerns a whole file of images is not reported for each of them.
    let cache = tempdir().expect("temporary folder");
    let path = cache.path().join("a.zip");
    fs::copy(golden("edm.zip"), &path).expect("copy");
    let changed = shards(ShardFormat::Zip, &path, Split::Train, ShardLabels::Auto, &cache).expect("valid");
    fs::copy(golden("folders.zip"), &path).expect("copy");
    check_refused(Survey::of(&*changed, Extent::Check), &["a.zip: this file has changed"]);

    // Against a direct computation, over several units of work.
    let source = digits(600);
    let survey = Survey::of(&*source, Extent::Check).expect("digits are whole");
    let pixels: Vec<f64> = all(&*source).into_iter().flat_map(|(image, _)| image).map(f64::from).collect();
    let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
    let variance = pixels.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / pixels.len() as f64;
    let [(found, deviation)] = survey.moments()[..] else { panic!("one channel") };
    assert!((survey.mean_pixel() - mean).abs() < 1e-9 && (found * 255.0 - mean).abs() < 1e-9);
    assert!((deviation * 255.0 - variance.sqrt()).abs() < 1e-9);
    assert_eq!(survey.labels.values().sum::<u64>(), 600);
    assert_eq!(survey.preview.len(), 64 * 16 * 16);
}

#[test]
fn a_survey_of_more_than_8_bits_is_exact() {
    let dir = tempdir().expect("temporary folder");
    let words: Vec<u16> = (0..16 * 12).map(|value| 340 * value).collect();
    let image = image::ImageBuffer::<Luma<u16>, _>::from_raw(16, 12, words.clone()).expect("of this size");
    image.save(dir.path().join("a.png")).expect("saved");
    let kind = SourceKind::Folder { root: dir.path().into(), split: Split::Train, labels: FolderLabels::None };
    let shape = ddpm_data::ImageShape { channels: 1, height: 12, width: 16 };
    let spec = DataSpec { image: shape, range: Some([0.0, 65535.0]), ..spec(kind, 1, 1) };
    let survey = Survey::of(&*open(&spec).expect("valid"), Extent::Statistics).expect("whole");
    let mean = words.iter().map(|word| f64::from(*word)).sum::<f64>() / 192.0 / 65535.0;
    let [(found, _)] = survey.moments()[..] else { panic!("one channel") };
    assert!((found - mean).abs() < 1e-7, "{found}, not {mean}");
    assert_eq!(survey.sizes.into_iter().collect::<Vec<_>>(), [((16, 12), 1)]);
    // Rounded to 256 levels.
    assert_eq!(survey.preview[1], (340.0_f64 / 257.0).round() as u8);
}
