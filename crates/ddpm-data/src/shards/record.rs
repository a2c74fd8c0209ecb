//! The records of one shard: where each image is, its name and its label.

use crate::findings::IgnoredFiles;
use crate::hash::Fingerprint;

/// The label of a record without one.
pub(super) const NO_LABEL: u32 = u32::MAX;

/// Where a record's image file is inside its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// These bytes of a tar file.
    Bytes {
        /// The offset of the first.
        start: u64,
        /// How many.
        length: u64,
    },
    /// A member of a ZIP file.
    Member {
        /// The offset of its local header.
        header: u64,
        /// Its bytes in the ZIP file.
        stored: u64,
        /// Its bytes when decompressed.
        length: u64,
        /// Its checksum.
        crc: u32,
        /// Whether it is compressed by Deflate, or not at all.
        deflated: bool,
    },
    /// A row of a Parquet file.
    Row {
        /// The number of its row group.
        group: u32,
        /// Its number inside the group.
        row: u32,
    },
}

impl Place {
    /// The memory that reading takes, in bytes; 0 where the shard's directory does not say.
    pub(super) fn bytes(&self) -> u64 {
        match *self {
            Place::Bytes { length, .. } => length,
            Place::Member { stored, length, .. } => stored.max(length),
            Place::Row { .. } => 0,
        }
    }
}

/// The classes of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Classes {
    /// No record has a label.
    None,
    /// Labels are numbers that nothing names.
    Numbered,
    /// The shard lists the names of all classes, with or without images.
    Listed(Vec<String>),
    /// Labels are names; these are the ones that occur, sorted.
    Found(Vec<String>),
}

/// Strings, one after the other in one allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub text: String,
    /// Where each name ends.
    pub ends: Vec<u64>,
}

impl Names {
    pub(super) fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len() as u64);
    }

    /// The name of a record; `None` if the records of this shard have no names.
    pub(super) fn get(&self, record: usize) -> Option<&str> {
        let end = *self.ends.get(record)?;
        let start = record.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start as usize..end as usize)
    }
}

/// The index of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Records {
    pub places: Vec<Place>,
    /// The label of each record, or [`NO_LABEL`]; with [`Classes::Found`], an index of these.
    pub labels: Vec<u32>,
    /// The name of each record, if they have names.
    pub names: Names,
    pub classes: Classes,
    /// What else the shard contains.
    pub ignored: IgnoredFiles,
    /// A hash of all that can be known of the images without reading them.
    pub identity: u64,
}

impl Records {
    /// How a record is called in messages.
    pub(super) fn name(&self, record: usize) -> String {
        match (self.names.get(record), self.places[record]) {
            (Some(name), _) if !name.is_empty() => name.to_owned(),
            (_, Place::Row { group, row }) => format!("row {row} of group {group}"),
            _ => format!("record {record}"),
        }
    }

    /// The hash of names, sizes and labels, and of `more` about the contents.
    pub(super) fn hash(names: &Names, places: &[Place], labels: &[u32], more: &[u64]) -> u64 {
        let mut hash = Fingerprint::default();
        hash.add(names.text.as_bytes());
        names.ends.iter().for_each(|end| hash.add(&end.to_le_bytes()));
        for place in places {
            match place {
                Place::Bytes { length, .. } => hash.add(&length.to_le_bytes()),
                Place::Member { length, crc, .. } => hash.add(&(length ^ u64::from(*crc) << 32).to_le_bytes()),
                Place::Row { .. } => {}
            }
        }
        labels.iter().for_each(|label| hash.add(&label.to_le_bytes()));
        more.iter().for_each(|word| hash.add(&word.to_le_bytes()));
        hash.value()
    }
}
