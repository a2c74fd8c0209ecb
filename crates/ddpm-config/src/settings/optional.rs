//! Keys that may be left out.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Reads 0, or an empty text, as "not set", so that `--set` and an extending file can undo a value, which TOML itself
/// cannot.
pub(super) fn zero_is_none<'de, D, N>(deserializer: D) -> Result<Option<N>, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + PartialEq + Default,
{
    Ok(Option::<N>::deserialize(deserializer)?.filter(|n| *n != N::default()))
}

/// Reads an empty list as "not set", likewise.
pub(super) fn empty_is_none<'de, D, N, const COUNT: usize>(deserializer: D) -> Result<Option<[N; COUNT]>, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de>,
{
    let Some(list) = Option::<Vec<N>>::deserialize(deserializer)?.filter(|list| !list.is_empty()) else {
        return Ok(None);
    };
    let count = list.len();
    let expected = format!("an array of length {COUNT}");
    list.try_into().map(Some).map_err(|_| D::Error::invalid_length(count, &expected.as_str()))
}
