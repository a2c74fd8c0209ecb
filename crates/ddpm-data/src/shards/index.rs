//! The index of a shard as a file: the records, the state of the shard that they describe, and a checksum.

use std::collections::BTreeMap;

use super::record::{Classes, Names, Place, Records};
use super::stamp::Stamp;
use crate::findings::IgnoredFiles;
use crate::hash::Fingerprint;

/// The first bytes. The number changes with the format of the file, and with what a scan records.
const MAGIC: &[u8; 16] = b"ddpm-index   1\r\n";

/// The bytes of an index file.
pub(super) fn encode(stamp: Stamp, key: &str, records: &Records) -> Vec<u8> {
    let mut out = Writer(MAGIC.to_vec());
    out.stamp(stamp);
    out.text(key);
    out.word(records.identity);
    out.word(records.places.len() as u64);
    for place in &records.places {
        match *place {
            Place::Bytes { start, length } => out.words(0, &[start, length]),
            Place::Member { header, stored, length, crc, deflated } => {
                out.words(1, &[header, stored, length, u64::from(crc) << 1 | u64::from(deflated)]);
            }
            Place::Row { group, row } => out.words(2, &[u64::from(group) << 32 | u64::from(row)]),
        }
    }
    for label in &records.labels {
        out.0.extend_from_slice(&label.to_le_bytes());
    }
    out.text(&records.names.text);
    out.word(records.names.ends.len() as u64);
    records.names.ends.iter().for_each(|end| out.word(*end));
    let (kind, names) = match &records.classes {
        Classes::None => (0, &[][..]),
        Classes::Numbered => (1, &[][..]),
        Classes::Listed(names) => (2, &names[..]),
        Classes::Found(names) => (3, &names[..]),
    };
    out.words(kind, &[names.len() as u64]);
    names.iter().for_each(|name| out.text(name));
    out.word(records.ignored.0.len() as u64);
    for (extension, count) in &records.ignored.0 {
        out.text(extension);
        out.word(*count);
    }
    let sum = checksum(&out.0);
    out.word(sum);
    out.0
}

/// The records in an index file; `None` if it is damaged, of another version, or describes another state of the shard.
pub(super) fn decode(file: &[u8], stamp: Stamp, key: &str) -> Option<Records> {
    let (body, sum) = file.split_last_chunk::<8>()?;
    if checksum(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let mut file = Reader(body.strip_prefix(MAGIC)?);
    if file.stamp()? != stamp || file.text()? != key {
        return None;
    }
    let identity = file.word()?;
    let count = file.count()?;
    let mut places = Vec::with_capacity(count);
    for _ in 0..count {
        places.push(match file.byte()? {
            0 => Place::Bytes { start: file.word()?, length: file.word()? },
            1 => {
                let [header, stored, length] = [file.word()?, file.word()?, file.word()?];
                let check = file.word()?;
                Place::Member { header, stored, length, crc: (check >> 1) as u32, deflated: check & 1 == 1 }
            }
            2 => {
                let word = file.word()?;
                Place::Row { group: (word >> 32) as u32, row: word as u32 }
            }
            _ => return None,
        });
    }
    let labels = (0..count).map(|_| file.take::<4>().map(u32::from_le_bytes)).collect::<Option<Vec<_>>>()?;
    let text = file.text()?.to_owned();
    let names = file.count()?;
    let ends = (0..names).map(|_| file.word()).collect::<Option<Vec<_>>>()?;
    let kind = file.byte()?;
    let named = file.count()?;
    let named = (0..named).map(|_| file.text().map(str::to_owned)).collect::<Option<Vec<_>>>()?;
    let classes = match kind {
        0 => Classes::None,
        1 => Classes::Numbered,
        2 => Classes::Listed(named),
        3 => Classes::Found(named),
        _ => return None,
    };
    let kinds = file.count()?;
    let ignored: Option<BTreeMap<_, _>> = (0..kinds).map(|_| Some((file.text()?.to_owned(), file.word()?))).collect();
    let ignored = IgnoredFiles(ignored?);
    file.0.is_empty().then_some(Records { places, labels, names: Names { text, ends }, classes, ignored, identity })
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = Fingerprint::default();
    hash.add(bytes);
    hash.value()
}

struct Writer(Vec<u8>);

impl Writer {
    fn word(&mut self, word: u64) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    /// A byte that says what the words after it are.
    fn words(&mut self, kind: u8, words: &[u64]) {
        self.0.push(kind);
        words.iter().for_each(|word| self.word(*word));
    }

    fn text(&mut self, text: &str) {
        self.word(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn stamp(&mut self, stamp: Stamp) {
        [stamp.bytes, stamp.seconds as u64, stamp.nanoseconds as u64].into_iter().for_each(|word| self.word(word));
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn word(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// A number of things that follow, each of at least one byte: it cannot exceed what is left.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.word()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.count()?;
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn stamp(&mut self) -> Option<Stamp> {
        let [bytes, seconds, nanoseconds] = [self.word()?, self.word()?, self.word()?];
        Some(Stamp { bytes, seconds: seconds as i64, nanoseconds: nanoseconds as i64 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = Place> {
        prop_oneof![
            (any::<u64>(), any::<u64>()).prop_map(|(start, length)| Place::Bytes { start, length }),
            (any::<[u64; 3]>(), any::<u32>(), any::<bool>()).prop_map(|([header, stored, length], crc, deflated)| {
                Place::Member { header, stored, length, crc, deflated }
            }),
            (any::<u32>(), any::<u32>()).prop_map(|(group, row)| Place::Row { group, row }),
        ]
    }

    fn classes() -> impl Strategy<Value = Classes> {
        let names = || prop::collection::vec("\\PC{0,8}", 0..4);
        prop_oneof![
            Just(Classes::None),
            Just(Classes::Numbered),
            names().prop_map(Classes::Listed),
            names().prop_map(Classes::Found),
        ]
    }

    fn records() -> impl Strategy<Value = Records> {
        let rows = prop::collection::vec((place(), any::<u32>(), "\\PC{0,12}"), 0..20);
        let ignored = prop::collection::btree_map("[a-z]{0,4}", any::<u64>(), 0..3);
        (rows, classes(), ignored, any::<u64>()).prop_map(|(rows, classes, ignored, identity)| {
            let mut names = Names::default();
            rows.iter().for_each(|(_, _, name)| names.push(name));
            let places = rows.iter().map(|(place, ..)| *place).collect();
            let labels = rows.iter().map(|(_, label, _)| *label).collect();
            Records { places, labels, names, classes, ignored: IgnoredFiles(ignored), identity }
        })
    }

    fn stamp() -> impl Strategy<Value = Stamp> {
        (any::<u64>(), any::<i64>(), any::<i64>()).prop_map(|(bytes, seconds, nanoseconds)| Stamp {
            bytes,
            seconds,
            nanoseconds,
        })
    }

    proptest! {
        #[test]
        fn an_index_reads_back_as_written(records in records(), stamp in stamp(), key in "\\PC{0,20}") {
            let file = encode(stamp, &key, &records);
            let read = decode(&file, stamp, &key);
            prop_assert_eq!(read.as_ref(), Some(&records));
            for (i, (_, name)) in records.places.iter().zip(names(&records)).enumerate() {
                prop_assert_eq!(records.names.get(i), Some(name));
            }
            let other = Stamp { bytes: stamp.bytes ^ 1, ..stamp };
            prop_assert_eq!(decode(&file, other, &key), None);
            prop_assert_eq!(decode(&file, stamp, &format!("{key}x")), None);
        }

        #[test]
        fn a_damaged_index_is_not_read(
            records in records(), stamp in stamp(), at in any::<prop::sample::Index>(), flip in 1u8..,
            cut in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut file = encode(stamp, "key", &records);
            prop_assert_eq!(decode(&file[..cut.index(file.len())], stamp, "key"), None);
            let at = at.index(file.len());
            file[at] ^= flip;
            prop_assert_eq!(decode(&file, stamp, "key"), None);
            // Whatever follows the magic, with a valid checksum, is refused or read, never a panic.
            let mut noise = [&MAGIC[..], &noise].concat();
            noise.extend_from_slice(&checksum(&noise).to_le_bytes());
            let _ = decode(&noise, stamp, "key");
        }
    }

    fn names(records: &Records) -> Vec<&str> {
        let starts = std::iter::once(0).chain(records.names.ends.iter().copied());
        starts.zip(&records.names.ends).map(|(start, end)| &records.names.text[start as usize..*end as usize]).collect()
    }
}
