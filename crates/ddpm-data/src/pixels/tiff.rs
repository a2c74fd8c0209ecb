//! TIFF files: grey, RGB, and any number of channels, in integers or floats.

use std::io::{self, Cursor};

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::decoded::{Decoded, Samples};
use super::limits::{check_size, most_bytes};

/// The values of [`Tag::ExtraSamples`] that mean opacity: colours multiplied by it, and not.
const MULTIPLIED: u16 = 1;
const SEPARATE: u16 = 2;

/// Decodes the first image of a TIFF, upright.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<Decoded, String> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = usize::try_from(most_bytes(max_pixels)).unwrap_or(usize::MAX);
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(phrase)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(phrase)?;
    check_size(width, height, max_pixels)?;
    let kind = decoder.colortype().map_err(phrase)?;
    let extra: Vec<u16> = decoder.find_tag_unsigned_vec(Tag::ExtraSamples).map_err(phrase)?.unwrap_or_default();
    let orientation: u16 = decoder.find_tag_unsigned(Tag::Orientation).map_err(phrase)?.unwrap_or(1);
    let stored: u16 = decoder.find_tag_unsigned(Tag::SamplesPerPixel).map_err(phrase)?.unwrap_or(1);
    let (channels, alpha) = match kind {
        ColorType::Gray(_) => (1, false),
        ColorType::GrayA(_) => (2, true),
        ColorType::RGB(_) => (3, false),
        ColorType::RGBA(_) => (4, true),
        ColorType::Multiband { num_samples: 2, .. } => (2, matches!(extra[..], [MULTIPLIED | SEPARATE])),
        ColorType::Multiband { num_samples, .. } => (num_samples, false),
        _ => return Err(format!("this TIFF is in colours that cannot be read ({kind:?}); convert it to RGB")),
    };
    if alpha && extra.first() == Some(&MULTIPLIED) {
        return Err("the colours of this TIFF are multiplied by its opacity; save it with separate opacity".into());
    }
    if channels != stored {
        return Err(format!(
            "this TIFF has {stored} channels, {channels} of which are colours, and the others have no meaning; save it \
             as a TIFF of grey channels, or as a NumPy array"
        ));
    }
    if !matches!(kind.bit_depth(), 8 | 16 | 32 | 64) {
        return Err(format!("this TIFF has {} bits in each value; convert it to 8 or 16", kind.bit_depth()));
    }
    let mut values = DecodingResult::U8(Vec::new());
    let planes = decoder.read_image_to_buffer(&mut values).map_err(phrase)?.planes;
    let samples = match values {
        DecodingResult::U8(values) => Samples::Bytes(values),
        DecodingResult::U16(values) => Samples::Words(values),
        DecodingResult::I8(values) => numbers(values, f32::from),
        DecodingResult::I16(values) => numbers(values, f32::from),
        DecodingResult::U32(values) => numbers(values, |value| value as f32),
        DecodingResult::I32(values) => numbers(values, |value| value as f32),
        DecodingResult::U64(values) => numbers(values, |value| value as f32),
        DecodingResult::I64(values) => numbers(values, |value| value as f32),
        DecodingResult::F16(values) => numbers(values, f32::from),
        DecodingResult::F32(values) => Samples::Numbers(values),
        DecodingResult::F64(values) => numbers(values, |value| value as f32),
    };
    let channels = usize::from(channels);
    let decoded = Decoded { width, height, shrunk: 1, channels, alpha, samples };
    let pixels = width as usize * height as usize;
    if decoded.samples.len() != pixels * channels {
        return Err("this TIFF is larger than data.max_megapixels allows; raise that if there is enough memory".into());
    }
    let is_planar = planes > 1;
    Ok(decoded.rearranged(orientation, is_planar))
}

fn numbers<T>(values: Vec<T>, number: impl Fn(T) -> f32) -> Samples {
    Samples::Numbers(values.into_iter().map(number).collect())
}

fn phrase(error: TiffError) -> String {
    match error {
        TiffError::IoError(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => "this TIFF is truncated".into(),
        TiffError::UnsupportedError(kind) => {
            format!("this TIFF is of a kind that cannot be read ({kind}); save it uncompressed, in grey or RGB")
        }
        TiffError::LimitsExceeded | TiffError::IntSizeError => {
            "this TIFF is larger than data.max_megapixels allows; raise that if there is enough memory".into()
        }
        fault => format!("this TIFF is damaged ({fault})"),
    }
}
