//! Arrays in NumPy's `.npy` form (NumPy Enhancement Proposal 1): a header, which is a Python dictionary, and numbers.

use std::io::{self, Write};

use tch::{Kind, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Headers are padded so that the numbers begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// Reads an array of f32 or f64 as f64. An error is a phrase that continues "an array".
///
/// In Fortran's order a matrix is returned transposed, which a covariance does not notice.
pub fn read(bytes: &[u8]) -> Result<Tensor, String> {
    let (header, numbers) = split(bytes).ok_or("that is damaged, or of an unknown version")?;
    let kind = entry(header, "descr").and_then(|text| Some(text.strip_prefix('\'')?.split_once('\'')?.0));
    let shape = entry(header, "shape").and_then(shape).ok_or("without a shape")?;
    let width = match kind {
        Some("<f8") => 8,
        Some("<f4") => 4,
        kind => return Err(format!("of '{}', not of floats", kind.unwrap_or("structures"))),
    };
    let length = shape.iter().try_fold(width, |product: usize, size| product.checked_mul(usize::try_from(*size).ok()?));
    let numbers = length.and_then(|length| numbers.get(..length));
    let numbers = numbers.ok_or_else(|| format!("of shape {shape:?} that is cut off"))?;
    let values: Vec<f64> = match width {
        8 => numbers.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        _ => numbers.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect(),
    };
    Tensor::f_from_slice(&values).and_then(|values| values.f_view(&shape[..])).map_err(|error| error.to_string())
}

/// Writes an array f64 in C's order.
pub fn write(to: &mut impl Write, values: &Tensor) -> io::Result<()> {
    let shape: String = values.size().iter().map(|size| format!("{size}, ")).collect();
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({shape}), }}");
    // Before the header come the magic bytes, a version of two bytes and a length of two; a line feed ends it.
    let before = MAGIC.len() + 4;
    let length = (before + header.len() + 1).next_multiple_of(ALIGNMENT) - before;
    let padded = length - 1;
    to.write_all(MAGIC)?;
    to.write_all(&[1, 0])?;
    to.write_all(&(length as u16).to_le_bytes())?;
    writeln!(to, "{header:<padded$}")?;
    let numbers = values.f_to_kind(Kind::Double).and_then(|values| values.f_contiguous()?.f_view(-1));
    let numbers: Vec<f64> = numbers.and_then(Vec::try_from).map_err(io::Error::other)?;
    numbers.iter().try_for_each(|number| to.write_all(&number.to_le_bytes()))
}

/// The header of an array, and the bytes of its numbers.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (version, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk().map(|(length, rest)| (u16::from_le_bytes(*length) as usize, rest))?,
        2 | 3 => rest.split_first_chunk().map(|(length, rest)| (u32::from_le_bytes(*length) as usize, rest))?,
        _ => return None,
    };
    let (header, numbers) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, numbers))
}

/// What follows a key of the header.
fn entry<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    Some(header.split_once(&format!("'{key}':"))?.1.trim_start())
}

/// The sizes in a tuple such as `(12, 12)`, `(12,)` or `()`.
fn shape(text: &str) -> Option<Vec<i64>> {
    let sizes = text.strip_prefix('(')?.split_once(')')?.0;
    sizes.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(values: &Tensor) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, values).unwrap();
        bytes
    }

    /// An array of version 1 with this header and two numbers.
    fn with_header(header: &str) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), &1f64.to_le_bytes(), &2f64.to_le_bytes()].concat()
    }

    #[test]
    fn an_array_of_any_rank_is_read_as_it_was_written() {
        for size in [&[][..], &[0], &[6], &[2, 3], &[3, 1, 2]] {
            let count: i64 = size.iter().product();
            let values = Tensor::arange(count, (Kind::Double, tch::Device::Cpu)).view(size) / 7.0;
            let bytes = written(&values);
            assert_eq!((bytes.len() - 8 * count as usize) % ALIGNMENT, 0, "{size:?}");
            let found = read(&bytes).unwrap();
            assert_eq!((found.size(), found.equal(&values)), (size.to_vec(), true));
        }
    }

    #[test]
    fn arrays_that_cannot_be_read_are_refused() {
        let two = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }";
        assert_eq!(Vec::<f64>::try_from(read(&with_header(two)).unwrap()).unwrap(), [1.0, 2.0]);
        for (header, expected) in [
            ("{'descr': '>f8', 'shape': (2,), }", "of '>f8', not of floats"),
            ("{'descr': [('x', '<f8')], 'shape': (2,), }", "of 'structures', not of floats"),
            ("{'descr': '<f8', 'shape': (2.5,), }", "without a shape"),
            ("{'descr': '<f8', }", "without a shape"),
            ("{'descr': '<f8', 'shape': (3,), }", "of shape [3] that is cut off"),
            ("{'descr': '<f8', 'shape': (-1,), }", "of shape [-1] that is cut off"),
            ("{'descr': '<f8', 'shape': (4294967296, 4294967296), }", "of shape [4294967296, 4294967296] that is cut"),
        ] {
            let found = read(&with_header(header)).unwrap_err();
            assert!(found.starts_with(expected), "{header}: {found}");
        }
        let whole = with_header(two);
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
        }
    }
}
