//! The checks that validation consists of, and the values that their messages propose.

use std::fmt::Display;

use crate::error::SpecError;

/// Refuses the field `path` unless `holds`; both texts are sentences without their full stop.
///
/// # Errors
/// [`SpecError`] with these texts.
pub fn require(
    holds: bool,
    path: &str,
    problem: impl FnOnce() -> String,
    fix: impl FnOnce() -> String,
) -> Result<(), SpecError> {
    if holds { Ok(()) } else { Err(SpecError { path: path.to_owned(), problem: problem(), fix: fix() }) }
}

/// Refuses a value that is not what is `wanted`, such as "at least 1".
///
/// # Errors
/// [`SpecError`], naming the value and what is wanted.
pub fn in_range(path: &str, value: impl Display, holds: bool, wanted: impl Display) -> Result<(), SpecError> {
    let problem = || format!("{path} = {value} is out of range");
    require(holds, path, problem, || format!("It must be {wanted}"))
}

/// Refuses 0.
///
/// # Errors
/// [`SpecError`].
pub fn positive(path: &str, value: u64) -> Result<(), SpecError> {
    in_range(path, value, value > 0, "at least 1")
}

/// Whether a number is above 0 and finite.
pub fn positive_finite(value: f64) -> bool {
    value > 0.0 && value.is_finite()
}

/// Whether a number is strictly between 0 and 1.
pub fn inside_unit(value: f64) -> bool {
    value > 0.0 && value < 1.0
}

/// Refuses a list of flags that has not one for each level of `channels`.
///
/// # Errors
/// [`SpecError`].
pub fn one_per_level(path: &str, flags: &[bool], channels: &str, levels: usize) -> Result<(), SpecError> {
    require(
        flags.len() == levels,
        path,
        || format!("{path} has {} entries for the {levels} levels of {channels}", flags.len()),
        || format!("Give {levels}, one true or false per level"),
    )
}

/// The greatest common divisor.
pub fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The largest divisor of `n` that is at most `limit`.
pub fn largest_divisor(n: u64, limit: u64) -> u64 {
    (1..=n.min(limit)).rev().find(|d| n.is_multiple_of(*d)).unwrap_or(1)
}

/// The multiples of `unit`, above 0, just below and above `n`, in words.
pub fn nearest_multiples(n: u64, unit: u64) -> String {
    let below = n / unit * unit;
    let above = below.saturating_add(unit);
    if below == 0 { above.to_string() } else { format!("{below} or {above}") }
}

/// Up to five divisors of `n`, those nearest to `wanted`, in words.
pub fn nearest_divisors(n: u64, wanted: u64) -> String {
    let small = (1..).take_while(|d| d * d <= n).filter(|d| n.is_multiple_of(*d));
    let mut all: Vec<u64> = small.flat_map(|d| [d, n / d]).collect();
    all.sort_unstable();
    all.dedup();
    all.sort_by_key(|d| d.abs_diff(wanted));
    all.truncate(5);
    all.sort_unstable();
    match all.split_last() {
        Some((last, rest)) if !rest.is_empty() => {
            let rest: Vec<String> = rest.iter().map(ToString::to_string).collect();
            format!("{} or {last}", rest.join(", "))
        }
        _ => n.to_string(),
    }
}
