//! The checksum of what is written.

use std::io;

use sha2::{Digest, Sha256};

/// Passes on what is written, and hashes it.
pub(super) struct Hashing<W> {
    pub out: W,
    hash: Sha256,
    pub bytes: u64,
}

impl<W> Hashing<W> {
    pub(super) fn new(out: W) -> Self {
        Hashing { out, hash: Sha256::new(), bytes: 0 }
    }

    pub(super) fn hex(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
