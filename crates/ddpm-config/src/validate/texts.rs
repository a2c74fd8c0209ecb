//! Checks of texts.

use ddpm_spec::SpecError;
use ddpm_spec::check::require;

use crate::address::Misspelt;

/// Refuses a text without a visible character.
pub(super) fn not_empty(key: &str, text: &str) -> Result<(), SpecError> {
    require(
        !text.trim().is_empty(),
        key,
        || format!("{key} is empty"),
        || "Give it a value, or leave the key out".into(),
    )
}

/// Refuses a path or an address that `check` finds misspelt.
pub(super) fn spelt(key: &str, text: &str, check: fn(&str) -> Result<(), Misspelt>) -> Result<(), SpecError> {
    check(text).map_err(|Misspelt { problem, fix }| SpecError {
        path: key.into(),
        problem: format!("{key} = {text:?} {problem}"),
        fix,
    })
}
