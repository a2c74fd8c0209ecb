//! JPEG files: damaged ones are refused, intact ones are read whatever metadata or trailing bytes they have.

use std::path::Path;

use ddpm_data::{DataError, FolderLabels, SourceKind, Split};
use image::{DynamicImage, ImageFormat};
use proptest::prelude::*;
use tempfile::tempdir;
use turbojpeg::Subsamp;

use crate::pictures::{Dice, Jpeg, encode, jpeg, photo};
use crate::{check_refused, read, source, write};

const SOI: [u8; 2] = [0xff, 0xd8];
const EOI: [u8; 2] = [0xff, 0xd9];
const SOS: [u8; 2] = [0xff, 0xda];
const DQT: [u8; 2] = [0xff, 0xdb];

/// The number of files of each kind that are damaged in each way.
const FILES: u64 = 20;

/// The number of [`FILES`] in which damage may go undetected: if the data decode to the right number of blocks, nothing
/// in the file shows that they are wrong.
const MISSED: u64 = 7;

/// A way to damage a file from a given position within its scans on, possibly with data from another file of its kind.
type Damage = fn(&mut Dice, &[u8], &[u8], usize) -> Vec<u8>;

/// The kinds of damage, and how many of the baseline and progressive files Pillow 13.0 refuses in
/// `Image.open(file).load()`, as measured once on these files. It detects wrong markers and a missing end; libjpeg's
/// warnings, which it ignores, detect more.
const DAMAGES: [(&str, Damage, [u64; 2]); 14] = [
    ("random bytes", |dice, a, _, at| [&a[..at], &dice.bytes(4096), &a[at + 4096..]].concat(), [16, 19]),
    ("a random sector", |dice, a, _, at| [&a[..at], &dice.bytes(512), &a[at + 512..]].concat(), [17, 17]),
    ("a hole of zeros", |_, a, _, at| [&a[..at], &[0; 4096], &a[at + 4096..]].concat(), [0, 0]),
    ("a sector of zeros", |_, a, _, at| [&a[..at], &[0; 512], &a[at + 512..]].concat(), [0, 0]),
    ("a sector of ones", |_, a, _, at| [&a[..at], &[0xff; 512], &a[at + 512..]].concat(), [14, 19]),
    ("a sector of text", |_, a, _, at| [&a[..at], &b"GET / ".repeat(86), &a[at + 516..]].concat(), [0, 0]),
    ("4 KiB missing", |_, a, _, at| [&a[..at], &a[at + 4096..]].concat(), [1, 0]),
    ("100 bytes missing", |_, a, _, at| [&a[..at], &a[at + 100..]].concat(), [0, 0]),
    ("a sector twice", |_, a, _, at| [&a[..at], &a[at - 512..]].concat(), [0, 0]),
    ("another's block", |_, a, b, at| [&a[..at], &b[at..at + 4096], &a[at + 4096..]].concat(), [1, 0]),
    ("another's tail", |_, a, b, at| [&a[..at], &b[at..]].concat(), [1, 0]),
    ("cut off", |_, a, _, at| a[..at].to_vec(), [20, 20]),
    ("cut off and ended", |_, a, _, at| [&a[..at], &EOI].concat(), [0, 0]),
    ("cut off and filled up", |_, a, _, at| [&a[..at], &vec![0; a.len() - at]].concat(), [10, 20]),
];

fn find(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).expect("the part exists")
}

fn images_in(folder: &Path) -> SourceKind {
    SourceKind::Folder { root: folder.to_path_buf(), split: Split::Train, labels: FolderLabels::None }
}

/// Reads one file through a data set of images of `size`.
fn read_as_data_set(file: &[u8], size: usize, channels: usize) -> Result<Vec<u8>, DataError> {
    let folder = tempdir().expect("temporary folder");
    write(&folder, "a.jpg", file);
    let source = source(images_in(folder.path()), size, channels).expect("one file");
    Ok(read(&*source, 0)?.0)
}

#[test]
fn damaged_files_are_refused() {
    let mut faults = Vec::new();
    for (progressive, reference) in [(false, 0), (true, 1)] {
        let bases: Vec<[Vec<u8>; 2]> = [Subsamp::Sub2x2, Subsamp::None]
            .iter()
            .map(|&subsamp| {
                let how = Jpeg { subsamp, progressive, ..Jpeg::default() };
                [1, 2].map(|seed| jpeg(&photo(256, 256, seed), how))
            })
            .collect();
        for (number, (name, damage, pillow)) in DAMAGES.iter().enumerate() {
            let folder = tempdir().expect("temporary folder");
            let mut dice = Dice(number as u64);
            for i in 0..FILES {
                let [file, other] = &bases[i as usize % 2];
                let first = find(file, &SOS) + 600;
                let at = first + dice.below(file.len().min(other.len()) - 4300 - first);
                write(&folder, &format!("{i:02}.jpg"), damage(&mut dice, file, other, at));
            }
            let found = source(images_in(folder.path()), 64, 3).expect("files");
            let refused = (0..FILES).filter(|id| matches!(read(&*found, *id), Err(DataError::Image { .. }))).count();
            if (refused as u64) < pillow[reference].max(FILES - MISSED) {
                faults.push(format!("progressive {progressive}, {name}: {refused}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A change to a JPEG that does not affect its pixels.
type Quirk = fn(&[u8]) -> Vec<u8>;

fn after(file: &[u8], tail: &[u8]) -> Vec<u8> {
    [file, tail].concat()
}

fn before(file: &[u8], part: &[u8], new: &[u8]) -> Vec<u8> {
    let at = find(file, part);
    [&file[..at], new, &file[at..]].concat()
}

fn without_end(file: &[u8]) -> &[u8] {
    file.strip_suffix(&EOI).expect("files end with EOI")
}

fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
    [&[0xff, marker], &(body.len() as u16 + 2).to_be_bytes()[..], body].concat()
}

fn thumbnail() -> Vec<u8> {
    encode(photo(16, 12, 9), ImageFormat::Jpeg)
}

const QUIRKS: [(&str, Quirk); 27] = [
    ("a line end behind", |file| after(file, b"\r\n")),
    ("zeros behind", |file| after(file, &[0; 512])),
    ("ones behind", |file| after(file, &[0xff; 512])),
    ("noise behind", |file| after(file, &Dice(5).bytes(5000))),
    ("markers behind", |file| after(file, b"ftypmp42 \xff\xda video \xff\xd9 \xff\xd8 \xff\xc4")),
    ("a video behind", |file| {
        after(file, &[b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\x20\0mdat", &Dice(6).bytes(8000)[..]].concat())
    }),
    ("a second image behind", |file| after(file, &thumbnail())),
    ("half an image behind", |file| after(file, &thumbnail()[..400])),
    ("the start of another JPEG after", |file| after(file, &file[..file.len() / 2])),
    ("an archive behind", |file| after(file, b"PK\x03\x04\x14\0\0\0\x08\0")),
    ("a page behind", |file| after(file, b"<script>\xff\xda</script>")),
    ("a phone's trailer behind", |file| after(file, b"\0\0\x01\x0aImage_UTC_Data1577836800000SEFHk\0\0\0SEFT")),
    ("a second end behind", |file| after(file, &EOI)),
    ("fill bytes in the header", |file| before(file, &DQT, &[0xff; 3])),
    ("zeros in the header", |file| before(file, &DQT, &[0; 7])),
    ("ones and zeros before a scan", |file| before(file, &SOS, &[0xff, 0, 0xff, 0xff, 0])),
    ("an end in a comment", |file| before(file, &DQT, &segment(0xfe, b"\xff\xd9\xff\xda"))),
    ("a thumbnail", |file| {
        before(file, &DQT, &segment(0xe1, &[b"Exif\0\0II*\0\x08\0\0\0\0\0", &thumbnail()[..]].concat()))
    }),
    ("EXIF that is none", |file| before(file, &DQT, &segment(0xe1, b"Exif\0\0\xff\xff\xff\xff\xff\xff"))),
    ("empty EXIF", |file| before(file, &DQT, &segment(0xe1, b"Exif\0\0"))),
    ("notes of other programs", |file| before(file, &DQT, &segment(0xed, b"Photoshop 3.0\08BIM\x04\x04\0\0\0\0\0\0"))),
    ("a strange version of JFIF", |file| {
        [&SOI[..], &segment(0xe0, b"JFIF\0\0\0\0\0\x01\0\x01\0\0"), &file[2..]].concat()
    }),
    ("a strange Adobe transform", |file| before(file, &DQT, &segment(0xee, b"Adobe\0\x64\0\0\0\0\x07"))),
    ("ones before the end", |file| after(without_end(file), &[0xff, 0xff, 0xff, 0xd9])),
    ("zeros before the end", |file| after(without_end(file), &[0, 0, 0, 0, 0, 0xff, 0xd9])),
    ("no end", |file| without_end(file).to_vec()),
    ("zeros for an end", |file| after(without_end(file), &[0; 64])),
];

/// Those of [`QUIRKS`] that are accepted only in a sequential file: with several scans, the last one could be missing
/// or end in zeros.
const IN_ONE_SCAN: [&str; 3] = ["zeros before the end", "no end", "zeros for an end"];

fn how() -> impl Strategy<Value = Jpeg> {
    let subsamp = prop::sample::select(vec![
        Subsamp::None,
        Subsamp::Sub2x1,
        Subsamp::Sub2x2,
        Subsamp::Sub1x2,
        Subsamp::Sub4x1,
        Subsamp::Sub1x4,
    ]);
    (subsamp, 1..=100i32, any::<bool>(), any::<bool>()).prop_map(|(subsamp, quality, progressive, arithmetic)| Jpeg {
        subsamp,
        quality,
        progressive,
        arithmetic,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn intact_files_are_read(how in how(), width in 1..70u32, height in 1..70u32, grey: bool) {
        let image = photo(width, height, 3);
        let file = jpeg(&if grey { DynamicImage::from(image.to_luma8()) } else { image }, how);
        let expected = read_as_data_set(&file, 32, 3).expect("a plain file");
        for (name, quirk) in QUIRKS {
            match read_as_data_set(&quirk(&file), 32, 3) {
                Ok(read) => prop_assert!(read == expected, "{name}: other pixels"),
                Err(error) => prop_assert!(how.progressive && IN_ONE_SCAN.contains(&name), "{name}: {error}"),
            }
        }
    }
}

/// An arithmetic decoder takes missing data for zeros, so it does not notice if the data byte is lost.
#[test]
fn zeros_behind_a_data_byte_of_ones_do_not_cost_that_byte() {
    let image = photo(40, 33, 3);
    let mut found = 0;
    for quality in 1..=100 {
        for arithmetic in [false, true] {
            for subsamp in [Subsamp::None, Subsamp::Sub1x2, Subsamp::Sub2x2] {
                let file = jpeg(&image, Jpeg { subsamp, quality, progressive: false, arithmetic });
                if without_end(&file).ends_with(&[0xff, 0]) {
                    let padded = after(without_end(&file), &[0, 0, 0, 0xff, 0xd9]);
                    let [expected, read] = [&file, &padded].map(|file| read_as_data_set(file, 32, 3).expect("intact"));
                    assert!(read == expected, "quality {quality}, arithmetic {arithmetic}, {subsamp:?}");
                    found += usize::from(arithmetic);
                }
            }
        }
    }
    assert!(found > 0, "no arithmetic file ends in a data byte of ones");
}

#[test]
fn a_sequential_scan_may_give_a_meaningless_range() {
    let file = encode(photo(40, 30, 4), ImageFormat::Jpeg);
    let mut peculiar = file.clone();
    // Length, number of components, two bytes of each; then first and last coefficient, and bits.
    let range = find(&file, &SOS) + 2 + 2 + 1 + 2 * 3;
    assert_eq!(file[range..range + 3], [0, 63, 0]);
    peculiar[range..range + 3].copy_from_slice(&[0, 0, 0]);
    let read = |file| read_as_data_set(file, 30, 3).expect("whole");
    assert_eq!(read(&peculiar), read(&file));
}

#[test]
fn pixels_equal_pillows() {
    // Files from libjpeg-turbo's cjpeg and Pillow 13.0; next to each, the result of Pillow's convert("RGB").
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for name in ["restart", "progressive-420", "arithmetic", "rgb", "cmyk", "cmyk-no-adobe", "ycck"] {
        let file = std::fs::read(golden.join(format!("{name}.jpg"))).expect("there");
        let expected = image::open(golden.join(format!("{name}.png"))).expect("there").into_rgb8();
        let planes = read_as_data_set(&file, 32, 3).expect("whole");
        for (c, plane) in planes.chunks_exact(32 * 32).enumerate() {
            assert!(plane.iter().eq(expected.pixels().map(|pixel| &pixel.0[c])), "channel {c} of {name}");
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let file = encode(photo(64, 64, 5), ImageFormat::Jpeg);
    let half = &file[..file.len() / 2];
    let refused = |file: &[u8], parts: &[&str]| check_refused(read_as_data_set(file, 32, 3), parts);
    refused(half, &["a.jpg", "this JPEG is truncated."]);
    refused(&[half, &[0; 5000]].concat(), &["this JPEG is truncated."]);
    refused(&[half, &EOI].concat(), &["this JPEG is damaged (premature end of data segment)."]);
    refused(&file[..40], &["this JPEG is truncated."]);
    let mut tables = file.clone();
    tables[find(&file, &DQT)..][..60].fill(0);
    refused(&tables, &["this JPEG is damaged, or of an unsupported kind ("]);
    let mut colours = file;
    let frame = find(&colours, &[0xff, 0xc0]);
    colours[frame + 9] = 2;
    refused(&colours, &["this JPEG is damaged, or of an unsupported kind ("]);
}
