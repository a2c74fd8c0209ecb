//! Keys of a configuration, each with its default where an older version did not write it.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::NnError;

/// The keys of a JSON object that have not been read yet.
pub(super) struct Keys {
    path: PathBuf,
    values: Map<String, Value>,
}

impl Keys {
    pub(super) fn new(path: &Path, values: Map<String, Value>) -> Self {
        Self { path: path.into(), values }
    }

    /// Refuses the model for what its configuration asks for.
    pub(super) fn unsupported(&self, what: String) -> NnError {
        NnError::Unsupported { path: self.path.clone(), what }
    }

    fn refuse(&self, key: &str, value: &Value) -> NnError {
        let shown: String = value.to_string().chars().take(60).collect();
        self.unsupported(format!("{key} = {shown}"))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// A key's value; null is a value.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.values.remove(key)
    }

    /// A whole number within `range`.
    pub(super) fn whole(
        &mut self,
        key: &str,
        default: Option<i64>,
        range: RangeInclusive<i64>,
    ) -> Result<i64, NnError> {
        match (self.take(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.unsupported(format!("no {key}"))),
            (Some(value), _) => {
                value.as_i64().filter(|whole| range.contains(whole)).ok_or_else(|| self.refuse(key, &value))
            }
        }
    }

    /// A whole number within `range`, or null.
    pub(super) fn whole_or_null(
        &mut self,
        key: &str,
        default: Option<i64>,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, NnError> {
        match self.values.get(key) {
            None => Ok(default),
            Some(Value::Null) => {
                self.take(key);
                Ok(None)
            }
            Some(_) => self.whole(key, None, range).map(Some),
        }
    }

    pub(super) fn float(&mut self, key: &str, default: f64) -> Result<f64, NnError> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.refuse(key, &value)),
        }
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> Result<bool, NnError> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.refuse(key, &value)),
        }
    }

    /// The meaning of a text, one of `choices`.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, default: T, choices: &[(&str, T)]) -> Result<T, NnError> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => {
                let chosen = choices.iter().find(|(name, _)| value.as_str() == Some(name));
                chosen.map(|(_, meaning)| *meaning).ok_or_else(|| self.refuse(key, &value))
            }
        }
    }

    /// One to sixteen values, each made by `item`.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        default: Vec<T>,
        item: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, NnError> {
        let Some(value) = self.take(key) else { return Ok(default) };
        let items = value.as_array().filter(|items| (1..=16).contains(&items.len()));
        let items = items.and_then(|items| items.iter().map(item).collect());
        items.ok_or_else(|| self.refuse(key, &value))
    }

    /// A key of which only some values are implemented, its default among them.
    pub(super) fn only(&mut self, key: &str, accepts: impl Fn(&Value) -> bool) -> Result<(), NnError> {
        match self.take(key) {
            Some(value) if !accepts(&value) => Err(self.refuse(key, &value)),
            _ => Ok(()),
        }
    }

    /// The names of the keys that are left, without diffusers' own notes, which begin with an underscore.
    pub(super) fn rest(self) -> Vec<String> {
        self.values.into_iter().map(|(key, _)| key).filter(|key| !key.starts_with('_')).collect()
    }
}
