//! From the labels that shards contain to classes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::record::{Classes, NO_LABEL, Names, Records};
use crate::DataError;
use crate::classes::{self, Class};

/// Labels above this are taken for something other than classes.
const MAX_CLASSES: i64 = 1 << 20;

/// A label as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Number(i64),
    Name(String),
}

/// The labels of a shard as numbers. Negative numbers mean "no label", as in Hugging Face's test splits. Numbers and
/// names may not be mixed, nor records with and without labels. `listed` are the names of the classes, if the shard has
/// them.
///
/// # Errors
/// [`DataError::Format`], which names the first record at fault.
pub(super) fn resolve(
    shard: &Path,
    names: &Names,
    labels: Vec<Option<Label>>,
    listed: Option<Vec<String>>,
) -> Result<(Vec<u32>, Classes), DataError> {
    let labels: Vec<_> = labels.into_iter().map(|label| label.filter(|label| !is_negative(label))).collect();
    let called = |record: usize| names.get(record).map_or(format!("record {record}"), str::to_owned);
    let refuse = |record: usize, what: String| Err(DataError::format(shard, format!("{} {what}", called(record))));
    if labels.iter().all(Option::is_none) {
        return Ok((vec![NO_LABEL; labels.len()], Classes::None));
    }
    if let Some(record) = labels.iter().position(Option::is_none) {
        return refuse(record, "has no label, but others do; give it one, or set data.labels = \"none\"".into());
    }
    let found: Vec<String> = labels.iter().flatten().filter_map(text).collect::<BTreeSet<_>>().into_iter().collect();
    let limit = listed.as_ref().map_or(MAX_CLASSES, |names| names.len() as i64);
    let mut numbers = Vec::with_capacity(labels.len());
    for (record, label) in labels.iter().flatten().enumerate() {
        match label {
            Label::Name(_) if listed.is_some() => {
                return refuse(record, "has a name as label, but the classes are numbered; set data.labels".into());
            }
            Label::Name(name) => numbers.push(found.binary_search(name).unwrap_or_default() as u32),
            Label::Number(_) if !found.is_empty() => {
                return refuse(record, "has a number as label, but others have names; set data.labels".into());
            }
            Label::Number(number) if *number >= limit => {
                return refuse(
                    record,
                    format!("has the label {number}, but classes are numbered below {limit}; set data.labels"),
                );
            }
            Label::Number(number) => numbers.push(*number as u32),
        }
    }
    let classes = match listed {
        Some(names) => Classes::Listed(names),
        None if found.is_empty() => Classes::Numbered,
        None => Classes::Found(found),
    };
    Ok((numbers, classes))
}

fn is_negative(label: &Label) -> bool {
    matches!(label, Label::Number(number) if *number < 0)
}

fn text(label: &Label) -> Option<String> {
    match label {
        Label::Name(name) => Some(name.clone()),
        Label::Number(_) => None,
    }
}

/// The first folder of a member's name.
pub(super) fn first_folder(shard: &Path, name: &str) -> Result<String, DataError> {
    let name = name.trim_start_matches("./");
    name.split_once('/').map(|(folder, _)| folder.to_owned()).ok_or_else(|| {
        let reason = format!("classes come from folders, but {name} is not in one; change data.labels");
        DataError::format(shard, reason)
    })
}

/// The classes of all shards together; renumbers the labels where shards found names of their own. `known` gives the
/// names of classes that are only numbered, if they are known.
///
/// # Errors
/// [`DataError::Format`] if a shard does not go with the first; those of `known`.
pub(super) fn unite(
    shards: &mut [(PathBuf, Records)],
    known: impl FnOnce() -> Result<Option<Vec<String>>, DataError>,
) -> Result<Vec<Class>, DataError> {
    let Some((first, rest)) = shards.split_first() else { return Ok(Vec::new()) };
    for (path, records) in rest {
        let same = match (&first.1.classes, &records.classes) {
            (Classes::Listed(ours), Classes::Listed(theirs)) => ours == theirs,
            (ours, theirs) => std::mem::discriminant(ours) == std::mem::discriminant(theirs),
        };
        if !same {
            let reason = format!(
                "its classes are not those of {} (labels missing, named differently, or numbers instead of names); keep \
                 one of the two, or set data.labels = \"none\"",
                first.0.display()
            );
            return Err(DataError::format(path, reason));
        }
    }
    let names: Vec<String> = match &first.1.classes {
        Classes::None => return Ok(Vec::new()),
        Classes::Listed(names) => names.clone(),
        Classes::Numbered => {
            let last = shards.iter().flat_map(|(_, records)| &records.labels).max();
            let last = last.map_or(0, |last| *last as usize);
            let known = known()?.filter(|names| last < names.len());
            known.unwrap_or_else(|| (0..=last).map(|class| class.to_string()).collect())
        }
        Classes::Found(_) => {
            let all: BTreeSet<String> = shards.iter().flat_map(|(_, records)| found(records)).cloned().collect();
            let all: Vec<String> = all.into_iter().collect();
            for (_, records) in shards.iter_mut() {
                let numbers: Vec<u32> =
                    found(records).iter().map(|name| all.binary_search(name).unwrap_or_default() as u32).collect();
                records.labels.iter_mut().for_each(|label| *label = numbers[*label as usize]);
            }
            all
        }
    };
    let labels = shards.iter().flat_map(|(_, records)| records.labels.iter().copied());
    Ok(classes::count(names, labels))
}

fn found(records: &Records) -> &[String] {
    match &records.classes {
        Classes::Found(names) => names,
        _ => &[],
    }
}
