//! Images that cannot be read.

use std::fs;
use std::path::Path;

use ddpm_data::Order;
use image::{GrayImage, Luma, Rgb, RgbImage};
use tempfile::TempDir;

use super::runs::manifest;
use super::{PLAIN, check, fault, text};
use crate::common::{mpirun, program, run, succeed};

/// An IDX file with this header and `len` bytes after it.
pub fn idx(path: &Path, magic: u32, dims: &[u32], len: usize) {
    let header = [&[magic], dims].concat().into_iter().flat_map(u32::to_be_bytes);
    fs::write(path, header.chain(vec![0; len]).collect::<Vec<u8>>()).unwrap();
}

/// A PNG file whose data does not have the size in its header.
fn png(path: &Path, width: u32, height: u32) {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    };
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let named = [name.as_slice(), body].concat();
        [&(body.len() as u32).to_be_bytes(), named.as_slice(), &crc(&named).to_be_bytes()].concat()
    };
    let header = [&width.to_be_bytes(), &height.to_be_bytes(), [8, 2, 0, 0, 0].as_slice()].concat();
    let file = [b"\x89PNG\r\n\x1a\n".as_slice(), &chunk(b"IHDR", &header), &chunk(b"IDAT", &[]), &chunk(b"IEND", &[])];
    fs::write(path, file.concat()).unwrap();
}

/// A JPEG of a grey image.
fn jpeg(image: &GrayImage) -> Vec<u8> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let image = turbojpeg::Image {
        pixels: image.as_raw().as_slice(),
        width,
        pitch: width,
        height,
        format: turbojpeg::PixelFormat::GRAY,
    };
    turbojpeg::compress(image, 75, turbojpeg::Subsamp::Gray).unwrap().to_vec()
}

/// `count` small JPEG files, `00.jpg` and so on.
pub fn pictures(folder: &Path, count: u32) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..count {
        let image = GrayImage::from_fn(32, 32, |x, y| Luma([(x * y + 7 * i) as u8]));
        fs::write(folder.join(format!("{i:02}.jpg")), jpeg(&image)).unwrap();
    }
}

/// A JPEG with a hole in the middle, which decoders fill with grey.
fn damaged() -> Vec<u8> {
    let mut bytes = jpeg(&GrayImage::from_fn(64, 64, |x, y| Luma([(x * x + 3 * y * y) as u8])));
    let middle = bytes.len() / 2;
    bytes[middle..middle + 300].fill(0);
    bytes
}

/// Cuts off the second half of a file, and returns its original content.
pub fn truncate(path: &Path) -> Vec<u8> {
    let whole = fs::read(path).unwrap();
    fs::write(path, &whole[..whole.len() / 2]).unwrap();
    whole
}

#[test]
fn data() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    idx(&at("images"), 0x803, &[8, 16, 16], 8 * 256);
    idx(&at("seven"), 0x801, &[7], 7);
    idx(&at("short"), 0x803, &[8, 16, 16], 8 * 256 - 5);
    idx(&at("vast"), 0x803, &[u32::MAX; 3], 0);
    for folder in ["empty", "text", "bomb", "wide", "damaged", "cut", "garbled", "loose", "celeba/img_align_celeba"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::write(at("text/notes.png"), "words, not pixels").unwrap();
    png(&at("bomb/a.png"), 16_000, 16_000);
    png(&at("wide/a.png"), 1_000_000, 300);
    fs::write(at("damaged/00.jpg"), damaged()).unwrap();
    for folder in ["cut", "garbled", "loose", "celeba/img_align_celeba"] {
        pictures(&at(folder), 1);
    }
    truncate(&at("cut/00.jpg"));
    let mut bytes = fs::read(at("garbled/00.jpg")).unwrap();
    let last = bytes.len() - 2;
    bytes[20..last].fill(0);
    fs::write(at("garbled/00.jpg"), bytes).unwrap();
    fs::write(at("celeba/list_attr_celeba.txt"), "1\nSmiling Young\n00.jpg 1 -1\n").unwrap();

    let cases = [
        ("data.path=DIR/absent", 4, "absent: cannot be read (No such file", "Check that the path is correct"),
        ("data.path=DIR/empty", 4, "contains no train-images-idx3-ubyte", "scripts/datasets.sh"),
        ("data.path=DIR/short", 4, "announces 2048 bytes but only 2043", "download it again"),
        ("data.path=DIR/vast", 4, "more than can exist", "download the file again"),
        ("data.path=DIR/seven", 4, "starts with 0x00000803, this one with 0x00000801", "give the file of images"),
        ("data.path=DIR/images --set data.labels=DIR/seven", 4, "7 labels for the 8 images", "the same split"),
        ("data.path=DIR/images --set model.classes=10", 2, "carries no labels", "set data.labels"),
        ("data.path=DIR/images --set data.crop=20", 4, "smaller than data.crop = 20", "lower data.crop"),
    ];
    check(dir.path(), "data info --config smoke --set data.kind=idx --set", &cases);
    let cases = [
        ("data.path=DIR/absent", 4, "absent: cannot be read (No such file", "Check that the path is correct"),
        ("data.path=DIR/empty", 4, "no image, such as a .jpg or .png file", "point data.path at"),
        ("data.path=DIR/cut", 4, "00.jpg: this JPEG is truncated", "data.on_corrupt = \"skip\""),
        ("data.path=DIR/garbled", 4, "00.jpg: this JPEG is truncated", "Replace or remove the file"),
        ("data.path=DIR/text", 4, "notes.png: this is a text file; only JPEG, PNG, WebP", "Replace or remove the file"),
        ("data.path=DIR/bomb", 4, "a.png: this image of 16000x16000 has more pixels", "raise that"),
        ("data.path=DIR/wide", 4, "a.png: this image of 1000000x300 has more pixels", "Replace or remove the file"),
        ("data.path=DIR/bomb --set data.max_megapixels=256", 4, "this PNG is damaged", "Replace or remove the file"),
        ("data.path=DIR/damaged", 4, "00.jpg: this JPEG is damaged", "data.on_corrupt = \"skip\""),
        ("data.path=DIR/damaged --check", 4, "1 of 1 images cannot be read", "remove the files named above"),
        ("data.path=DIR/cut --check", 4, "1 of 1 images cannot be read", "remove the files named above"),
        ("data.path=DIR/loose --set data.labels=folder", 4, "is not in one", "move it into a sub-folder"),
        (
            "data.path=DIR/celeba --set data.labels=attribute:Smilng",
            4,
            "no attribute 'Smilng'",
            "did you mean 'Smiling'?",
        ),
    ];
    check(dir.path(), "data info --config smoke --set data.kind=folder --set", &cases);
}

#[test]
fn a_truncated_image_during_a_run_saves_and_reports_file_and_rank() {
    const IMAGES: u32 = 40;
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("images");
    pictures(&folder, IMAGES);
    // Slots 2 and 3 of each 4 belong to rank 1: the first image of its step after the fifth.
    let id = Order::new(IMAGES.into(), 0).id_at(5 * 4 + 2);
    let name = format!("{id:02}.jpg");
    let whole = truncate(&folder.join(&name));
    let line = format!(
        "train --config smoke --steps 12 --set run.dir={0}/run --set data.kind=folder --set data.path={0}/images --set \
         train.global_batch=4 --set checkpoint.every=100 {PLAIN}",
        text(dir.path())
    );
    let outcome = run(mpirun(2).args(line.split_whitespace()));
    let fault = fault(
        &outcome,
        4,
        &format!("rank 1: {}/{name}: this JPEG is truncated", text(&folder)),
        "Replace or remove the file",
    );
    assert_eq!(fault, None, "{outcome:?}");
    assert!(manifest(&dir.path().join("run"), 5).exists(), "{outcome:?}");

    fs::write(folder.join(&name), whole).unwrap();
    let outcome = succeed(mpirun(2).args(line.split_whitespace()));
    assert!(outcome.stderr.contains("resuming from step 5"), "{}", outcome.stderr);
    assert!(manifest(&dir.path().join("run"), 12).exists());
}

#[test]
fn truncated_images_are_skipped_if_allowed() {
    let dir = TempDir::new().unwrap();
    pictures(&dir.path().join("images"), 8);
    // The first image is also the first in the plot of the forward process.
    truncate(&dir.path().join("images/00.jpg"));
    let skip = format!(
        "--config smoke --set data.kind=folder --set data.path={}/images --set data.on_corrupt=skip",
        text(dir.path())
    );
    let line = format!("train {skip} --steps 2 --set run.dir={}/run --set monitor.sample_every=0", text(dir.path()));
    let outcome = succeed(program().args(line.split_whitespace()));
    assert!(outcome.stderr.contains("00.jpg: this JPEG is truncated"), "{}", outcome.stderr);
    let outcome = succeed(program().args(format!("data info {skip}").split_whitespace()));
    assert!(outcome.stdout.contains("read     7 images"), "{outcome:?}");
}

#[test]
fn colour_conversion_is_reported_once() {
    let dir = TempDir::new().unwrap();
    let (colour, grey) = (dir.path().join("colour"), dir.path().join("grey"));
    pictures(&grey, 8);
    fs::create_dir(&colour).unwrap();
    for i in 0..8 {
        RgbImage::from_pixel(32, 32, Rgb([i * 30, 9, 200])).save(colour.join(format!("{i}.png"))).unwrap();
    }
    let options = |folder: &Path, channels| {
        format!("--config smoke --set data.kind=folder --set data.path={} --set data.channels={channels}", text(folder))
    };
    let count = |stderr: &str, words| stderr.matches(words).count();
    for (folder, channels, words) in [(&colour, 1, "converted to grey"), (&grey, 3, "replicated to all three channels")]
    {
        let options = options(folder, channels);
        let outcome = succeed(program().args(format!("data info {options} --check").split_whitespace()));
        assert_eq!(count(&outcome.stderr, words), 1, "{outcome:?}");
        let train = format!("train {options} --steps 3 --set run.dir={}/run{channels} {PLAIN}", text(dir.path()));
        let outcome = succeed(mpirun(2).args(train.split_whitespace()));
        assert_eq!(count(&outcome.stderr, words), 1, "{outcome:?}");
    }
    for (folder, channels) in [(&colour, 3), (&grey, 1)] {
        let outcome = succeed(program().args(format!("data info {}", options(folder, channels)).split_whitespace()));
        assert_eq!(count(&outcome.stderr, "data.channels"), 0, "{outcome:?}");
    }
}
