//! The checks that validation is made of, and the values that messages propose.

use std::fmt::Display;

use crate::{Error, Misspelt};

pub(super) fn require(
    holds: bool,
    key: &'static str,
    problem: impl FnOnce() -> String,
    mend: impl FnOnce() -> String,
) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Invalid { key, problem: problem(), mend: mend() }) }
}

pub(super) fn in_range(key: &'static str, value: impl Display, holds: bool, wanted: impl Display) -> Result<(), Error> {
    let problem = || format!("{key} = {value} is out of range");
    require(holds, key, problem, || format!("It must be {wanted}"))
}

pub(super) fn positive(key: &'static str, value: u64) -> Result<(), Error> {
    in_range(key, value, value > 0, "at least 1")
}

pub(super) fn not_empty(key: &'static str, text: &str) -> Result<(), Error> {
    require(
        !text.trim().is_empty(),
        key,
        || format!("{key} is empty"),
        || "Give it a value, or leave the key out".into(),
    )
}

/// Refuses a path or an address that `check` finds misspelt.
pub(super) fn spelt(key: &'static str, text: &str, check: fn(&str) -> Result<(), Misspelt>) -> Result<(), Error> {
    check(text).map_err(|Misspelt { problem, fix }| Error::Invalid {
        key,
        problem: format!("{key} = {text:?} {problem}"),
        mend: fix,
    })
}

pub(super) fn positive_finite(value: f64) -> bool {
    value > 0.0 && value.is_finite()
}

pub(super) fn inside_unit(value: f64) -> bool {
    value > 0.0 && value < 1.0
}

pub(super) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

pub(super) fn largest_divisor(n: u32, limit: u32) -> u32 {
    (1..=n.min(limit)).rev().find(|d| n.is_multiple_of(*d)).unwrap_or(1)
}

pub(super) fn nearest_multiples(n: usize, unit: usize) -> String {
    let below = n / unit * unit;
    let above = below.saturating_add(unit);
    if below == 0 { above.to_string() } else { format!("{below} or {above}") }
}

pub(super) fn nearest_divisors(n: usize, wanted: usize) -> String {
    let small = (1..).take_while(|d| d * d <= n).filter(|d| n.is_multiple_of(*d));
    let mut all: Vec<usize> = small.flat_map(|d| [d, n / d]).collect();
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
