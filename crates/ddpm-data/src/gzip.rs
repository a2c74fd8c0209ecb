//! gzip files: one or more members, possibly with trailing bytes.

use std::io::{self, BufRead, Cursor, Read};

use flate2::bufread::GzDecoder;

/// The first bytes of every member.
pub(crate) const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Decompresses the members of a gzip file as one stream and verifies each checksum. Like gunzip it ignores trailing
/// bytes that are not a member: zero padding, a line end.
pub(crate) struct Members(Option<GzDecoder<Cursor<Vec<u8>>>>);

impl Members {
    pub(crate) fn new(file: Vec<u8>) -> Self {
        Members(Some(GzDecoder::new(Cursor::new(file))))
    }
}

impl Read for Members {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let n = member.read(out)?;
            if n > 0 || out.is_empty() {
                return Ok(n);
            }
            let mut rest = self.0.take().map(GzDecoder::into_inner).unwrap_or_default();
            if rest.fill_buf()?.starts_with(&MAGIC) {
                self.0 = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}
