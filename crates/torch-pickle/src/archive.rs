//! The layout since torch 1.6: a zip archive of uncompressed records, `NAME/data.pkl` and `NAME/data/KEY`.

use std::collections::BTreeMap;

use crate::reader::Reader;
use crate::tensor::{Region, Tensor};
use crate::{PickleError, machine, state_dict};

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;

/// Length of the end record without its comment, and of the locator before it.
const END_LENGTH: usize = 22;
const LOCATOR_LENGTH: usize = 20;

/// The value of a 32-bit field whose actual value is in the extra field.
const IN_EXTRA: u64 = u32::MAX as u64;

pub(crate) fn recognises(bytes: &[u8]) -> bool {
    bytes.starts_with(&LOCAL.to_le_bytes())
}

pub(crate) fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, Tensor<'_>>, PickleError> {
    let records = records(bytes)?;
    if records.keys().any(|name| name.contains("/code/")) {
        let message = "it is a TorchScript module, which contains the code of a network besides its weights";
        return Err(PickleError::Unsupported(message.into()));
    }
    let program = records.iter().find_map(|(name, record)| Some((name.strip_suffix("/data.pkl")?, record)));
    let (prefix, program) = program
        .ok_or_else(|| PickleError::Unsupported("it is a zip archive without the data.pkl of torch.save".into()))?;
    let program = program.ok_or_else(compressed)?;
    if records
        .get(format!("{prefix}/byteorder").as_str())
        .is_some_and(|order| order.is_some_and(|order| order.bytes == b"big"))
    {
        return Err(PickleError::Unsupported("it was written on a big-endian machine".into()));
    }
    if program.checksum.is_some_and(|sum| crc32fast::hash(program.bytes) != sum) {
        return Err(PickleError::damaged("its pickle does not match its checksum"));
    }
    let (objects, _) = machine::read(program.bytes)?;
    state_dict::tensors(&objects, |key| {
        let record = records.get(format!("{prefix}/data/{key}").as_str()).copied();
        record.ok_or_else(|| PickleError::damaged("a storage is missing"))?.ok_or_else(compressed)
    })
}

/// The archive's records by name, from the directory at its end; `None` for those that are compressed or encrypted.
fn records(bytes: &[u8]) -> Result<BTreeMap<&str, Option<Region<'_>>>, PickleError> {
    let (start, length) = directory(bytes)?;
    let mut directory = Reader::new(within(bytes, start, length)?);
    let mut records = BTreeMap::new();
    while directory.at() < length as usize {
        let (name, record) = record(bytes, &mut directory)?;
        records.insert(name, record);
    }
    Ok(records)
}

/// The position and length of the directory.
fn directory(bytes: &[u8]) -> Result<(u64, u64), PickleError> {
    let missing = || PickleError::damaged("the end of the archive is missing, as after an interrupted download");
    // A comment of up to 64 KiB may follow the end record.
    let last = bytes.len().checked_sub(END_LENGTH).ok_or_else(missing)?;
    let places = (last.saturating_sub(usize::from(u16::MAX))..=last).rev();
    let end = places.into_iter().find(|at| bytes[*at..].starts_with(&END.to_le_bytes())).ok_or_else(missing)?;
    let mut fields = Reader::new(&bytes[end + 12..]);
    let (length, start) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
    if length != IN_EXTRA && start != IN_EXTRA {
        return Ok((start, length));
    }
    let locator = end.checked_sub(LOCATOR_LENGTH).ok_or_else(missing)?;
    let mut locator = Reader::new(&bytes[locator..]);
    if locator.u32()? != LOCATOR_64 {
        return Err(missing());
    }
    locator.take(4)?;
    let mut end = Reader::new(within(bytes, locator.u64()?, 56)?);
    if end.u32()? != END_64 {
        return Err(missing());
    }
    end.take(36)?;
    let length = end.u64()?;
    Ok((end.u64()?, length))
}

/// The next record of the directory: its name and its content.
fn record<'a>(bytes: &'a [u8], directory: &mut Reader<'a>) -> Result<(&'a str, Option<Region<'a>>), PickleError> {
    if directory.u32()? != CENTRAL {
        return Err(PickleError::damaged("the archive's directory is invalid"));
    }
    directory.take(4)?;
    let (flags, method) = (directory.u16()?, directory.u16()?);
    directory.take(4)?;
    let checksum = directory.u32()?;
    let (stored, length) = (u64::from(directory.u32()?), u64::from(directory.u32()?));
    let (name, extra, comment) = (directory.u16()?, directory.u16()?, directory.u16()?);
    directory.take(8)?;
    let offset = u64::from(directory.u32()?);
    let name = directory.text(u64::from(name))?;
    let mut extra = Reader64::new(directory.take(usize::from(extra))?);
    directory.take(usize::from(comment))?;
    if method != 0 || flags & 1 != 0 {
        return Ok((name, None));
    }
    let length = extra.value(length)?;
    extra.value(stored)?;
    let offset = extra.value(offset)?;
    let mut local = Reader::new(within(bytes, offset, 30)?);
    if local.u32()? != LOCAL {
        return Err(PickleError::damaged("a record of the archive is not where the directory says"));
    }
    local.take(22)?;
    let skipped = 30 + u64::from(local.u16()?) + u64::from(local.u16()?);
    let start = offset.checked_add(skipped).ok_or_else(cut_short)?;
    Ok((name, Some(Region { bytes: within(bytes, start, length)?, checksum: Some(checksum) })))
}

/// The extra field with the values that do not fit into 32 bits, in the order of their fields.
struct Reader64<'a>(Option<Reader<'a>>);

impl<'a> Reader64<'a> {
    fn new(extra: &'a [u8]) -> Self {
        let mut fields = Reader::new(extra);
        while let (Ok(id), Ok(length)) = (fields.u16(), fields.u16()) {
            match fields.take(usize::from(length)) {
                Ok(values) if id == 1 => return Self(Some(Reader::new(values))),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Self(None)
    }

    fn value(&mut self, field: u64) -> Result<u64, PickleError> {
        match &mut self.0 {
            Some(values) if field == IN_EXTRA => values.u64(),
            _ => Ok(field),
        }
    }
}

fn within(bytes: &[u8], start: u64, length: u64) -> Result<&[u8], PickleError> {
    let end = start.checked_add(length).ok_or_else(cut_short)?;
    let (start, end) = (usize::try_from(start), usize::try_from(end));
    start.ok().zip(end.ok()).and_then(|(start, end)| bytes.get(start..end)).ok_or_else(cut_short)
}

fn compressed() -> PickleError {
    PickleError::Unsupported("its records are compressed or encrypted, which torch.save never does".into())
}

fn cut_short() -> PickleError {
    PickleError::damaged("a part of the archive is missing")
}
