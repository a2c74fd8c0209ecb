//! Files of every kind, compared with what Pillow and NumPy read from them; fitting, compared with Pillow's resizing.
//! `tests/golden/make_images.py` writes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ddpm_data::{
    Alpha, DataSpec, Depth, Fit, FolderLabels, ImageShape, Packing, ShardFormat, ShardLabels, ShardSpec, Source,
    SourceKind, Split, image_bytes, open, pack, preview,
};

use crate::pack::FORMATS;
use crate::wrong_shards::zip;
use crate::{check_refused, spec, write};

fn golden(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/images"));
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A folder that holds the golden file `name` alone.
struct Only(tempfile::TempDir);

impl Only {
    fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        write(&folder, name, golden(name));
        Self(folder)
    }

    fn spec(&self, image: ImageShape) -> DataSpec {
        let (root, split, labels) = (self.0.path().into(), Split::Train, FolderLabels::None);
        DataSpec { image, ..spec(SourceKind::Folder { root, split, labels }, 1, 1) }
    }
}

fn source(spec: &DataSpec) -> Arc<dyn Source> {
    open(spec).expect("a readable folder")
}

/// The only image, planar, in bytes.
fn bytes(spec: &DataSpec) -> Vec<u8> {
    preview(source(spec).as_ref(), 0, 1, 1).expect("a readable image").images
}

/// The only image, planar, in floats.
fn floats(spec: &DataSpec) -> Vec<f32> {
    assert_eq!(source(spec).depth(), Depth::Float);
    bytes(spec).as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect()
}

/// Interleaved values as planar ones.
fn planar<T: Copy>(interleaved: &[T], channels: usize) -> Vec<T> {
    (0..channels).flat_map(|c| interleaved.iter().skip(c).step_by(channels).copied()).collect()
}

fn largest_difference(ours: &[u8], theirs: &[u8]) -> u8 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(ours, theirs)| ours.abs_diff(*theirs)).max().expect("not empty")
}

const SHAPE: ImageShape = ImageShape { channels: 3, height: 10, width: 12 };

#[test]
fn files_of_8_bits_read_as_pillow_reads_them() {
    let kinds: [(&str, usize); 22] = [
        ("rgb.png", 3),
        ("grey.png", 1),
        ("palette.png", 3),
        ("rgba.png", 4),
        ("la.png", 2),
        ("rgb.webp", 3),
        ("rgba.webp", 4),
        ("animated.webp", 3),
        ("palette.gif", 3),
        ("animated.gif", 3),
        ("transparent.gif", 4),
        ("rgb.bmp", 3),
        ("grey.bmp", 1),
        ("palette.bmp", 3),
        ("rgb.tif", 3),
        ("rgb-lzw.tif", 3),
        ("rgb-deflate.tif", 3),
        ("rgba.tif", 4),
        ("five.tif", 5),
        ("five.npy", 5),
        ("five-last.npy", 5),
        ("five-fortran.npy", 5),
    ];
    for (name, channels) in kinds {
        let alpha = if matches!(channels, 2 | 4) { Alpha::Keep } else { Alpha::BLACK };
        let only = Only::of(name);
        let spec = DataSpec { alpha, ..only.spec(ImageShape { channels, ..SHAPE }) };
        let mut expected = planar(&golden(&format!("{name}.raw")), channels);
        let mut read = bytes(&spec);
        if name == "transparent.gif" {
            // The colour of a transparent pixel is arbitrary.
            for values in [&mut expected, &mut read] {
                let opaque = values[3 * 120..].to_vec();
                values.iter_mut().enumerate().filter(|(i, _)| opaque[i % 120] == 0).for_each(|(_, value)| *value = 0);
            }
        }
        assert_eq!(read, expected, "{name}");
    }
}

#[test]
fn lossy_webp_is_within_two_levels_of_pillow_s() {
    let only = Only::of("lossy.webp");
    let read = bytes(&only.spec(SHAPE));
    assert!(largest_difference(&read, &planar(&golden("lossy.webp.raw"), 3)) <= 2);
}

#[test]
fn a_tiff_that_lies_on_its_side_is_turned() {
    let only = Only::of("turned.tif");
    assert_eq!(bytes(&only.spec(ImageShape { height: 12, width: 10, ..SHAPE })), planar(&golden("turned.tif.raw"), 3));
}

#[test]
fn sixteen_bits_are_kept_with_a_range() {
    for (name, channels) in [("grey16.png", 1), ("grey16.tif", 1), ("five16-planar.tif", 5), ("five16.npy", 5)] {
        let words: Vec<u16> =
            golden(&format!("{name}.raw")).as_chunks().0.iter().map(|word| u16::from_le_bytes(*word)).collect();
        let only = Only::of(name);
        let spec = only.spec(ImageShape { channels, ..SHAPE });
        for [low, high] in [[0.0, 65535.0], [1000.0, 40_000.0]] {
            let read = floats(&DataSpec { range: Some([low, high]), ..spec.clone() });
            for (read, word) in read.into_iter().zip(planar(&words, channels)) {
                let exact = (2.0 * (f64::from(word) - low) / (high - low) - 1.0).clamp(-1.0, 1.0);
                assert!((f64::from(read) - exact).abs() < 2e-7, "{name}: {read} for {word}, not {exact}");
            }
        }
        // Without a range, the nearest of 256 levels.
        let levels: Vec<u8> =
            planar(&words, channels).into_iter().map(|w| (f64::from(w) / 257.0).round() as u8).collect();
        assert_eq!(bytes(&spec), levels, "{name}");
    }
}

#[test]
fn numbers_need_a_range() {
    for (name, range) in
        [("float.tif", [-0.5, 1.5]), ("grey-double.npy", [-0.5, 1.5]), ("grey-short.npy", [-100.0, 800.0])]
    {
        let stored: Vec<f32> =
            golden(&format!("{name}.raw")).as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let only = Only::of(name);
        let spec = only.spec(ImageShape { channels: 1, ..SHAPE });
        check_refused(preview(source(&spec).as_ref(), 0, 1, 1), &[name, "numbers rather than bytes; set data.range"]);
        let read = floats(&DataSpec { range: Some(range), ..spec });
        for (read, stored) in read.into_iter().zip(stored) {
            let exact = 2.0 * (f64::from(stored) - range[0]) / (range[1] - range[0]) - 1.0;
            assert!((f64::from(read) - exact).abs() < 3e-7, "{name}: {read}, not {exact}");
        }
    }
}

#[test]
fn eight_bits_do_not_fill_a_range_of_more() {
    let only = Only::of("rgb.png");
    let spec = only.spec(SHAPE);
    let read = floats(&DataSpec { range: Some([0.0, 255.0]), ..spec.clone() });
    for (read, byte) in read.into_iter().zip(planar(&golden("rgb.png.raw"), 3)) {
        assert!((read - (f32::from(byte) / 127.5 - 1.0)).abs() < 2e-7);
    }
    let deep = DataSpec { range: Some([0.0, 65535.0]), ..spec };
    check_refused(preview(source(&deep).as_ref(), 0, 1, 1), &["8 bits", "data.range = [0, 65535]"]);
}

#[test]
fn transparency_shows_the_colour_behind_it_as_pillow_s() {
    for (name, colour) in [("over-black.raw", [0; 3]), ("over-white.raw", [255; 3]), ("over-ff8000.raw", [255, 128, 0])]
    {
        for file in ["rgba.png", "rgba.webp", "rgba.tif"] {
            let only = Only::of(file);
            let spec = DataSpec { alpha: Alpha::Over(colour), ..only.spec(SHAPE) };
            assert!(largest_difference(&bytes(&spec), &planar(&golden(name), 3)) <= 1, "{file} {name}");
        }
    }
}

#[test]
fn images_are_fitted_as_by_pillow() {
    let small = ImageShape { channels: 3, height: 12, width: 16 };
    let large = ImageShape { channels: 3, height: 48, width: 80 };
    for (name, fit, alpha, image) in [
        ("fit-crop.raw", Fit::Crop, Alpha::BLACK, small),
        ("fit-stretch.raw", Fit::Stretch, Alpha::BLACK, small),
        ("fit-pad.raw", Fit::Pad, Alpha::WHITE, small),
        ("fit-enlarged.raw", Fit::Crop, Alpha::BLACK, large),
    ] {
        let only = Only::of("photo.png");
        let spec = DataSpec { fit, alpha, ..only.spec(image) };
        assert!(largest_difference(&bytes(&spec), &planar(&golden(name), 3)) <= 1, "{name}");
    }
    let image = ImageShape { channels: 4, height: 5, width: 6 };
    let only = Only::of("rgba.png");
    let spec = DataSpec { alpha: Alpha::Keep, ..only.spec(image) };
    let (ours, theirs) = (bytes(&spec), planar(&golden("fit-rgba.raw"), 4));
    let pixels = image.pixels();
    let (colours, opacities) = theirs.split_at(3 * pixels);
    assert!(largest_difference(&ours[3 * pixels..], opacities) <= 1);
    // A colour is multiplied by its opacity, rounded, scaled, rounded and divided: errors grow with transparency.
    for (index, (ours, theirs)) in ours.iter().zip(colours).enumerate() {
        let opacity = f64::from(opacities[index % pixels]) / 255.0;
        assert!(opacity < 0.1 || f64::from(ours.abs_diff(*theirs)) <= 1.0 + 2.0 / opacity, "{ours} and {theirs}");
    }
}

#[test]
fn floats_and_many_channels_are_scaled_like_bytes() {
    // Every channel on its own, whether there are three or five.
    let tempdir = tempfile::tempdir().expect("folder");
    let photo = Only::of("photo.png");
    let whole = bytes(&photo.spec(ImageShape { channels: 3, height: 24, width: 40 }));
    let five: Vec<u8> = (0..5).flat_map(|c| whole[c % 3 * 960..][..960].to_vec()).collect();
    write(&tempdir, "five.npy", npy("|u1", "(5, 24, 40)", &five));
    let five = Only(tempdir);
    let image = ImageShape { channels: 5, height: 12, width: 16 };
    let scaled = bytes(&DataSpec { fit: Fit::Stretch, ..five.spec(image) });
    let rgb = bytes(&DataSpec { fit: Fit::Stretch, ..photo.spec(ImageShape { channels: 3, ..image }) });
    for c in 0..5 {
        assert_eq!(scaled[c * 192..][..192], rgb[c % 3 * 192..][..192], "channel {c}");
    }
    let range = Some([0.0, 255.0]);
    let exact = floats(&DataSpec { fit: Fit::Stretch, range, ..five.spec(image) });
    let stored: Vec<f32> =
        golden("fit-float.raw").as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    for (ours, theirs) in exact[..192].iter().zip(stored) {
        assert!((ours - (theirs / 127.5 - 1.0).clamp(-1.0, 1.0)).abs() < 1e-5, "{ours} for {theirs}");
    }
}

/// A NumPy file.
fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    for (bytes, parts) in [
        (npy("|u1", "(3, 4, 5)", &[0; 60]), ["shape [3, 4, 5], and data.channels = 2", "[2, height, width]"]),
        (npy("|u1", "(7,)", &[0; 7]), ["shape [7]", "[height, width]"]),
        (npy("|u1", "(2, 4, 5)", &[0; 39]), ["39 bytes of data", "announces 40"]),
        (npy("<c8", "(2, 4, 5)", &[0; 320]), ["type \"<c8\"", "uint8, uint16 or float32"]),
        (npy("|u1", "(2, 0, 5)", &[]), ["shape [2, 0, 5]", "empty"]),
        (npy("|u1", "(2, 4000, 5000)", &[]), ["5000x4000", "data.max_megapixels = 1"]),
        (npy("<f4", "(2, 1, 1)", &f32::NAN.to_le_bytes().repeat(2)), ["not finite", "image.npy"]),
        (b"\x93NUMPY\x01\0\xff\xffshort".to_vec(), ["damaged", "header"]),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        write(&folder, "image.npy", bytes);
        let only = Only(folder);
        let mut spec = only.spec(ImageShape { channels: 2, height: 4, width: 5 });
        if parts[0].contains("finite") {
            spec.range = Some([0.0, 1.0]);
        }
        check_refused(preview(source(&spec).as_ref(), 0, 1, 1), &parts);
    }
}

#[test]
fn damaged_files_are_refused_by_their_kind() {
    for (name, kind) in [("rgb.webp", "WebP"), ("rgb.bmp", "BMP"), ("rgb.tif", "TIFF"), ("palette.gif", "GIF")] {
        let folder = tempfile::tempdir().expect("folder");
        write(&folder, name, &golden(name)[..60]);
        let only = Only(folder);
        check_refused(preview(source(&only.spec(SHAPE)).as_ref(), 0, 1, 1), &[name, "this ", kind]);
    }
}

#[test]
fn files_inside_shards_and_packed_images_read_as_in_a_folder() {
    let black = Alpha::BLACK;
    for (name, channels, alpha, range) in [
        ("rgb.png", 3, black, None),
        ("rgba.webp", 3, Alpha::WHITE, None),
        ("rgba.png", 4, Alpha::Keep, None),
        ("la.png", 2, Alpha::Keep, None),
        ("palette.gif", 1, black, None),
        ("five.tif", 5, black, None),
        ("five-last.npy", 5, black, None),
        ("five16.npy", 5, black, Some([0.0, 65535.0])),
        ("grey16.png", 1, black, Some([0.0, 30_000.0])),
        ("float.tif", 1, black, Some([-0.5, 1.5])),
    ] {
        let only = Only::of(name);
        for (height, width) in [(10, 12), (5, 7)] {
            let spec = DataSpec { alpha, range, ..only.spec(ImageShape { channels, height, width }) };
            let (expected, dir) = (bytes(&spec), tempfile::tempdir().expect("folder"));
            let read = |format, path: PathBuf, range| {
                let (split, cache) = (Split::Train, Some(dir.path().join("cache")));
                let kind = SourceKind::Shards(ShardSpec {
                    format,
                    path,
                    split,
                    labels: ShardLabels::Auto,
                    cache,
                    cache_bytes: 0,
                });
                bytes(&DataSpec { kind, range, ..spec.clone() })
            };
            let zipped = zip(&dir, "a.zip", &[(name, &golden(name))]);
            assert_eq!(read(ShardFormat::Zip, zipped, range), expected, "{name} in a ZIP file");
            for (format, reads) in FORMATS {
                for resized in [false, true] {
                    let folder = dir.path().join(format!("{format:?}-{resized}"));
                    let packing = Packing { format, split: Split::Train, per_shard: 10, resized };
                    pack(source(&spec).as_ref(), &folder, &packing, &AtomicU64::new(0)).expect("an empty folder");
                    // Values that were packed are from -1 to 1.
                    let range = range.map(|range| if resized { [-1.0, 1.0] } else { range });
                    assert_eq!(read(reads, folder, range), expected, "{name} in {format:?}, resized: {resized}");
                }
            }
        }
    }
}

#[test]
fn every_value_of_every_row_is_mirrored_whole() {
    use ddpm_data::{Loader, LoaderConfig, Order};
    let only = Only::of("five16.npy");
    let spec = DataSpec { range: Some([0.0, 65535.0]), ..only.spec(ImageShape { channels: 5, ..SHAPE }) };
    let straight = floats(&spec);
    let config = LoaderConfig {
        global_batch: 16,
        slice: 0..16,
        start_step: 0,
        workers: 1,
        prefetch: 1,
        flip: true,
        flip_seed: 3,
    };
    let source = source(&spec);
    let (order, size) = (Order::new(1, 0), image_bytes(source.as_ref()));
    let batch = Loader::new(source, order, config, ()).and_then(|loader| loader.next()).expect("a batch");
    let mirrored: Vec<f32> = straight.chunks(12).flat_map(|row| row.iter().rev().copied()).collect();
    let mut seen = [0, 0];
    for image in batch.images.chunks_exact(size) {
        let image: Vec<f32> = image.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect();
        seen[usize::from(image == mirrored)] += 1;
        assert!(image == mirrored || image == straight);
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}
