//! ZIP archives of images, with the labels of StyleGAN and EDM in `dataset.json`.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::path::Path;

use ddpm_spec::ShardLabels;
use serde::Deserialize;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::fault::Fault;
use super::labels::{Label, first_folder, resolve};
use super::record::{Names, Place, Records};
use crate::DataError;
use crate::cursor::Cursor;
use crate::findings::IgnoredFiles;
use crate::listing::{is_image, is_visible_name};
use crate::ranges::Ranges;

/// The file of labels.
const LABELS: &str = "dataset.json";
/// Bytes that are read at a time from the directory. Members' headers are far apart, and each takes a read of its own.
const DIRECTORY_READ: usize = 4096;
/// The first bytes of a local header, and how many it has before the name.
const HEADER: [u8; 4] = *b"PK\x03\x04";
const HEADER_BYTES: usize = 30;
/// More than extra fields usually have: of ZIP64, times, owners.
const EXTRA_BYTES: u64 = 64;

/// What `dataset.json` contains.
#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    labels: Option<Vec<(String, serde_json::Value)>>,
}

/// Lists the images of a ZIP file, in the order of their names.
pub(super) fn scan(path: &Path, cursor: Cursor, labels: &ShardLabels) -> Result<Records, DataError> {
    let kind = cursor.kind().map_err(DataError::io(path))?.filter(|kind| *kind != "a ZIP archive");
    let end = cursor.length();
    let mut archive = ZipArchive::new(BufReader::with_capacity(DIRECTORY_READ, cursor)).map_err(|error| {
        let reason = match (error, kind) {
            (ZipError::Io(error), _) if error.raw_os_error().is_some() => return DataError::io(path)(error),
            (_, Some(kind)) => format!("this is {kind}, not a ZIP file; fetch it again, or change data.kind"),
            (error, None) => format!("this ZIP file is damaged or truncated ({error}); fetch it again"),
        };
        DataError::format(path, reason)
    })?;
    let mut members = Vec::new();
    let mut ignored = IgnoredFiles::default();
    for i in 0..archive.len() {
        let unreadable = |error| DataError::format(path, format!("its directory is damaged ({error}); fetch it again"));
        let member = archive.by_index_raw(i).map_err(unreadable)?;
        let name = member.name().to_owned();
        if !member.is_file() || !is_visible_name(&name) || name == LABELS {
            continue;
        }
        if !is_image(name.as_ref()) {
            let extension = Path::new(&name).extension().unwrap_or_default().to_string_lossy().to_lowercase();
            *ignored.0.entry(extension).or_default() += 1;
            continue;
        }
        let deflated = match member.compression() {
            CompressionMethod::Stored => false,
            CompressionMethod::Deflated => true,
            other => {
                let reason = format!("{name} is compressed by {other}; make the file with Deflate, or uncompressed");
                return Err(DataError::format(path, reason));
            }
        };
        let (header, stored, length) = (member.header_start(), member.compressed_size(), member.size());
        if header.saturating_add(HEADER_BYTES as u64).saturating_add(stored) > end {
            let reason = format!("its directory is damaged ({name} would end beyond the file); fetch it again");
            return Err(DataError::format(path, reason));
        }
        members.push((name, Place::Member { header, stored, length, crc: member.crc32(), deflated }));
    }
    if members.is_empty() {
        let others = if ignored.0.is_empty() { String::new() } else { format!(" (but {ignored})") };
        let reason = format!("this ZIP file contains no image{others}; point data.path at a file with images");
        return Err(DataError::format(path, reason));
    }
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut listed = match labels {
        ShardLabels::Auto => labels_by_name(path, &mut archive)?,
        _ => None,
    };
    let mut names = Names::default();
    let (mut places, mut found) = (Vec::with_capacity(members.len()), Vec::with_capacity(members.len()));
    for (name, place) in members {
        found.push(match (labels, &mut listed) {
            (ShardLabels::Folder, _) => Some(Label::Name(first_folder(path, &name)?)),
            (_, Some(listed)) => Some(Label::Number(listed.remove(&name).ok_or_else(|| {
                let reason = format!("{LABELS} has no label for {name}; add it, or set data.labels = \"none\"");
                DataError::format(path, reason)
            })?)),
            _ => None,
        });
        names.push(&name);
        places.push(place);
    }
    let (labels, classes) = resolve(path, &names, found, None)?;
    let identity = Records::hash(&names, &places, &labels, &[]);
    Ok(Records { places, labels, names, classes, ignored, identity })
}

/// The labels in `dataset.json`, by the names of the images; `None` if there are none.
fn labels_by_name(
    path: &Path,
    archive: &mut ZipArchive<BufReader<Cursor>>,
) -> Result<Option<HashMap<String, i64>>, DataError> {
    let refuse = |problem: String| DataError::format(path, format!("{LABELS} {problem}; correct it"));
    let member = match archive.by_name(LABELS) {
        Ok(member) => member,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(refuse(format!("cannot be read ({error})"))),
    };
    let listed: Listed = serde_json::from_reader(BufReader::new(member))
        .map_err(|error| refuse(format!("is not of the form {{\"labels\": [[name, number], ...]}} ({error})")))?;
    let Some(rows) = listed.labels else { return Ok(None) };
    let number = |(name, value): (String, serde_json::Value)| match value.as_i64() {
        Some(number) => Ok((name, number)),
        None => Err(refuse(format!("gives {name} the label {value}, which is not a class number"))),
    };
    rows.into_iter().map(number).collect::<Result<HashMap<_, _>, _>>().map(Some)
}

/// Where the member whose local header is at `header` is in the file, nearly: how long the extra field is, only its
/// header says.
pub(super) fn place(header: u64, stored: u64, name: &str) -> Range<u64> {
    header..header.saturating_add(HEADER_BYTES as u64 + name.len() as u64 + EXTRA_BYTES).saturating_add(stored)
}

/// The content of the member whose local header is at `header`, with its checksum verified.
pub(super) fn read(
    file: &dyn Ranges,
    header: u64,
    stored: u64,
    length: u64,
    crc: u32,
    deflated: bool,
) -> Result<Vec<u8>, Fault> {
    let damaged = || Fault::Record("this image is damaged: its checksum in the ZIP file is wrong".into());
    let mut local = [0; HEADER_BYTES];
    file.read_exact_at(&mut local, header)?;
    if !local.starts_with(&HEADER) {
        return Err(Fault::Record("this image is damaged: its header in the ZIP file is wrong".into()));
    }
    if local[6] & 1 == 1 {
        return Err(Fault::Record("this image is encrypted; make the ZIP file without a password".into()));
    }
    // The lengths of the name and of the extra field.
    let [name, extra] = [26, 28].map(|at| u64::from(u16::from_le_bytes([local[at], local[at + 1]])));
    let too_large = |_| Fault::Record("this image is too large".into());
    let size = usize::try_from(length).map_err(too_large)?;
    let mut bytes = vec![0; usize::try_from(stored).map_err(too_large)?];
    file.read_exact_at(&mut bytes, header.saturating_add(HEADER_BYTES as u64 + name + extra))?;
    if deflated {
        let mut inflated = Vec::with_capacity(size.min(bytes.len().saturating_mul(8)));
        let mut decoder = flate2::bufread::DeflateDecoder::new(&bytes[..]).take(length.saturating_add(1));
        decoder.read_to_end(&mut inflated).map_err(|_| damaged())?;
        bytes = inflated;
    }
    if bytes.len() != size || crc32fast::hash(&bytes) != crc {
        return Err(damaged());
    }
    Ok(bytes)
}
