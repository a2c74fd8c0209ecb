//! Environment variables, of which an empty one counts as not set.

/// The value of a variable.
pub(crate) fn value<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter().find(|(its_name, value)| its_name == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

/// Whether a boolean variable is true.
pub(crate) fn is_true(value: &str) -> bool {
    ["1", "true", "on", "yes", "y"].contains(&value.to_ascii_lowercase().as_str())
}
