//! NumPy arrays, as `numpy.save` writes them: any number of channels, integers or floats.

use ddpm_spec::{Depth, ImageShape};

use super::decoded::{Decoded, Samples};
use super::limits::check_size;

/// The first bytes of a file.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// What the header says.
struct Header<'a> {
    /// Such as `<u2`.
    kind: &'a str,
    /// Whether the first axis is contiguous, rather than the last.
    fortran: bool,
    shape: Vec<usize>,
}

/// Decodes an array `[H, W]`, `[channels, H, W]` or, if its first axis is not of that length, `[H, W, channels]`.
/// Without `channels`, they are the shorter of the first and the last axis.
pub(super) fn decode(bytes: &[u8], max_pixels: u64, channels: Option<usize>) -> Result<Decoded, String> {
    let (header, data) = split(bytes).ok_or("this NumPy array is damaged (its header cannot be read)")?;
    let Header { kind, fortran, shape } = header;
    let channels = channels.or_else(|| shape.first().min(shape.last()).copied()).unwrap_or_default();
    let axes = axes(&shape, channels).ok_or_else(|| {
        format!(
            "this array has the shape {shape:?}, and data.channels = {channels}; it should be [height, width] or \
             [{channels}, height, width]"
        )
    })?;
    let sizes = axes.map(|axis| axis.map_or(1, |axis| shape[axis]));
    let [height, width, _] = sizes.map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    if sizes.contains(&0) {
        return Err(format!("this array has the shape {shape:?}, and is empty"));
    }
    check_size(width, height, max_pixels)?;
    let strides = axes.map(|axis| axis.map_or(0, |axis| stride(&shape, axis, fortran)));
    let read = Reading { data, sizes, strides };
    let samples = match kind {
        "|u1" | "<u1" => Samples::Bytes(read.values(|[byte]| byte)?),
        "|i1" | "<i1" => Samples::Numbers(read.values(|bytes| f32::from(i8::from_le_bytes(bytes)))?),
        "<u2" => Samples::Words(read.values(u16::from_le_bytes)?),
        ">u2" => Samples::Words(read.values(u16::from_be_bytes)?),
        "<i2" => Samples::Numbers(read.values(|bytes| f32::from(i16::from_le_bytes(bytes)))?),
        ">i2" => Samples::Numbers(read.values(|bytes| f32::from(i16::from_be_bytes(bytes)))?),
        "<i4" => Samples::Numbers(read.values(|bytes| i32::from_le_bytes(bytes) as f32)?),
        "<u4" => Samples::Numbers(read.values(|bytes| u32::from_le_bytes(bytes) as f32)?),
        "<f4" => Samples::Numbers(read.values(f32::from_le_bytes)?),
        ">f4" => Samples::Numbers(read.values(f32::from_be_bytes)?),
        "<f8" => Samples::Numbers(read.values(|bytes| f64::from_le_bytes(bytes) as f32)?),
        ">f8" => Samples::Numbers(read.values(|bytes| f64::from_be_bytes(bytes) as f32)?),
        other => {
            return Err(format!(
                "this array is of the type {other:?}, which cannot be read; save it as uint8, uint16 or float32"
            ));
        }
    };
    Ok(Decoded { width, height, shrunk: 1, channels: sizes[2], alpha: false, samples })
}

/// Of the three axes height, width and channels: which one of the array each is.
fn axes(shape: &[usize], channels: usize) -> Option<[Option<usize>; 3]> {
    match *shape {
        [_, _] => Some([Some(0), Some(1), None]),
        [first, _, _] if first == channels => Some([Some(1), Some(2), Some(0)]),
        [_, _, last] if last == channels => Some([Some(0), Some(1), Some(2)]),
        _ => None,
    }
}

/// Width and height of an array, by its header.
pub(super) fn size(bytes: &[u8], channels: usize) -> Option<(usize, usize)> {
    let (Header { shape, .. }, _) = split(bytes)?;
    let [height, width, _] = axes(&shape, channels)?;
    Some((shape[width?], shape[height?]))
}

/// An array `[C, H, W]` of values as a data set stores them.
pub(super) fn encode(values: &[u8], image: ImageShape, depth: Depth) -> Vec<u8> {
    let kind = match depth {
        Depth::Byte => "|u1",
        Depth::Float => "<f4",
    };
    let ImageShape { channels, height, width } = image;
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({channels}, {height}, {width}), }}");
    // What precedes the values is a multiple of 64 bytes, and ends with a line feed.
    let length = (MAGIC.len() + 4 + text.len() + 1).next_multiple_of(64) - MAGIC.len() - 4;
    let mut file = [MAGIC, &[1, 0], &(length as u16).to_le_bytes()].concat();
    file.extend_from_slice(format!("{text:<width$}\n", width = length - 1).as_bytes());
    match depth {
        Depth::Byte => file.extend_from_slice(values),
        Depth::Float => {
            let floats = values.as_chunks().0.iter();
            floats.for_each(|value| file.extend_from_slice(&f32::from_ne_bytes(*value).to_le_bytes()));
        }
    }
    file
}

/// The header and what follows it.
fn split(bytes: &[u8]) -> Option<(Header<'_>, &[u8])> {
    let (version, rest) = bytes.strip_prefix(MAGIC)?.split_at_checked(2)?;
    let (length, rest) = match version[0] {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        _ => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
    };
    let (text, data) = rest.split_at_checked(length)?;
    let text = std::str::from_utf8(text).ok()?;
    let value = |key: &str| Some(text.split_once(&format!("'{key}':"))?.1.trim_start());
    // The type of a table is a list.
    let kind = match value("descr")?.strip_prefix('\'') {
        Some(quoted) => quoted.split_once('\'')?.0,
        None => "table",
    };
    let axes = value("shape")?.strip_prefix('(')?.split_once(')')?.0;
    let axes = axes.split(',').map(str::trim).filter(|axis| !axis.is_empty());
    let shape = axes.map(|axis| axis.parse().ok()).collect::<Option<Vec<usize>>>()?;
    Some((Header { kind, fortran: value("fortran_order")?.starts_with("True"), shape }, data))
}

/// The distance between neighbours along an axis, in values.
fn stride(shape: &[usize], axis: usize, fortran: bool) -> usize {
    let faster = if fortran { &shape[..axis] } else { &shape[axis + 1..] };
    faster.iter().fold(1, |product, size| product.saturating_mul(*size))
}

/// Values in any order of axes: height, width, channels.
struct Reading<'a> {
    data: &'a [u8],
    sizes: [usize; 3],
    strides: [usize; 3],
}

impl Reading<'_> {
    /// The values, interleaved.
    fn values<T, const N: usize>(&self, value: impl Fn([u8; N]) -> T) -> Result<Vec<T>, String> {
        let (values, rest) = self.data.as_chunks::<N>();
        let count = self.sizes.iter().fold(1, |product: usize, size| product.saturating_mul(*size));
        if values.len() != count || !rest.is_empty() {
            return Err(format!(
                "this array has {} bytes of data, and its header announces {}",
                self.data.len(),
                count.saturating_mul(N)
            ));
        }
        let [height, width, channels] = self.sizes;
        let [down, right, deep] = self.strides;
        let mut read = Vec::with_capacity(count);
        for y in 0..height {
            for x in 0..width {
                read.extend((0..channels).map(|c| value(values[y * down + x * right + c * deep])));
            }
        }
        Ok(read)
    }
}
