//! Folders of images: CelebA's layout, sub-folders, and files that are not what they say.

use std::path::Path;

use ddpm_data::{DataError, DataSpec, FolderLabels, OnCorrupt, SourceKind, Split, open};
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

fn smiling() -> FolderLabels {
    FolderLabels::Attribute("Smiling".into())
}

/// Six portraits of rising brightness: three to train, one to validate, two to test.
fn celeba(images: &str) -> TempDir {
    let dir = folder();
    for i in 1..=6u8 {
        write(&dir, &format!("{images}{i:06}.jpg"), portrait([40 * i; 3]));
    }
    let rows = ["-1  1", " 1 -1", "-1 -1", " 1  1", "-1  1", " 1 -1"];
    let rows: String = (1..).zip(rows).map(|(i, row)| format!("{i:06}.jpg {row}\n")).collect();
    write(&dir, "list_attr_celeba.txt", format!("6\nYoung Smiling \n{rows}"));
    let rows: String = (1..).zip([0, 0, 0, 1, 2, 2]).map(|(i, split)| format!("{i:06}.jpg {split}\n")).collect();
    write(&dir, "list_eval_partition.txt", rows);
    dir
}

#[test]
fn celeba_splits_and_attributes() {
    for images in ["img_align_celeba/", ""] {
        let dir = celeba(images);
        let cases: [(Split, &[(u8, u32)]); 3] =
            [(Split::Train, &[(1, 1), (2, 0), (3, 0)]), (Split::Valid, &[(4, 1)]), (Split::Test, &[(5, 1), (6, 0)])];
        for (split, expected) in cases {
            let source = source(kind(dir.path(), split, smiling()), 16, 3).expect("valid");
            assert_eq!((source.len(), source.classes()), (expected.len() as u64, Some(2)));
            for (id, (brightness, class)) in (0..).zip(expected) {
                let (image, label) = read(&*source, id).expect("valid");
                assert_eq!(label, Some(*class));
                assert!(image.iter().all(|v| v.abs_diff(40 * brightness) <= 2), "image {id} of {split}");
            }
        }
    }
}

#[test]
fn celeba_lists_that_do_not_fit_are_refused() {
    let dir = celeba("img_align_celeba/");
    let misspelt = FolderLabels::Attribute("smilling".into());
    check_refused(
        source(kind(dir.path(), Split::Train, misspelt), 16, 3),
        &["list_attr_celeba.txt", "'smilling'", "perhaps 'Smiling' is meant."],
    );
    write(&dir, "img_align_celeba/000007.jpg", portrait([9; 3]));
    check_refused(source(plain(dir.path()), 16, 3), &["000007.jpg", "not in list_eval_partition.txt"]);
    let spec = DataSpec { on_corrupt: OnCorrupt::Skip, ..spec(plain(dir.path()), 16, 3) };
    assert_eq!(open(&spec).expect("the stranger is left out").len(), 3);

    let whole = std::fs::read_to_string(dir.path().join("list_attr_celeba.txt")).expect("written above");
    for (text, parts) in [
        (whole.replace("6\nYoung", "7\nYoung"), ["promises 7 images", "6 follow"]),
        (whole.replace("000002.jpg  1 -1", "000002.jpg  1 2"), ["line 4", "2 times 1 or -1"]),
        (whole.replace("000002.jpg  1 -1", "000002.jpg  -1"), ["line 4", "2 times 1 or -1"]),
        (String::new(), ["line 1", "number of images"]),
    ] {
        write(&dir, "list_attr_celeba.txt", text);
        let refused = source(kind(dir.path(), Split::Train, smiling()), 16, 3);
        check_refused(refused, &["list_attr_celeba.txt", parts[0], parts[1]]);
    }
    write(&dir, "list_eval_partition.txt", "000001.jpg 0\n000002.jpg 3\n");
    check_refused(source(plain(dir.path()), 16, 3), &["list_eval_partition.txt", "line 2"]);
}

#[test]
fn without_a_list_there_is_no_test_split_and_no_attribute() {
    let dir = folder();
    write(&dir, "a.png", encode(GrayImage::new(8, 8), ImageFormat::Png));
    let test = kind(dir.path(), Split::Test, FolderLabels::None);
    check_refused(source(test, 8, 1), &["test split", "list_eval_partition.txt"]);
    check_refused(source(kind(dir.path(), Split::Train, smiling()), 8, 1), &["list_attr_celeba.txt"]);
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
    check_refused(source(classes, 10, 1), &["stray.png", "lies in none"]);
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
fn photographs_are_turned_upright() {
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
fn files_that_are_not_what_they_say_are_named() {
    let dir = folder();
    check_refused(source(plain(dir.path()), 8, 3), &["no .jpg, .jpeg or .png"]);
    check_refused(source(plain(&dir.path().join("absent")), 8, 3), &["absent", "cannot be read"]);
    let jpeg = portrait([1, 2, 3]);
    write(&dir, "a.jpg", "just some text");
    write(&dir, "b.jpg", &jpeg[..jpeg.len() / 2]);
    write(&dir, "c.png", bomb());
    write(&dir, "d.jpg", "");
    write(&dir, "e.jpg", encode(GrayImage::from_pixel(9, 9, image::Luma([7])), ImageFormat::Png));
    let source = source(plain(dir.path()), 8, 3).expect("decoded when read");
    for (id, parts) in
        [["a.jpg", "a text file"], ["b.jpg", "truncated"], ["c.png", "data.max_megapixels = 1"], ["d.jpg", "empty"]].iter().enumerate()
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
