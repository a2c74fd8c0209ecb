//! Shards that are damaged, truncated, mislabelled or something else.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ddpm_data::{
    DataError, DataSpec, OnCorrupt, ShardFormat, ShardLabels, ShardSpec, SourceKind, Split, open, preview,
};
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use crate::shards::{all, expected, field, golden, shards};
use crate::{check_refused, read, spec, write};

use ShardFormat::{Parquet, Webdataset, Zip};
use ShardLabels::{Auto, Folder};

/// A PNG file of 16x16.
pub fn png() -> Vec<u8> {
    let file = fs::read(golden("samples-000.tar")).expect("golden");
    let start = file.windows(4).position(|bytes| bytes == b"\x89PNG").expect("a PNG");
    file[start..start + 650].to_vec()
}

/// A tar file of these members.
pub fn tar(dir: &TempDir, name: &str, members: &[(&str, &[u8])]) -> PathBuf {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).expect("in memory");
    }
    write(dir, name, builder.into_inner().expect("in memory"))
}

/// A ZIP file of these members, uncompressed.
pub fn zip(dir: &TempDir, name: &str, members: &[(&str, &[u8])]) -> PathBuf {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::FileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in members {
        writer.start_file(*name, options).expect("in memory");
        writer.write_all(content).expect("in memory");
    }
    write(dir, name, writer.finish().expect("in memory").into_inner())
}

#[test]
fn what_is_not_a_shard_is_named() {
    let dir = tempdir().expect("temporary folder");
    let image = png();
    let web = b"<!doctype html><html>404: not found</html>".to_vec();
    let cases: [(ShardFormat, &str, Vec<u8>, &[&str]); 10] = [
        (Parquet, "a.parquet", web.clone(), &["this is a web page", "not a Parquet file", "fetch it again"]),
        (Parquet, "b.parquet", image.clone(), &["this is a PNG image, not a Parquet file", "data.kind"]),
        (
            Parquet,
            "c.parquet",
            b"version https://git-lfs.github.com/spec/v1\n".to_vec(),
            &["Git LFS pointer", "git lfs pull"],
        ),
        (Parquet, "d.parquet", Vec::new(), &["damaged or truncated", "fetch it again"]),
        (Webdataset, "a.tar", web.clone(), &["this is a web page", "not a tar file"]),
        (Webdataset, "b.tar", Vec::new(), &["contains no image"]),
        (Webdataset, "c.tar", image.clone(), &["this is a PNG image, not a tar file"]),
        (Zip, "a.zip", web, &["this is a web page", "not a ZIP file"]),
        (Zip, "b.zip", image, &["this is a PNG image, not a ZIP file"]),
        (Zip, "c.zip", Vec::new(), &["damaged or truncated", "fetch it again"]),
    ];
    for (format, name, bytes, parts) in cases {
        let path = write(&dir, name, bytes);
        check_refused(shards(format, &path, Split::Train, Auto, &dir), &[&[name][..], parts].concat());
    }
    let none = dir.path().join("none");
    fs::create_dir(&none).expect("folder");
    let refused = |format, path: &Path, parts: &[&str]| {
        check_refused(shards(format, path, Split::Train, Auto, &dir), parts);
    };
    refused(Webdataset, &none, &["no tar file (.tar, .tar.gz, .tgz, .tar.zst) below this folder", "data.path"]);
    refused(Zip, &dir.path().join("x-*.zip"), &["no file matches this pattern"]);
    refused(Zip, &dir.path().join("x-[.zip"), &["this is not a pattern"]);
    refused(Zip, &dir.path().join("gone.zip"), &["gone.zip: cannot be read"]);
    let pipe = crate::pipe(&dir, "pipe.tar");
    refused(Webdataset, &pipe, &["pipe.tar: this is not a file"]);
}

#[test]
fn wrong_labels_and_samples_are_named() {
    let dir = tempdir().expect("temporary folder");
    let image = png();
    let refused = |labels: ShardLabels, path: PathBuf, format, parts: &[&str]| {
        check_refused(shards(format, path, Split::Train, labels, &dir), parts);
    };
    let samples = |name: &str, label: &str, content: &str| {
        tar(&dir, name, &[("0.png", &image), ("0.cls", b"1"), ("1.png", &image), (label, content.as_bytes())])
    };
    refused(Auto, samples("a.tar", "2.cls", "1"), Webdataset, &["1.png has no label, but others do", "data.labels"]);
    refused(
        Auto,
        samples("b.tar", "1.cls", "dog"),
        Webdataset,
        &["0.png has a number as label, but others have names"],
    );
    refused(Auto, samples("c.tar", "1.cls", "9999999"), Webdataset, &["1.png has the label 9999999", "below 1048576"]);
    let json = |name: &str, content: &str| tar(&dir, name, &[("0.png", &image), ("0.json", content.as_bytes())]);
    refused(Auto, json("d.tar", "{"), Webdataset, &["0.json is not valid JSON"]);
    refused(
        Auto,
        json("e.tar", "{\"label\": 1.5}"),
        Webdataset,
        &["0.json has 1.5 as label", "neither a class number"],
    );
    refused(field("breed"), json("f.tar", "{\"label\": 1}"), Webdataset, &["no sample has a member .breed"]);
    refused(Folder, json("g.tar", "{}"), Webdataset, &["classes come from folders, but 0 is not in one"]);
    let two = tar(&dir, "h.tar", &[("0.input.png", &image), ("0.target.png", &image)]);
    refused(Auto, two, Webdataset, &["the sample 0 has two images, 0.input.png and 0.target.png"]);
    let other = tar(&dir, "i.tar", &[("0.txt", b"words"), ("1.txt", b"words")]);
    refused(Auto, other, Webdataset, &["contains no image (but 2 .txt)"]);

    let listed = |name: &str, labels: &str| {
        zip(&dir, name, &[("0.png", &image), ("1.png", &image), ("dataset.json", labels.as_bytes())])
    };
    refused(Auto, listed("a.zip", "{\"labels\": [[\"0.png\", 1]]}"), Zip, &["dataset.json has no label for 1.png"]);
    refused(Auto, listed("b.zip", "{\"labels\": {\"0.png\": 1}}"), Zip, &["dataset.json is not of the form"]);
    refused(Auto, listed("c.zip", "{\"labels\": [[\"0.png\", [0, 1]]]}"), Zip, &["gives 0.png the label [0,1]"]);
    for (name, labels) in [("d.zip", "{\"labels\": null}"), ("e.zip", "{}")] {
        let source = shards(Zip, listed(name, labels), Split::Train, Auto, &dir).expect("no labels");
        assert_eq!((source.len(), source.classes()), (2, None));
    }
    refused(field("kid"), golden("plain.parquet"), Parquet, &["there is no column kid", "id, picture, kind"]);
    refused(field("id"), golden("parquet"), Parquet, &["there is no column id", "image, label"]);

    // Shards that do not go together.
    let mixed = tempdir().expect("temporary folder");
    tar(&mixed, "0.tar", &[("0.png", &image), ("0.cls", b"1")]);
    tar(&mixed, "1.tar", &[("0.png", &image), ("0.cls", b"dog")]);
    refused(Auto, mixed.path().into(), Webdataset, &["1.tar: its classes are not those of", "0.tar"]);
}

#[test]
fn damaged_records_are_skipped_if_allowed() {
    let dir = tempdir().expect("temporary folder");
    for (format, name, labels) in [
        (Zip, "edm.zip", Auto),
        (Zip, "folders.zip", Folder),
        (Webdataset, "samples-000.tar", Auto),
        (Parquet, "plain.parquet", field("kind")),
    ] {
        let mut bytes = fs::read(golden(name)).expect("golden");
        // In the first PNG, or in the first compressed page.
        let start = bytes.windows(4).position(|bytes| bytes == b"IHDR").unwrap_or(400);
        bytes[start + 60..start + 70].fill(0x55);
        let path = write(&dir, name, bytes);
        let cache = Some(dir.path().join("cache"));
        let kind = SourceKind::Shards(ShardSpec { format, path, split: Split::Train, labels, cache, cache_bytes: 0 });
        let opened = |on_corrupt| open(&DataSpec { on_corrupt, ..spec(kind.clone(), 16, 3) }).expect(name);
        let (strict, lenient) = (opened(OnCorrupt::Error), opened(OnCorrupt::Skip));
        let bad: Vec<u64> = (0..strict.len()).filter(|id| read(&*strict, *id).is_err()).collect();
        assert!(!bad.is_empty() && bad.len() < strict.len() as usize, "{name}: {bad:?}");
        for id in &bad {
            let refused = read(&*strict, *id);
            assert!(matches!(refused, Err(DataError::Image { .. })), "{name}");
            check_refused(refused, &[name, "data.on_corrupt = \"skip\""]);
        }
        let batch = preview(&*lenient, 0, lenient.len() as usize, 1).expect("others are whole");
        assert_eq!(batch.skipped, bad.len() as u64);
    }
}

#[test]
fn a_truncated_tar_is_refused_before_training() {
    let dir = tempdir().expect("temporary folder");
    let whole = fs::read(golden("samples-000.tar")).expect("golden");
    let path = write(&dir, "a.tar", &whole[..1900]);
    check_refused(shards(Webdataset, path, Split::Train, Auto, &dir), &["a.tar", "truncated", "ant/00.png"]);
    // Between two members, where only the missing end shows it.
    let image = png();
    let members = [("0.png", &image[..]), ("1.png", &image[..])];
    let whole = fs::read(tar(&dir, "b.tar", &members)).expect("written");
    for cut in [512 + 1024, 2 * (512 + 1024)] {
        let path = write(&dir, "b.tar", &whole[..cut]);
        let opened = shards(Webdataset, &path, Split::Train, Auto, &dir);
        check_refused(opened, &["b.tar", "truncated between two members", "truncate -s +1024"]);
        // As the message advises.
        fs::OpenOptions::new().write(true).open(&path).expect("file").set_len(cut as u64 + 1024).expect("longer");
        assert!(shards(Webdataset, &path, Split::Train, Auto, &dir).is_ok());
    }
    for (name, kind) in [("named.tar.gz", "gzip"), ("named.tar.zst", "zstd")] {
        let whole = fs::read(golden(name)).expect("golden");
        let path = write(&dir, name, &whole[..whole.len() / 2]);
        check_refused(shards(Webdataset, path, Split::Train, Auto, &dir), &[name, kind, "damaged", "fetch"]);
    }
    // What was begun is not taken for the whole.
    fs::copy(golden("named.tar.gz"), dir.path().join("named.tar.gz")).expect("copy");
    let source = shards(Webdataset, dir.path().join("named.tar.gz"), Split::Train, Auto, &dir).expect("whole");
    assert!(all(&*source) == expected());
}

#[test]
fn sizes_that_cannot_be_are_refused_before_memory_is_taken() {
    let dir = tempdir().expect("temporary folder");
    let mut bytes = fs::read(golden("edm.zip")).expect("golden");
    let directory = bytes.windows(4).position(|bytes| bytes == b"PK\x01\x02").expect("a directory");
    bytes[directory + 20..directory + 24].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    let opened = shards(Zip, write(&dir, "a.zip", bytes), Split::Train, Auto, &dir);
    check_refused(opened, &["a.zip: its directory is damaged", "would end beyond the file", "fetch it again"]);

    // A member of 300 MB in a file with holes.
    let path = tar(&dir, "b.tar", &[("0.png", &png())]);
    let mut bytes = fs::read(&path).expect("written");
    let mut header = tar::Header::new_gnu();
    header.set_path("1.png").expect("short");
    header.set_size(300 << 20);
    header.set_cksum();
    bytes.truncate(512 + 1024);
    bytes.extend_from_slice(header.as_bytes());
    let length = bytes.len() as u64 + (300 << 20) + 1024;
    fs::write(&path, bytes).expect("written");
    fs::OpenOptions::new().write(true).open(&path).expect("file").set_len(length).expect("sparse");
    let source = shards(Webdataset, &path, Split::Train, Auto, &dir).expect("complete");
    assert!(read(&*source, 0).is_ok());
    check_refused(read(&*source, 1), &["b.tar/1.png: this file is larger than any image of"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens to the bytes of a shard: it is refused, or its records are read or refused; nothing panics, and
    /// what is read of an intact record is right.
    #[test]
    fn no_damage_causes_a_panic(
        which in 0usize..7, at in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 1..16),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let (format, name, labels) = [
            (Parquet, "plain.parquet", field("kind")),
            (Parquet, "parquet/data/train-00000-of-00002.parquet", Auto),
            (Webdataset, "samples-000.tar", Auto),
            (Webdataset, "named.tar.gz", Auto),
            (Webdataset, "named.tar.zst", Auto),
            (Zip, "edm.zip", Auto),
            (Zip, "folders.zip", Folder),
        ][which].clone();
        let mut bytes = fs::read(golden(name)).expect("golden");
        let at = at.index(bytes.len());
        bytes[at..].iter_mut().zip(&noise).for_each(|(byte, noise)| *byte ^= noise);
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        let dir = tempdir().expect("temporary folder");
        let path = write(&dir, Path::new(name).file_name().and_then(|name| name.to_str()).expect("a name"), bytes);
        if let Ok(source) = shards(format, path, Split::Train, labels, &dir) {
            for id in 0..source.len() {
                let _ = read(&*source, id);
            }
        }
    }
}
