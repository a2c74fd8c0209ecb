//! The results of a benchmark: names, which include their units, and values.

use serde::{Serialize, Serializer};
use serde_json::Value;

use ddpm_model::Error;

use crate::output::print;

/// Names and values, in the order in which they are printed.
#[derive(Default)]
pub struct Report(Vec<(&'static str, Value)>);

impl Report {
    /// Sets a value, which is null if the number is not finite.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
        self
    }

    /// Prints on stdout: one JSON object, or a line per value.
    pub fn print(&self, json: bool) -> Result<(), Error> {
        if json {
            return print(serde_json::to_string(self).expect("names and plain values"));
        }
        for (name, value) in self.0.iter().filter(|(_, value)| !value.is_null()) {
            match value.as_f64().filter(|_| value.is_f64()) {
                Some(number) => print(format_args!("{name:<24} {number:.4}"))?,
                None => print(format_args!("{name:<24} {value}"))?,
            }
        }
        Ok(())
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
