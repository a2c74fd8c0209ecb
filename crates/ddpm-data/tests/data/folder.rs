//! Folders of images: sub-folders as classes, conversions, and misnamed files.

use std::path::Path;

use ddpm_data::{DataError, DataSpec, FolderLabels, SourceKind, Split, open};
use image::{GrayImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use tempfile::{TempDir, tempdir};

use crate::pictures::encode;
use crate::{check_refused, read, source, spec, write};

/// A JPEG of CelebA's size in one colour.
fn portrait(colour: [u8; 3]) -> Vec<u8> {
    encode(RgbImage::from_pixel(178, 218, Rgb(colour)), ImageFormat::Jpeg)
}

fn folder() -> TempDir {
    tempdir().expect("temporary folder")
}

fn kind(root: &Path, split: Split, labels: FolderLabels) -> SourceKind {
    SourceKind::Folder { root: root.to_path_buf(), split, labels }
}

fn plain(root: &Path) -> SourceKind {
    kind(root, Split::Train, FolderLabels::None)
}

#[test]
fn sub_folders_are_classes_in_sorted_order() {
    let dir = folder();
    for (name, grey) in [("zebra/b.JPG", 200), ("ant/x/deep.png", 10), ("zebra/a.jpeg", 100), ("cat/c.png", 50)] {
        let format = if name.ends_with("png") { ImageFormat::Png } else { ImageFormat::Jpeg };
        write(&dir, name, encode(GrayImage::from_pixel(20, 20, image::Luma([grey])), format));
    }
    write(&dir, "cat/notes.txt", "not an image");
    write(&dir, "cat/._c.png", "what macOS leaves behind");
    let classes = kind(dir.path(), Split::Train, FolderLabels::SubFolder);
    let found = source(classes.clone(), 10, 1).expect("valid");
    assert_eq!((found.len(), found.classes()), (4, Some(3)));
    for (id, (grey, class)) in (0..).zip([(10, 0), (50, 1), (100, 2), (200, 2)]) {
        let (image, label) = read(&*found, id).expect("valid");
        assert_eq!((image[55].abs_diff(grey) <= 2, label), (true, Some(class)));
    }
    write(&dir, "stray.png", encode(GrayImage::new(8, 8), ImageFormat::Png));
    check_refused(source(classes, 10, 1), &["stray.png", "is not in one"]);
}

#[test]
fn folders_without_images_keep_their_numbers() {
    let dir = folder();
    let png = encode(GrayImage::new(8, 8), ImageFormat::Png);
    for name in ["a/1.png", "a/2.png", "c/1.avif", "d/deep/1.png", "e/1.png"] {
        write(&dir, name, &png);
    }
    std::fs::create_dir(dir.path().join("b")).expect("temporary folder");
    // A folder on a disk that is not mounted, and folders that are not meant as classes.
    std::os::unix::fs::symlink("/nowhere/f", dir.path().join("f")).expect("temporary folder");
    for name in [".git/1.png", "__MACOSX/a/._1.png", "lost+found/1.png", "@eaDir/1.png"] {
        write(&dir, name, &png);
    }
    assert_eq!(ddpm_data::class_folders(dir.path()).expect("valid"), ["a", "b", "c", "d", "e", "f"]);
    let found = source(kind(dir.path(), Split::Train, FolderLabels::SubFolder), 8, 1).expect("valid");
    let table: Vec<_> = found.class_table().into_iter().map(|class| (class.name, class.images)).collect();
    assert_eq!(table, [("a", 2), ("b", 0), ("c", 0), ("d", 1), ("e", 1), ("f", 0)].map(|(name, n)| (name.into(), n)));
    assert_eq!((found.len(), found.classes()), (4, Some(6)));
    let labels: Vec<_> = (0..4).map(|id| read(&*found, id).expect("valid").1).collect();
    assert_eq!(labels, [0, 0, 3, 4].map(Some));
    let phrases: Vec<_> = ddpm_data::class_phrases(&found.class_table()).collect();
    assert_eq!(phrases[..2], ["0 a: 2", "1 b: 0"]);
    let warnings = found.findings().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("1 (b), 2 (c), 5 (f)")), "{warnings:?}");
}

#[test]
fn a_thousand_folders_are_a_thousand_classes() {
    let dir = folder();
    let png = encode(GrayImage::new(1, 1), ImageFormat::Png);
    for class in 0..1000 {
        write(&dir, &format!("{class:04}/a.png"), &png);
    }
    let found = source(kind(dir.path(), Split::Train, FolderLabels::SubFolder), 1, 1).expect("valid");
    assert_eq!(found.classes(), Some(1000));
    assert!((0..1000).all(|id| read(&*found, id).expect("valid").1 == Some(id as u32)));
}

#[test]
fn misleading_names_cause_warnings() {
    let png = encode(GrayImage::new(8, 8), ImageFormat::Png);
    for (names, labels, warning) in [
        (["2/a.png", "10/a.png", "9/a.png"], FolderLabels::SubFolder, "folder 10 is class 0"),
        (
            ["train/cat/a.png", "test/cat/a.png", "x/a.png"],
            FolderLabels::None,
            "the images in test, train are all used",
        ),
    ] {
        let dir = folder();
        names.iter().for_each(|name| drop(write(&dir, name, &png)));
        let warnings = source(kind(dir.path(), Split::Train, labels), 8, 1).expect("valid").findings().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(warning), "{warnings:?}");
    }
    let dir = folder();
    ["02/a.png", "10/a.png"].iter().for_each(|name| drop(write(&dir, name, &png)));
    let found = source(kind(dir.path(), Split::Train, FolderLabels::SubFolder), 8, 1).expect("valid");
    assert_eq!(found.findings().warnings, [""; 0]);
}

#[test]
fn the_fingerprint_covers_names_and_classes() {
    let png = encode(GrayImage::new(8, 8), ImageFormat::Png);
    let opened = |names: &[&str], labels: FolderLabels| {
        let dir = folder();
        names.iter().for_each(|name| drop(write(&dir, name, &png)));
        source(kind(dir.path(), Split::Train, labels), 8, 1).expect("valid").fingerprint()
    };
    let names = ["a/1.png", "b/2.png"];
    let plain = opened(&names, FolderLabels::None);
    assert_eq!(plain, opened(&names, FolderLabels::None), "in another location");
    assert_eq!(plain, opened(&["a/1.jpg", "b/2.png"], FolderLabels::None), "stored as another format");
    for (names, labels) in [
        (&names[..], FolderLabels::SubFolder),
        (&["a/1.png", "b/3.png"], FolderLabels::None),
        (&["a/1.png", "c/2.png"], FolderLabels::None),
        (&["a/1.png", "b/2.png", "c/1.png"], FolderLabels::None),
    ] {
        assert_ne!(plain, opened(names, labels), "{names:?}");
    }
    let classes = opened(&names, FolderLabels::SubFolder);
    assert_ne!(classes, opened(&["a/1.png", "aa/x.avif", "b/2.png"], FolderLabels::SubFolder), "other classes");
}

#[test]
fn the_centred_square_is_cut_out() {
    let dir = folder();
    // 178x218: green inside the centred square of 140, red in what only a square of 178 reaches, blue beyond.
    let image = RgbImage::from_fn(178, 218, |x, y| {
        let inside = |left, top, side| (left..left + side).contains(&x) && (top..top + side).contains(&y);
        Rgb(if inside(19, 39, 140) {
            [0, 255, 0]
        } else if inside(0, 20, 178) {
            [255, 0, 0]
        } else {
            [0, 0, 255]
        })
    });
    write(&dir, "a.png", encode(image, ImageFormat::Png));
    let spec = |crop| DataSpec { crop, ..spec(plain(dir.path()), 64, 3) };
    let (tight, _) = read(&*open(&spec(Some(140))).expect("valid"), 0).expect("valid");
    let planes: Vec<_> = tight.chunks_exact(64 * 64).collect();
    assert!(planes[1].iter().all(|v| *v == 255) && planes[0].iter().chain(planes[2]).all(|v| *v == 0));
    let (wide, _) = read(&*open(&spec(None)).expect("valid"), 0).expect("valid");
    assert_eq!((wide[0], wide[64 * 64], wide[2 * 64 * 64]), (255, 0, 0), "red corner");
    assert!(wide[2 * 64 * 64..].iter().all(|v| *v == 0), "no blue");
    let large = open(&spec(Some(200))).expect("found when read");
    check_refused(read(&*large, 0), &["a.png", "178x218", "data.crop = 200"]);
}

#[test]
fn colour_grey_and_alpha_are_converted() {
    let dir = folder();
    write(&dir, "a.png", encode(GrayImage::from_pixel(8, 8, image::Luma([90])), ImageFormat::Png));
    write(&dir, "b.png", encode(RgbaImage::from_pixel(8, 8, Rgba([200, 100, 50, 51])), ImageFormat::Png));
    write(&dir, "c.png", encode(RgbImage::from_pixel(4, 4, Rgb([0, 255, 0])), ImageFormat::Png));
    let colour = source(plain(dir.path()), 8, 3).expect("valid");
    let grey = source(plain(dir.path()), 8, 1).expect("valid");
    assert!(read(&*colour, 0).expect("valid").0.iter().all(|v| *v == 90));
    let (over_black, _) = read(&*colour, 1).expect("valid");
    assert_eq!([over_black[0], over_black[64], over_black[128]], [40, 20, 10]);
    let (luma, _) = read(&*grey, 2).expect("scaled up");
    assert!(luma.iter().all(|v| *v == 150), "the weight of green is 0.587: {}", luma[0]);
}

#[test]
fn photographs_are_rotated_upright() {
    // A little-endian TIFF directory with one entry: orientation 6, to be turned by 90 degrees clockwise.
    let exif = b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let left_white = GrayImage::from_fn(16, 16, |x, _| image::Luma([if x < 8 { 255 } else { 0 }]));
    let jpeg = encode(left_white, ImageFormat::Jpeg);
    let dir = folder();
    write(&dir, "a.jpg", [&jpeg[..2], exif, &jpeg[2..]].concat());
    let (image, _) = read(&*source(plain(dir.path()), 16, 1).expect("valid"), 0).expect("valid");
    assert!(image[..128].iter().all(|v| *v > 250) && image[128..].iter().all(|v| *v < 5), "the top is white");
}

#[test]
fn misnamed_files_are_reported() {
    let dir = folder();
    check_refused(source(plain(dir.path()), 8, 3), &["no image, such as a .jpg or .png file"]);
    check_refused(source(plain(&dir.path().join("absent")), 8, 3), &["absent", "cannot be read"]);
    let jpeg = portrait([1, 2, 3]);
    write(&dir, "a.jpg", "just some text");
    write(&dir, "b.jpg", &jpeg[..jpeg.len() / 2]);
    write(&dir, "c.png", bomb());
    write(&dir, "d.jpg", "");
    write(&dir, "e.jpg", encode(GrayImage::from_pixel(9, 9, image::Luma([7])), ImageFormat::Png));
    let source = source(plain(dir.path()), 8, 3).expect("decoded when read");
    for (id, parts) in
        [["a.jpg", "a text file"], ["b.jpg", "truncated"], ["c.png", "data.max_megapixels = 1"], ["d.jpg", "empty"]]
            .iter()
            .enumerate()
    {
        let result = read(&*source, id as u64);
        assert!(matches!(result, Err(DataError::Image { .. })));
        check_refused(result, parts);
    }
    assert_eq!(read(&*source, 4).expect("a PNG by any name").0, [7; 3 * 64]);
}

/// A PNG of a hundred bytes that claims 60000x60000 pixels.
fn bomb() -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&60000u32.to_be_bytes()[..], &60000u32.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (name, data) in [(b"IHDR", &header[..]), (b"IDAT", &[0x78, 0x9c, 3, 0, 0, 0, 0, 1]), (b"IEND", &[])] {
        let mut crc = flate2::Crc::new();
        crc.update(name);
        crc.update(data);
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(name);
        file.extend(data);
        file.extend(crc.sum().to_be_bytes());
    }
    file
}
