//! A WebDataset shard: members `000000000.png` and `000000000.cls` for each image.

use std::io::{self, Write};

use tar::{Builder, EntryType, Header};

use super::record::Record;

/// Writes a tar file to `out`. The same records give the same bytes.
pub(super) struct TarShard<W: Write>(Builder<W>);

impl<W: Write> TarShard<W> {
    pub(super) fn new(out: W) -> Self {
        TarShard(Builder::new(out))
    }

    /// Appends the image with this id.
    pub(super) fn add(&mut self, id: u64, record: &Record) -> io::Result<()> {
        self.member(&format!("{id:09}.{}", record.extension), &record.bytes)?;
        match record.class {
            Some(class) => self.member(&format!("{id:09}.cls"), class.to_string().as_bytes()),
            None => Ok(()),
        }
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.0.into_inner()
    }

    fn member(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, name, content)
    }
}
