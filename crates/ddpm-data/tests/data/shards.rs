//! Parquet, WebDataset and ZIP as the usual tools write them: see tests/golden/data/make.py.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ddpm_data::{DataError, ShardFormat, ShardLabels, ShardSpec, Source, SourceKind, Split};
use tempfile::{TempDir, tempdir};

use crate::wrong_shards::{png, tar};
use crate::{check_refused, read, source};

/// A file of tests/golden/data.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data").join(name)
}

/// Opens shards at 16x16 RGB, with indexes in `cache`.
pub fn shards(
    format: ShardFormat,
    path: impl AsRef<Path>,
    split: Split,
    labels: ShardLabels,
    cache: &TempDir,
) -> Result<Arc<dyn Source>, DataError> {
    let (path, cache) = (path.as_ref().to_path_buf(), Some(cache.path().join("cache")));
    source(SourceKind::Shards(ShardSpec { format, path, split, labels, cache, cache_bytes: 0 }), 16, 3)
}

pub fn field(name: &str) -> ShardLabels {
    ShardLabels::Field(name.into())
}

/// The twelve images, planar, as Pillow decodes them, with their classes.
pub fn expected() -> Vec<(Vec<u8>, Option<u32>)> {
    let pixels = fs::read(golden("pixels.rgb")).expect("golden");
    let labels: Vec<u32> = serde_json::from_slice(&fs::read(golden("labels.json")).expect("golden")).expect("numbers");
    let planar = |rgb: &[u8]| (0..3).flat_map(|c| rgb.iter().skip(c).step_by(3).copied()).collect();
    pixels.chunks_exact(16 * 16 * 3).map(planar).zip(labels.into_iter().map(Some)).collect()
}

pub fn all(source: &dyn Source) -> Vec<(Vec<u8>, Option<u32>)> {
    (0..source.len()).map(|id| read(source, id).expect("whole")).collect()
}

#[test]
fn every_format_holds_the_same_images_in_the_same_order() {
    use ShardFormat::{Parquet, Webdataset, Zip};
    use ShardLabels::{Auto, Folder};
    let (numbers, names) = (["0", "1", "2"], ["ant", "bee", "cat"]);
    let cases = [
        (Parquet, "parquet", Auto, names),
        (Parquet, "parquet/data/train-*.parquet", field("label"), names),
        (Parquet, "plain.parquet", field("kind"), names),
        (Webdataset, "samples-{000..001}.tar", Auto, numbers),
        (Webdataset, "samples-{000,001}.tar", field("cls"), numbers),
        (Webdataset, "samples-*.tar", Folder, names),
        (Webdataset, "named.tar.gz", Auto, numbers),
        (Webdataset, "named.tar.zst", field("kind"), names),
        (Zip, "edm.zip", Auto, numbers),
        (Zip, "folders.zip", Folder, names),
    ];
    let cache = tempdir().expect("temporary folder");
    // The second time from the indexes.
    for round in 0..2 {
        for (format, path, labels, names) in cases.clone() {
            let source = shards(format, golden(path), Split::Train, labels, &cache).expect(path);
            assert!(all(&*source) == expected(), "{path}, round {round}");
            let table: Vec<_> = source.class_table().into_iter().map(|class| (class.name, class.images)).collect();
            assert_eq!(table, names.map(|name| (name.to_owned(), 4)), "{path}");
            assert_eq!(source.classes(), Some(3));
        }
    }
    for (format, path) in [(Parquet, "parquet"), (Webdataset, "samples-*.tar"), (Zip, "edm.zip")] {
        let source = shards(format, golden(path), Split::Train, ShardLabels::None, &cache).expect(path);
        assert_eq!((source.classes(), read(&*source, 5).expect("whole").1), (None, None));
        assert_eq!(read(&*source, 5).expect("whole").0, expected()[5].0);
    }
    let source = shards(Parquet, golden("plain.parquet"), Split::Train, Auto, &cache).expect("no label is needed");
    assert_eq!(source.classes(), None);
}

#[test]
fn splits_are_those_that_names_say() {
    let cache = tempdir().expect("temporary folder");
    let open = |path: &str, split| shards(ShardFormat::Parquet, golden(path), split, ShardLabels::Auto, &cache);
    let test = open("parquet", Split::Test).expect("there is one");
    assert!(all(&*test) == expected()[4..8]);
    assert!(test.describe().starts_with("4 images of the test split in 1 Parquet file"), "{}", test.describe());
    check_refused(open("parquet", Split::Valid), &["no file of the valid split", "the names say train and test"]);
    check_refused(open("plain.parquet", Split::Test), &["no file of the test split", "no file name says its split"]);
    // A file or a pattern is what the user chose.
    assert_eq!(open("parquet/data/test-*.parquet", Split::Train).expect("chosen").len(), 4);

    let dir = tempdir().expect("temporary folder");
    let shard = golden("parquet/data/train-00001-of-00002.parquet");
    for (name, train, valid, test) in [
        ("all.parquet", 1, 0, 0),
        ("training.parquet", 1, 0, 0),
        ("train/a.parquet", 1, 0, 0),
        ("my_validation-0.parquet", 0, 1, 0),
        ("dev.0001.parquet", 0, 1, 0),
        ("evaluation/part.parquet", 0, 0, 1),
        ("contest/latest.parquet", 1, 0, 0),
    ] {
        let folder = dir.path().join(name.replace('/', "_"));
        fs::create_dir_all(folder.join(name).parent().expect("inside")).expect("folder");
        fs::copy(&shard, folder.join(name)).expect("copy");
        for (split, found) in [(Split::Train, train), (Split::Valid, valid), (Split::Test, test)] {
            let source = shards(ShardFormat::Parquet, &folder, split, ShardLabels::Auto, &cache);
            assert_eq!(source.map_or(0, |source| source.len()), 5 * found, "{name}, {split}");
        }
    }
}

/// A copy of a golden shard, and its path.
fn copy(dir: &TempDir, name: &str) -> PathBuf {
    let path = dir.path().join(Path::new(name).file_name().expect("a name"));
    fs::copy(golden(name), &path).expect("copy");
    path
}

fn indexes(dir: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.path().join("cache")).expect("cache").map(|entry| entry.expect("entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "index")).collect();
    files.sort();
    files
}

#[test]
fn an_index_is_made_once_and_again_for_a_changed_file() {
    let dir = tempdir().expect("temporary folder");
    let path = copy(&dir, "samples-000.tar");
    let open = || shards(ShardFormat::Webdataset, &path, Split::Train, ShardLabels::Auto, &dir);
    let first = open().expect("valid");
    let index = indexes(&dir).remove(0);
    let (bytes, made) = (fs::read(&index).expect("index"), index.metadata().expect("index").modified().expect("time"));
    assert_eq!(open().expect("valid").fingerprint(), first.fingerprint());
    assert_eq!(index.metadata().expect("index").modified().expect("time"), made, "not written again");

    // A damaged index is made again.
    fs::write(&index, &bytes[..bytes.len() - 3]).expect("damage");
    assert_eq!(open().expect("valid").len(), 8);
    assert_eq!(fs::read(&index).expect("index"), bytes);

    // Another file under this name: what is open refuses to read it, and the next open sees what there is.
    fs::copy(golden("samples-001.tar"), &path).expect("copy");
    let changed = read(&*first, 0);
    assert!(matches!(changed, Err(DataError::Changed { .. })));
    check_refused(changed, &["samples-000.tar: this file has changed since the data set was opened"]);
    let second = open().expect("valid");
    assert_eq!(second.len(), 4);
    assert_ne!(second.fingerprint(), first.fingerprint());
    assert!(read(&*second, 0).expect("whole") == expected()[8]);
    fs::remove_file(&path).expect("remove");
    assert!(matches!(read(&*second, 0), Err(DataError::Vanished { .. })));
}

#[test]
fn the_identity_of_a_data_set_is_that_of_its_records() {
    let dir = tempdir().expect("temporary folder");
    let open = |path: &Path, labels| shards(ShardFormat::Zip, path, Split::Train, labels, &dir).expect("valid");
    let original = open(&golden("edm.zip"), ShardLabels::Auto).fingerprint();
    let moved = dir.path().join("elsewhere.zip");
    fs::copy(golden("edm.zip"), &moved).expect("copy");
    assert_eq!(open(&moved, ShardLabels::Auto).fingerprint(), original);
    assert_ne!(open(&moved, ShardLabels::None).fingerprint(), original);
    assert_ne!(open(&golden("folders.zip"), ShardLabels::Folder).fingerprint(), original);
}

#[test]
fn the_identity_covers_the_names_of_labels_in_each_file() {
    let dir = tempdir().expect("temporary folder");
    let image = png();
    let identity = |name: &str, labels: [&str; 2]| {
        let set = tempdir().expect("temporary folder");
        for (shard, label) in ["0.tar", "1.tar"].into_iter().zip(labels) {
            tar(&set, shard, &[("a.png", &image), ("a.cls", label.as_bytes())]);
        }
        let source = shards(ShardFormat::Webdataset, set.path(), Split::Train, ShardLabels::Auto, &dir).expect(name);
        source.fingerprint()
    };
    assert_eq!(identity("one", ["ant", "bee"]), identity("the same", ["ant", "bee"]));
    assert_ne!(identity("one", ["ant", "bee"]), identity("swapped", ["bee", "ant"]));
    assert_ne!(identity("one", ["ant", "bee"]), identity("renamed", ["ant", "wasp"]));
}

#[test]
fn a_pattern_finds_all_that_it_names_and_nothing_hidden() {
    let dir = tempdir().expect("temporary folder");
    let open = |path: &Path| shards(ShardFormat::Webdataset, path, Split::Train, ShardLabels::Auto, &dir);
    for (pattern, missing) in [
        ("samples-{000..002}.tar", "samples-002.tar"),
        ("{samples,others}-*.tar", "others-*.tar"),
        ("none-*.tar", "none-*.tar"),
    ] {
        check_refused(open(&golden(pattern)), &[missing, "no file matches this pattern"]);
    }
    check_refused(open(&golden("{0..9999999999}.tar")), &["no file matches this pattern"]);
    check_refused(open(&golden("{0..4000000000}.tar")), &["its braces stand for more than"]);
    assert_eq!(open(&golden("{samples-000,samples-*}.tar")).expect("each matches").len(), 12);
    for name in ["0.tar", ".1.tar", "._0.tar"] {
        fs::copy(golden("samples-001.tar"), dir.path().join(name)).expect("copy");
    }
    assert_eq!(open(&dir.path().join("*.tar")).expect("one is visible").len(), 4);
    assert_eq!(open(dir.path()).expect("one is visible").len(), 4);
}

#[test]
fn files_that_are_left_out_are_named() {
    let dir = tempdir().expect("temporary folder");
    for name in ["train-0.parquet", "test-0.parquet", "extra.parquet"] {
        fs::copy(golden("parquet/data/train-00001-of-00002.parquet"), dir.path().join(name)).expect("copy");
    }
    let cache = tempdir().expect("temporary folder");
    let open = |path: &str, split| {
        let path = dir.path().join(path);
        let source = shards(ShardFormat::Parquet, path, split, ShardLabels::Auto, &cache).expect("found");
        (source.len(), source.findings().warnings)
    };
    let (images, warnings) = open("", Split::Train);
    assert_eq!(images, 5);
    assert!(matches!(&warnings[..], [one] if one.contains("extra.parquet: not used")), "{warnings:?}");
    // As the warning advises.
    let (images, warnings) = open("*.parquet", Split::Train);
    assert_eq!(images, 10);
    assert!(matches!(&warnings[..], [one] if one.contains("test-0.parquet: not used for training")), "{warnings:?}");
    assert_eq!(open("{train,extra}*.parquet", Split::Train), (10, Vec::new()));
    assert_eq!(open("test-*.parquet", Split::Train), (5, Vec::new()));
}

#[test]
fn without_a_cache_only_compressed_tars_are_refused() {
    let dir = tempdir().expect("temporary folder");
    fs::write(dir.path().join("cache"), "not a folder").expect("file");
    let open = |name: &str| shards(ShardFormat::Webdataset, golden(name), Split::Train, ShardLabels::Auto, &dir);
    assert!(all(&*open("samples-*.tar").expect("scanned")) == expected());
    check_refused(open("named.tar.gz"), &["decompressed into data.cache_dir", "set data.cache_dir"]);
}

#[test]
fn threads_read_one_shard_at_the_same_time() {
    let cache = tempdir().expect("temporary folder");
    for (format, path) in
        [(ShardFormat::Parquet, "parquet"), (ShardFormat::Webdataset, "samples-*.tar"), (ShardFormat::Zip, "edm.zip")]
    {
        let source = shards(format, golden(path), Split::Train, ShardLabels::Auto, &cache).expect(path);
        std::thread::scope(|scope| {
            for first in 0..4 {
                let source = &source;
                scope.spawn(move || {
                    for i in 0..200 {
                        let id = (first + 5 * i) % 12;
                        assert!(read(&**source, id).expect("whole") == expected()[id as usize]);
                    }
                });
            }
        });
    }
}
