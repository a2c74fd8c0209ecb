//! The framing of TensorFlow's record files, in which TensorBoard reads events.

use std::io::{self, Write};

/// Writes records: a length, its checksum, the data, and their checksum, integers in little-endian order.
pub struct RecordWriter<W: Write>(W);

impl<W: Write> RecordWriter<W> {
    pub fn new(writer: W) -> Self {
        Self(writer)
    }

    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        self.0.write_all(&length)?;
        self.0.write_all(&masked_crc(&length))?;
        self.0.write_all(data)?;
        self.0.write_all(&masked_crc(data))
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// CRC-32C, rotated and offset: a checksum of data that contains checksums would be weak otherwise (TensorFlow,
/// `core/lib/hash/crc32c.h`).
fn masked_crc(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksums come from a bitwise CRC-32C in Python that gives 0xe3069283 for "123456789" (RFC 3720).
    #[test]
    fn records_are_framed_as_tensorflow_frames_them() {
        let mut bytes = Vec::new();
        RecordWriter::new(&mut bytes).write(b"abc").unwrap();
        let mut expected = vec![3, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([0xb0, 0x99, 0x49, 0x0e]);
        expected.extend(b"abc");
        expected.extend([0x6e, 0x57, 0xf1, 0x21]);
        assert_eq!(bytes, expected);
    }
}
