//! Files named like images: recognising what they are, damaged PNG files, and the size limit.

use std::path::PathBuf;

use ddpm_data::{DataSpec, FolderLabels, SourceKind, Split, open};
use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, RgbImage};
use tempfile::tempdir;

use crate::pictures::{encode, photo};
use crate::{check_refused, read, source, spec, write};

fn images_in(root: PathBuf) -> SourceKind {
    SourceKind::Folder { root, split: Split::Train, labels: FolderLabels::None }
}

#[test]
fn files_that_are_not_images_are_identified() {
    let cases: [(&[u8], &str); 26] = [
        (b"", "this file is empty."),
        (&[0; 3000], "nothing but zeros"),
        (b"\x89", "truncated: the file has 1 bytes"),
        (b"\xff\xd8", "truncated: the file has 2 bytes"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "this WebP is truncated"),
        (b"GIF89a\x10\0\x10\0", "this GIF is"),
        (b"BM\x36\x30\0\0\0\0\0\0", "this BMP is truncated"),
        (b"II*\0\x08\0\0\0", "this TIFF is truncated"),
        (b"MM\0*\0\0\0\x08", "this TIFF is truncated"),
        (b"P6\n64 64\n255\n", "a PNM image"),
        (
            b"\0\0\0\x1cftypavif\0\0\0\0",
            "an AVIF image, which `avifdec` converts to PNG; only JPEG, PNG, WebP, GIF, BMP and TIFF images and NumPy",
        ),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "a HEIC image"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"8BPS\0\x01", "a Photoshop document"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PK\x03\x04\x14\0", "a ZIP archive"),
        (b"\0\x05\x16\x07\0\x02\0\0", "a macOS metadata file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"\r\n<!DOCTYPE html><html>404</html>", "a web page"),
        (b"<?xml version=\"1.0\"?><svg width=\"9\"/>", "an SVG drawing"),
        ("des mots, entre guillemets: «é»".as_bytes(), "a text file"),
        (b"\n\xff\xd8\xff\xe0", "not an image of a known kind: it starts with the bytes 0a ff d8 ff;"),
        (b"\x01\x02", "it starts with the bytes 01 02;"),
    ];
    for (bytes, phrase) in cases {
        let dir = tempdir().expect("temporary folder");
        write(&dir, "a.jpg", bytes);
        check_refused(read(&*source(images_in(dir.path().into()), 8, 3).expect("one file"), 0), &["a.jpg", phrase]);
    }
}

#[test]
fn damaged_png_files_are_refused_and_intact_ones_read() {
    let whole = encode(photo(32, 32, 1), ImageFormat::Png);
    let mut checksum = whole.clone();
    // The last four bytes of the last IDAT chunk, before the twelve of IEND.
    checksum[whole.len() - 16] ^= 1;
    let mut hole = whole.clone();
    hole[whole.len() / 2..][..100].fill(0);
    let in_header = |chunk: &[u8]| [&whole[..33], chunk, &whole[33..]].concat();
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("as it is", whole.clone(), ""),
        ("cut in the middle", whole[..whole.len() / 2].to_vec(), "this PNG is truncated."),
        ("cut in the last chunk of pixels", whole[..whole.len() - 20].to_vec(), "this PNG is truncated."),
        ("a wrong checksum", checksum, "this PNG is damaged (CRC error: "),
        ("a hole of zeros", hole, "this PNG is damaged ("),
        (
            "bytes missing",
            [&whole[..whole.len() / 2], &whole[whole.len() / 2 + 50..]].concat(),
            "this PNG is damaged (",
        ),
        ("no end", whole[..whole.len() - 12].to_vec(), ""),
        ("bytes behind", [&whole[..], b"hello"].concat(), ""),
        ("a wrong checksum of a comment", in_header(b"\0\0\0\x03tEXta\0b\0\0\0\x01"), ""),
    ];
    let pixels = |file: &[u8]| {
        let dir = tempdir().expect("temporary folder");
        write(&dir, "a.png", file);
        read(&*source(images_in(dir.path().into()), 32, 3).expect("one file"), 0)
    };
    let expected = pixels(&whole).expect("whole");
    for (name, file, fault) in cases {
        match pixels(&file) {
            Ok(found) => assert!(fault.is_empty() && found == expected, "{name}"),
            Err(error) => assert!(!fault.is_empty() && error.to_string().contains(fault), "{name}: {error}"),
        }
    }
}

#[test]
fn sixteen_bit_values_are_rounded_to_bytes() {
    let dir = tempdir().expect("temporary folder");
    let deep = ImageBuffer::from_fn(8, 8, |x, y| Luma([(x + 8 * y) as u16 * 1027]));
    write(&dir, "a.png", encode(DynamicImage::ImageLuma16(deep), ImageFormat::Png));
    let (found, _) = read(&*source(images_in(dir.path().into()), 8, 1).expect("one file"), 0).expect("whole");
    let expected: Vec<u8> = (0..64).map(|i| (f64::from(i * 1027) / 257.0).round() as u8).collect();
    assert_eq!(found, expected);
}

#[test]
fn images_above_the_size_limit_are_refused() {
    let dir = tempdir().expect("temporary folder");
    write(&dir, "a.jpg", encode(GrayImage::new(1000, 50), ImageFormat::Jpeg));
    write(&dir, "b.png", encode(RgbImage::new(50, 1000), ImageFormat::Png));
    // A panorama, longer than an earlier limit on the side.
    write(&dir, "c.jpg", encode(GrayImage::new(20_000, 2), ImageFormat::Jpeg));
    let limited =
        |max_pixels| open(&DataSpec { max_pixels, ..spec(images_in(dir.path().into()), 2, 3) }).expect("three files");
    let (enough, short) = (limited(50_000), limited(49_999));
    for id in 0..3 {
        assert_eq!(read(&*enough, id).expect("within the limit").0, [0; 12]);
    }
    check_refused(read(&*short, 0), &["a.jpg", "1000x50", "data.max_megapixels"]);
    check_refused(read(&*short, 1), &["b.png", "50x1000", "data.max_megapixels"]);
    assert!(read(&*short, 2).is_ok());
}
