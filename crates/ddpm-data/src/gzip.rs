//! gzip files: one member after another, and what may lie behind the last.

use std::io::{self, BufRead, Cursor, Read};

use flate2::bufread::GzDecoder;

/// The first bytes of every member.
pub(crate) const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Unpacks the members of a gzip file as one stream, each checked against its checksum. Like gunzip it passes over what
/// follows the last member and is none: zeros that fill up a block, a line end.
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
