//! WebDataset: tar files in which consecutive members with the same base name are one sample.

use std::io::Read;
use std::path::Path;

use ddpm_spec::ShardLabels;

use super::fault::Fault;
use super::labels::{Label, first_folder, resolve};
use super::record::{Names, Place, Records};
use crate::DataError;
use crate::cursor::Cursor;
use crate::findings::IgnoredFiles;
use crate::listing::{is_image, is_visible_name};
use crate::ranges::Ranges;

/// What tar files consist of, in bytes.
const BLOCK: u64 = 512;

/// The largest member that is read for a label.
const MAX_LABEL: u64 = 1 << 20;

/// A sample, as far as its members have been seen.
#[derive(Default)]
struct Sample {
    key: String,
    /// Name and place of the image.
    image: Option<(String, Place)>,
    /// The content of the member that only holds the label.
    text: Option<String>,
    /// The label in `.json`.
    json: Option<Label>,
}

/// Lists the samples of a tar file that is not compressed.
pub(super) fn scan(path: &Path, cursor: Cursor, labels: &ShardLabels) -> Result<Records, DataError> {
    let mut scan = Scan { path, labels, samples: Vec::new(), ignored: IgnoredFiles::default() };
    let kind = cursor.kind().map_err(DataError::io(path))?;
    let length = cursor.length();
    let unreadable = |error: std::io::Error| {
        let reason = match kind {
            Some(kind) => format!("this is {kind}, not a tar file; fetch it again, or change data.kind"),
            None => format!("this tar file is damaged or truncated ({error}); fetch it again"),
        };
        DataError::format(path, reason)
    };
    let mut archive = tar::Archive::new(cursor);
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (start, size) = (entry.raw_file_position(), entry.size());
        end = start.saturating_add(size);
        if end > length {
            let reason = format!("this tar file is truncated: it ends inside {name}; fetch it again");
            return Err(DataError::format(path, reason));
        }
        if entry.header().entry_type().is_file() {
            scan.add(&name, Place::Bytes { start, length: size }, &mut entry)?;
        }
    }
    if !length.is_multiple_of(BLOCK) {
        let reason = format!("this tar file is truncated: its size is not a multiple of {BLOCK} bytes; fetch it again");
        return Err(DataError::format(path, reason));
    }
    let records = scan.finish()?;
    // A file that was cut between two members differs from a whole one by the block of zeros that ends these.
    if end.next_multiple_of(BLOCK) + BLOCK > length {
        let reason = "this tar file is truncated between two members: the zeros that end a tar file are missing; fetch it \
                      again, or if it is known to be complete, append them by truncate -s +1024";
        return Err(DataError::format(path, reason));
    }
    Ok(records)
}

/// The bytes of a member.
pub(super) fn read(file: &dyn Ranges, start: u64, length: u64) -> Result<Vec<u8>, Fault> {
    let length = usize::try_from(length).map_err(|_| Fault::Record("this image is too large".into()))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

struct Scan<'a> {
    path: &'a Path,
    labels: &'a ShardLabels,
    samples: Vec<Sample>,
    ignored: IgnoredFiles,
}

impl Scan<'_> {
    fn add(&mut self, name: &str, place: Place, content: &mut impl Read) -> Result<(), DataError> {
        let Some((key, extension)) = split_name(name).filter(|_| is_visible_name(name)) else { return Ok(()) };
        if self.samples.last().is_none_or(|sample| sample.key != key) {
            self.samples.push(Sample { key: key.to_owned(), ..Sample::default() });
        }
        let Some(sample) = self.samples.last_mut() else { return Ok(()) };
        if is_image(name.as_ref()) {
            if let Some((other, _)) = &sample.image {
                let reason = format!("the sample {key} has two images, {other} and {name}; keep one image per sample");
                return Err(DataError::format(self.path, reason));
            }
            sample.image = Some((name.to_owned(), place));
            return Ok(());
        }
        let (member, field) = match self.labels {
            ShardLabels::Auto => ("cls", "label"),
            ShardLabels::Field(field) => (field.as_str(), field.as_str()),
            ShardLabels::None | ShardLabels::Folder => ("", ""),
        };
        match extension.as_str() {
            extension if !member.is_empty() && extension == member => {
                sample.text = Some(text(self.path, name, content)?)
            }
            "json" if !field.is_empty() => sample.json = json_label(self.path, name, field, content)?,
            // Labels that are not asked for.
            "cls" | "json" => {}
            other => *self.ignored.0.entry(other.to_owned()).or_default() += 1,
        }
        Ok(())
    }

    fn finish(self) -> Result<Records, DataError> {
        let Scan { path, labels, samples, ignored } = self;
        let mut names = Names::default();
        let (mut places, mut found) = (Vec::new(), Vec::new());
        let in_members = samples.iter().any(|sample| sample.text.is_some());
        for Sample { key, image, text, json } in samples {
            let Some((name, place)) = image else { continue };
            names.push(&name);
            places.push(place);
            found.push(match labels {
                ShardLabels::Folder => Some(Label::Name(first_folder(path, &key)?)),
                _ if in_members => text.map(|text| text.parse().map_or(Label::Name(text), Label::Number)),
                _ => json,
            });
        }
        if places.is_empty() {
            let others = match ignored.0.is_empty() {
                true => String::new(),
                false => format!(" (but {ignored})"),
            };
            let reason = format!("this tar file contains no image{others}; point data.path at files with images");
            return Err(DataError::format(path, reason));
        }
        if let (ShardLabels::Field(field), true) = (labels, found.iter().all(Option::is_none)) {
            let reason = format!("no sample has a member .{field}, or a key {field} in .json; correct data.labels");
            return Err(DataError::format(path, reason));
        }
        let (labels, classes) = resolve(path, &names, found, None)?;
        let identity = Records::hash(&names, &places, &labels, &[]);
        Ok(Records { places, labels, names, classes, ignored, identity })
    }
}

/// The base name, which is the key of the sample, and the extension in lower case: divided at the first dot of the
/// file's name, as WebDataset does.
fn split_name(name: &str) -> Option<(&str, String)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    (dot > file).then(|| (&name[..dot], name[dot + 1..].to_lowercase()))
}

fn text(shard: &Path, name: &str, content: &mut impl Read) -> Result<String, DataError> {
    let mut text = String::new();
    content.take(MAX_LABEL).read_to_string(&mut text).map_err(|error| {
        DataError::format(shard, format!("the label in {name} cannot be read ({error}); fetch the file again"))
    })?;
    Ok(text.trim().to_owned())
}

/// The label at `field` of a JSON object, if it has that key.
fn json_label(shard: &Path, name: &str, field: &str, content: &mut impl Read) -> Result<Option<Label>, DataError> {
    let refuse =
        |problem: String| DataError::format(shard, format!("{name} {problem}; correct it, or change data.labels"));
    let value: serde_json::Value = serde_json::from_str(&text(shard, name, content)?)
        .map_err(|error| refuse(format!("is not valid JSON ({error})")))?;
    match value.get(field) {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(name)) => Ok(Some(Label::Name(name.clone()))),
        Some(value) => match value.as_i64() {
            Some(number) => Ok(Some(Label::Number(number))),
            None => Err(refuse(format!("has {value} as {field}, which is neither a class number nor a name"))),
        },
    }
}
