//! The names of all keys, and the nearest name to a misspelt one.

use serde_json::Value;
use strsim::damerau_levenshtein;

use crate::{Error, Settings};

/// Every leaf of the settings with its value, dotted keys in alphabetical order.
pub(crate) fn flatten(settings: &Settings) -> Vec<(String, Value)> {
    fn walk(prefix: &str, value: Value, out: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    walk(&join(prefix, &name), value, out);
                }
            }
            leaf => out.push((prefix.to_owned(), leaf)),
        }
    }
    let mut out = Vec::new();
    walk("", serde_json::to_value(settings).expect("settings hold only what JSON can express"), &mut out);
    out
}

/// The sections, and the key, whose values distinguish experiments.
const OF_EXPERIMENTS: [&str; 6] = ["data", "diffusion", "ema", "model", "seed", "train"];

impl Settings {
    /// What distinguishes this experiment from others: dotted keys with their values, in alphabetical order, without those that
    /// say where results go and how ranks work together.
    pub fn hyperparameters(&self) -> Vec<(String, Value)> {
        let mut keys = flatten(self);
        keys.retain(|(key, _)| OF_EXPERIMENTS.contains(&key.split('.').next().unwrap_or(key)));
        keys
    }
}

/// `prefix.name`, or `name` at the top.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Refuses a dotted key that does not exist, with the nearest one; `origin` says where it was written.
///
/// # Errors
/// [`Error::UnknownKey`].
pub fn check_key(key: &str, origin: &str) -> Result<(), Error> {
    if flatten(&Settings::default()).iter().any(|(known, _)| known == key) {
        return Ok(());
    }
    Err(unknown_key(key, origin))
}

/// The error for a key that does not exist. Similar names in other sections are found too: `lr` suggests `train.lr`.
pub(crate) fn unknown_key(key: &str, origin: &str) -> Error {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut known: Vec<String> = flatten(&Settings::default()).into_iter().map(|(known, _)| known).collect();
    let sections: Vec<String> = known.iter().filter_map(|k| k.split_once('.')).map(|(s, _)| s.to_owned()).collect();
    known.extend(sections);
    known.dedup();
    let home = |k: &str| k.rsplit_once('.').map_or("", |(section, _)| section) == section;
    let near = known
        .iter()
        .map(|k| (damerau_levenshtein(name, k.rsplit('.').next().unwrap_or(k)), !home(k), k))
        .filter(|(distance, ..)| *distance <= tolerance(name))
        .min();
    let hint = match near {
        Some((_, _, k)) => format!("Did you mean `{k}`?"),
        None => {
            let mut siblings: Vec<&str> = known.iter().filter(|k| home(k)).map(String::as_str).collect();
            if siblings.is_empty() {
                siblings = known.iter().filter(|k| !k.contains('.')).map(String::as_str).collect();
            }
            siblings.sort_unstable();
            siblings.dedup();
            format!("Use one of {}.", siblings.join(", "))
        }
    };
    Error::UnknownKey { key: key.to_owned(), origin: origin.to_owned(), hint }
}

/// The candidate nearest to `name`, if one is near enough.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerance(name))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The largest number of edits at which two names still count as similar.
fn tolerance(name: &str) -> usize {
    (name.chars().count() / 3).clamp(1, 3)
}
