//! IDX files, valid and damaged.

use std::io::Write;
use std::path::{Path, PathBuf};

use ddpm_data::{DataError, DataSpec, IdxLabels, SourceKind, Split, open};
use flate2::{Compression, write::GzEncoder};
use tempfile::{TempDir, tempdir};

use crate::{check_refused, read, source, spec, write};

/// Header and payload of an IDX file of bytes.
fn idx(dims: &[u32], payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|dim| file.extend(dim.to_be_bytes()));
    file.extend(payload);
    file
}

/// Three images of 28x28; pixel `i` of image `k` is `(i + k) mod 251 + 1`, so none is 0.
fn images() -> Vec<u8> {
    let payload: Vec<u8> = (0..3).flat_map(|k| (0..784).map(move |i| ((i + k) % 251 + 1) as u8)).collect();
    idx(&[3, 28, 28], &payload)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("to memory");
    encoder.finish().expect("to memory")
}

fn kind(images: &Path, labels: Option<PathBuf>) -> SourceKind {
    let labels = labels.map_or(IdxLabels::Beside, IdxLabels::At);
    SourceKind::Idx { images: images.to_path_buf(), labels, split: Split::Train }
}

fn folder() -> TempDir {
    tempdir().expect("temporary folder")
}

#[test]
fn images_are_padded_into_the_middle_and_replicated() {
    let dir = folder();
    let path = write(&dir, "some-images", images());
    for channels in [1, 3] {
        let source = source(kind(&path, None), 32, channels).expect("valid");
        assert_eq!((source.len(), source.classes()), (3, None));
        let (image, class) = read(&*source, 2).expect("valid");
        assert_eq!(class, None);
        for (i, value) in image.iter().enumerate() {
            let (y, x) = (i / 32 % 32, i % 32);
            let inside = (2..30).contains(&y) && (2..30).contains(&x);
            let expected = if inside { (((y - 2) * 28 + x - 2 + 2) % 251 + 1) as u8 } else { 0 };
            assert_eq!(*value, expected, "row {y}, column {x}");
        }
    }
}

#[test]
fn larger_images_are_scaled_down_and_crops_respected() {
    let dir = folder();
    // Left half black, right half white.
    let payload: Vec<u8> = (0..28 * 28).map(|i| if i % 28 < 14 { 0 } else { 255 }).collect();
    let path = write(&dir, "images", idx(&[1, 28, 28], &payload));
    let small = source(kind(&path, None), 14, 1).expect("valid");
    let (image, _) = read(&*small, 0).expect("valid");
    assert!(image.iter().enumerate().all(|(i, v)| if i % 14 < 5 { *v < 8 } else { i % 14 < 9 || *v > 247 }));

    let spec = |crop| DataSpec { crop: Some(crop), ..spec(kind(&path, None), 12, 1) };
    let (image, _) = read(&*open(&spec(8)).expect("valid"), 0).expect("valid");
    let row = [0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0];
    assert_eq!(image[5 * 12..6 * 12], row);
    assert_eq!(image[..24], [0; 24]);
    check_refused(open(&spec(29)), &["28x28", "data.crop = 29"]);
}

#[test]
fn a_folder_is_searched_for_the_standard_names() {
    for (split, prefix) in [(Split::Train, "train"), (Split::Test, "t10k")] {
        for (dash, end) in [("-", ""), ("-", ".gz"), (".", ""), (".", ".gz")] {
            let dir = folder();
            let pack = |bytes: Vec<u8>| if end.is_empty() { bytes } else { gz(&bytes) };
            write(&dir, &format!("{prefix}-images{dash}idx3-ubyte{end}"), pack(images()));
            write(&dir, &format!("{prefix}-labels{dash}idx1-ubyte{end}"), pack(idx(&[3], &[4, 9, 0])));
            let kind = SourceKind::Idx { images: dir.path().to_path_buf(), labels: IdxLabels::Beside, split };
            let source = source(kind, 28, 1).expect("valid");
            assert_eq!((source.len(), source.classes()), (3, Some(10)));
            assert_eq!(read(&*source, 1).expect("valid").1, Some(9));
        }
    }
    let dir = folder();
    check_refused(source(kind(dir.path(), None), 28, 1), &["train-images-idx3-ubyte"]);
    // As unpacked from Kaggle's archives.
    write(&dir, "train-images-idx3-ubyte/train-images-idx3-ubyte", images());
    write(&dir, "train-labels-idx1-ubyte/train-labels-idx1-ubyte", idx(&[3], &[4, 9, 0]));
    assert_eq!(source(kind(dir.path(), None), 28, 1).expect("valid").classes(), Some(10));
}

#[test]
fn trailing_bytes_after_a_gzip_stream_are_ignored() {
    let dir = folder();
    let whole = images();
    let plain = write(&dir, "plain", &whole);
    let expected = read(&*source(kind(&plain, None), 28, 1).expect("valid"), 2).expect("valid");
    let (head, tail) = whole.split_at(1000);
    let cases: [(&str, Vec<u8>); 6] = [
        ("zeros", [&gz(&whole)[..], &[0; 512]].concat()),
        ("one zero", [&gz(&whole)[..], &[0]].concat()),
        ("line end", [&gz(&whole)[..], b"\r\n"].concat()),
        ("page", [&gz(&whole)[..], b"<html>"].concat()),
        ("two members", [gz(head), gz(tail)].concat()),
        ("empty members", [gz(b""), gz(head), gz(b""), gz(tail), gz(b""), vec![0; 5]].concat()),
    ];
    for (name, bytes) in cases {
        let path = write(&dir, name, bytes);
        let found = source(kind(&path, None), 28, 1).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((found.len(), read(&*found, 2).expect("valid")), (3, expected.clone()), "{name}");
    }
}

#[test]
fn damaged_files_are_refused_by_name() {
    let dir = folder();
    let whole = images();
    let labels = write(&dir, "labels", idx(&[2], &[1, 2]));
    let mut damaged = gz(&whole);
    let last = damaged.len() - 6;
    damaged[last] ^= 1;
    let cases: [(&str, Vec<u8>, &[&str]); 12] = [
        ("missing payload", whole[..whole.len() - 1].to_vec(), &["announces 2352 bytes but only 2351"]),
        ("missing header", whole[..9].to_vec(), &["ends early"]),
        ("empty", Vec::new(), &["ends early"]),
        ("trailing", [&whole[..], b"x"].concat(), &["longer than the 2352 bytes"]),
        ("labels as images", idx(&[3], &[0, 1, 2]), &["0x00000803", "0x00000801"]),
        ("page", b"<!DOCTYPE html><html>403".to_vec(), &["this is a web page", "not an IDX file; download it again"]),
        ("table", b"label,1x1,1x2\n5,0,0\n".to_vec(), &["this is a text file, not an IDX file"]),
        ("no images", idx(&[0, 28, 28], &[]), &["0 images"]),
        ("absurd", idx(&[u32::MAX, u32::MAX, u32::MAX], &[]), &["more than can exist"]),
        ("truncated gzip", gz(&whole)[..200].to_vec(), &["truncated"]),
        ("damaged gzip", damaged, &["gzip stream is damaged"]),
        ("second member cut", [&gz(&whole)[..], &gz(&whole)[..10]].concat(), &["truncated"]),
    ];
    for (name, bytes, parts) in cases {
        let path = write(&dir, name, bytes);
        let parts = [&[name][..], parts].concat();
        check_refused(source(kind(&path, None), 28, 1), &parts);
    }
    let path = write(&dir, "images", whole);
    check_refused(source(kind(&path, Some(labels)), 28, 1), &["labels", "2 labels for the 3 images"]);
    check_refused(source(kind(&dir.path().join("absent"), None), 28, 1), &["absent", "cannot be read"]);
}

#[test]
fn wrong_requests_and_settings_are_refused() {
    let dir = folder();
    let path = write(&dir, "images", images());
    let source_28 = source(kind(&path, None), 28, 1).expect("valid");
    assert!(matches!(source_28.read(3, &mut [0; 784]), Err(DataError::Request { id: 3, len: 3, .. })));
    assert!(matches!(source_28.read(0, &mut [0; 783]), Err(DataError::Request { buffer: 783, .. })));
    check_refused(source(kind(&path, None), 28, 2), &["image.channels = 2"]);
    check_refused(source(kind(&path, None), 0, 1), &["image.height = 0"]);
    let valid = SourceKind::Idx { images: dir.path().to_path_buf(), labels: IdxLabels::Beside, split: Split::Valid };
    check_refused(source(valid, 28, 1), &["no valid split"]);
}

#[test]
fn unneeded_labels_are_not_read() {
    for labels in [Vec::new(), b"not labels".to_vec(), idx(&[2], &[0, 1])] {
        let dir = folder();
        write(&dir, "train-images-idx3-ubyte", images());
        write(&dir, "train-labels-idx1-ubyte", labels);
        check_refused(source(kind(dir.path(), None), 28, 1), &["train-labels-idx1-ubyte"]);
        let without = SourceKind::Idx { images: dir.path().into(), labels: IdxLabels::None, split: Split::Train };
        let source = source(without, 28, 1).expect("valid");
        assert_eq!((source.len(), source.classes(), source.class_table().len()), (3, None, 0));
        assert_eq!(read(&*source, 0).expect("valid").1, None);
    }
}

#[test]
fn labels_are_counted() {
    let dir = folder();
    write(&dir, "train-images-idx3-ubyte", images());
    write(&dir, "train-labels-idx1-ubyte", idx(&[3], &[2, 0, 2]));
    let source = source(kind(dir.path(), None), 28, 1).expect("valid");
    let phrases: Vec<_> = ddpm_data::class_phrases(&source.class_table()).collect();
    assert_eq!(phrases, ["0: 1", "1: 0", "2: 2"]);
}

#[test]
fn a_pipe_is_refused_rather_than_opened() {
    let dir = folder();
    let pipe = crate::pipe(&dir, "images");
    check_refused(source(kind(&pipe, None), 28, 1), &["images", "neither a file nor a folder"]);
}
