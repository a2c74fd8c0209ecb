//! Other things in folders of images: links, pipes, unrelated files.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use ddpm_data::{DataError, FolderLabels, Source, SourceKind, Split, open};
use image::{GrayImage, ImageFormat};
use tempfile::{TempDir, tempdir};

use crate::pictures::encode;
use crate::{check_refused, pipe, read, spec, write};

fn png() -> Vec<u8> {
    encode(GrayImage::new(8, 8), ImageFormat::Png)
}

fn opened(root: &Path) -> Result<Arc<dyn Source>, DataError> {
    let kind = SourceKind::Folder { root: root.to_path_buf(), split: Split::Train, labels: FolderLabels::None };
    open(&spec(kind, 8, 1))
}

/// A folder with one image, and a link with this name and target.
fn folder_with_link(target: &str, name: &str) -> TempDir {
    let dir = tempdir().expect("temporary folder");
    write(&dir, "set/a.png", png());
    symlink(target, dir.path().join("set").join(name)).expect("a link");
    dir
}

#[test]
fn broken_and_circular_links_are_ignored() {
    let outside = tempdir().expect("temporary folder");
    write(&outside, "b.png", png());
    let outside = outside.path().to_str().expect("a plain name");
    let none: &[&str] = &[];
    let cases: &[(&str, &str, u64, &[&str])] = &[
        ("/nowhere/notes", "notes.txt", 1, &["broken links: notes.txt"]),
        ("/nowhere/folder", "folder", 1, &["broken links: folder"]),
        ("user@host.1234:5678", ".#notes.txt", 1, none),
        (".", "self", 1, &["not followed: self"]),
        ("..", "up", 1, &["not followed: up"]),
        ("/", "root", 1, &["not followed: root"]),
        ("loop", "loop", 1, &["broken links: loop"]),
        (outside, "linked", 2, none),
        ("a.png", "again.png", 2, none),
        ("/dev/null", "device.png", 1, &["neither files nor folders, ignored: device.png"]),
    ];
    for (target, name, images, expected) in cases {
        let dir = folder_with_link(target, name);
        let source = opened(&dir.path().join("set")).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(source.len(), *images, "{name}");
        let warnings = source.findings().warnings;
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        assert!(warnings.iter().zip(*expected).all(|(warning, part)| warning.contains(part)), "{warnings:?}");
    }
}

#[test]
fn a_broken_link_named_like_an_image_is_an_unusable_image() {
    for (target, what) in [("/nowhere/gone.png", "is broken"), ("gone.png", "is circular")] {
        let dir = folder_with_link(target, "gone.png");
        let source = opened(&dir.path().join("set")).expect("valid");
        assert_eq!(source.len(), 2);
        read(&*source, 0).expect("a.png is valid");
        let refused = read(&*source, 1);
        assert!(matches!(refused, Err(DataError::Image { .. })));
        check_refused(refused, &["gone.png", what, "data.on_corrupt = \"skip\""]);
        let warnings = source.findings().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("broken links: gone.png"), "{warnings:?}");
    }
}

#[test]
fn pipes_are_not_opened_and_folders_named_like_images_are_folders() {
    let dir = tempdir().expect("temporary folder");
    write(&dir, "dir.png/b.png", png());
    pipe(&dir, "pipe.png");
    pipe(&dir, "pipe");
    let source = opened(dir.path()).expect("valid");
    assert_eq!(source.len(), 1);
    let warnings = source.findings().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("ignored: pipe.png"), "{warnings:?}");
}

#[test]
fn other_files_are_counted_by_extension() {
    let dir = tempdir().expect("temporary folder");
    for name in ["a.png", "b.JPG", "c.jfif", "d.jpe", ".hidden.webp", ".cache/e.webp", "__MACOSX/f.webp"] {
        write(&dir, name, png());
    }
    for name in ["1.avif", "2.AVIF", "deep/3.avif", "4.tga", "5.jxl", "README", "6.tar.gz"] {
        write(&dir, name, "");
    }
    let source = opened(dir.path()).expect("valid");
    assert_eq!(source.len(), 4);
    let others = source.findings().ignored;
    let counts: Vec<(&str, u64)> = others.0.iter().map(|(ending, count)| (ending.as_str(), *count)).collect();
    assert_eq!(counts, [("", 1), ("avif", 3), ("gz", 1), ("jxl", 1), ("tga", 1)]);
    assert_eq!(others.to_string(), "3 .avif, 1 without extension, 1 .gz, 1 .jxl, 1 .tga");

    let dir = tempdir().expect("temporary folder");
    write(&dir, "1.avif", "");
    check_refused(opened(dir.path()), &["no image, such as a .jpg or .png file", "ignored: 1 .avif", "data.path"]);
}
