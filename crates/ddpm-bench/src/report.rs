//! The results of a benchmark: names, which include their units, and values.

use serde::{Serialize, Serializer};
use serde_json::Value;

/// Names and values, in the order in which they are printed.
#[derive(Default)]
pub struct Report {
    values: Vec<(&'static str, Value)>,
    note: Option<String>,
}

impl Report {
    /// Sets a value, which is null if the number is not finite.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.values.push((name, value)),
        }
        self
    }

    /// Adds what is for readers only.
    pub(crate) fn noting(self, note: String) -> Self {
        Self { note: Some(note), ..self }
    }

    /// What is for readers only: tables of several lines.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// A line for each value that was measured.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let measured = self.values.iter().filter(|(_, value)| !value.is_null());
        measured.map(|(name, value)| match value.as_f64().filter(|_| value.is_f64()) {
            Some(number) => format!("{name:<24} {number:.4}"),
            None => format!("{name:<24} {value}"),
        })
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.values.iter().map(|(name, value)| (name, value)))
    }
}
