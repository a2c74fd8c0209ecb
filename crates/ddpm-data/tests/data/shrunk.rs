//! `jpeg_shrink`: JPEG files that the decoder shrinks show the same as those that it does not.

use std::ops::Range;

use ddpm_data::{DataError, DataSpec, FolderLabels, ImageShape, SourceKind, Split, open};
use image::{DynamicImage, Rgb, RgbImage};
use tempfile::tempdir;
use turbojpeg::Subsamp;

use crate::pictures::{Jpeg, jpeg, photo};
use crate::{check_refused, read, spec, write};

/// Levels from one pixel of [`ramp`] to the next.
const SLOPE: u32 = 2;

/// How far the filter reaches, in pixels of the result: there the edge of what is cut out matters.
const REACH: usize = 3;

/// Red grows to the right, green downwards; blue falls to the right.
fn ramp(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([x, y, 127 - x].map(|at| (SLOPE * at) as u8))).into()
}

/// A JPEG stored in this orientation of EXIF.
fn oriented(file: &[u8], orientation: u8) -> Vec<u8> {
    let exif = b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0";
    [&file[..2], exif, &[orientation, 0, 0, 0, 0, 0, 0, 0], &file[2..]].concat()
}

/// A file read as an image of this height and width, after a crop.
fn read_at(file: &[u8], size: [usize; 2], crop: Option<u32>, jpeg_shrink: bool) -> Result<Vec<u8>, DataError> {
    let folder = tempdir().expect("temporary folder");
    write(&folder, "a.jpg", file);
    let kind = SourceKind::Folder { root: folder.path().into(), split: Split::Train, labels: FolderLabels::None };
    let image = ImageShape { channels: 3, height: size[0], width: size[1] };
    let source = open(&DataSpec { image, crop, jpeg_shrink, ..spec(kind, 1, 3) }).expect("one file");
    Ok(read(&*source, 0)?.0)
}

/// The largest difference to what is read without shrinking, except near the edges.
fn difference(file: &[u8], [height, width]: [usize; 2], crop: Option<u32>) -> u8 {
    let [shrunk, whole] = [true, false].map(|shrink| read_at(file, [height, width], crop, shrink).expect("an image"));
    let inner = |side: usize| -> Range<usize> { REACH..side - REACH };
    let pixels =
        (0..3).flat_map(|c| inner(height).flat_map(move |y| inner(width).map(move |x| (c * height + y) * width + x)));
    pixels.map(|i| shrunk[i].abs_diff(whole[i])).max().expect("there are pixels")
}

#[test]
fn nothing_moves() {
    for subsamp in [Subsamp::None, Subsamp::Sub2x2] {
        let how = Jpeg { subsamp, quality: 98, ..Jpeg::default() };
        let file = jpeg(&ramp(121, 93), how);
        // By 2, 4 and 8, of which the sides and the margins of the crop are no multiples.
        for (size, crop) in [([30, 30], None), ([15, 15], Some(61)), ([11, 11], Some(91)), ([11, 14], None)] {
            assert!(difference(&file, size, crop) <= 3, "{subsamp:?} {size:?} {crop:?}");
        }
        let file = jpeg(&ramp(96, 64), how);
        for orientation in 1..=8 {
            let size = if orientation < 5 { [16, 24] } else { [24, 16] };
            assert!(difference(&oriented(&file, orientation), size, None) <= 3, "{subsamp:?} {orientation}");
        }
    }
}

#[test]
fn the_finest_details_are_lost_only_where_images_are_twice_as_large() {
    let file = jpeg(&photo(100, 80, 3), Jpeg::default());
    let same = |size, crop| {
        let [shrunk, whole] = [true, false].map(|shrink| read_at(&file, size, crop, shrink).expect("an image"));
        shrunk == whole
    };
    assert!(same([41, 41], None) && same([40, 51], None) && same([20, 20], Some(39)) && same([100, 100], None));
    assert!(!same([40, 40], None) && !same([20, 20], Some(40)));
}

#[test]
fn damage_is_found_in_details_that_are_left_out() {
    let file = jpeg(&photo(200, 200, 4), Jpeg::default());
    check_refused(read_at(&file[..file.len() - 40], [20, 20], None, true), &["truncated"]);
}
