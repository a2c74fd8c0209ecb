//! Keys that may be left out.

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
