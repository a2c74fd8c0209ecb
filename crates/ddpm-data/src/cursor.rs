//! A file read at any position by several threads, and the state by which a changed file is recognised.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::pixels;
use crate::ranges::Ranges;

/// A cursor of its own on a file that others read too.
#[derive(Clone)]
pub(crate) struct Cursor {
    file: Arc<dyn Ranges>,
    length: u64,
    position: u64,
}

impl Cursor {
    pub(crate) fn new(file: Arc<dyn Ranges>) -> io::Result<Self> {
        let length = file.length()?;
        Ok(Cursor { file, length, position: 0 })
    }

    /// The size of the file when it was opened.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// What the file is by its first bytes, if that is known: a phrase that follows "this is".
    pub(crate) fn kind(&self) -> io::Result<Option<&'static str>> {
        let mut start = Vec::new();
        self.clone().take(512).read_to_end(&mut start)?;
        Ok(if start.is_empty() { None } else { pixels::name(&start) })
    }
}

impl Read for Cursor {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = self.length.saturating_sub(self.position);
        let n = out.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        if n == 0 {
            return Ok(0);
        }
        self.file.read_exact_at(&mut out[..n], self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

impl Length for Cursor {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Cursor {
    type T = BufReader<Cursor>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::new(Cursor { position: start, ..self.clone() }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes, ParquetError> {
        // Refused before anything is allocated: a damaged footer may announce any length.
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF(format!("it refers to bytes beyond its {} bytes", self.length)));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}
