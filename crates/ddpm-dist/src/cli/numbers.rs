//! Numbers in arguments, each within its range.

use std::str::FromStr;

use ddpm_model::NoiseInterval;

pub(super) fn at_least_one<N: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<N, String> {
    let count = text.parse().ok().filter(|count| *count >= N::from(1));
    count.ok_or_else(|| "give a whole number of at least 1".into())
}

pub(super) fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("give a whole number from 0 to {}", u64::MAX))
}

pub(super) fn from_0_to_1(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| "give a number from 0 to 1".into())
}

pub(super) fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| "give a number".into())
}

pub(super) fn not_negative(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|number: &f64| *number >= 0.0 && number.is_finite());
    scale.ok_or_else(|| "give a number, 0 or above".into())
}

pub(super) fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "give a number above 0".into())
}

pub(super) fn fraction(text: &str) -> Result<f64, String> {
    above_zero(text).ok().filter(|number| *number <= 1.0).ok_or_else(|| "give a number above 0, at most 1".into())
}

pub(super) fn percentile(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (50.0..=100.0).contains(number));
    number.ok_or_else(|| "give a percentile from 50 to 100, such as 99.5".into())
}

pub(super) fn noise_interval(text: &str) -> Result<NoiseInterval, String> {
    let ends = text.split_once(',').and_then(|(low, high)| Some((low.trim().parse().ok()?, high.trim().parse().ok()?)));
    let interval = ends.map(|(low, high)| NoiseInterval { low, high });
    let valid = interval.filter(|interval| interval.low >= 0.0 && interval.low < interval.high);
    valid.ok_or_else(|| "give two numbers, 0 or above and rising, such as 0.2,5 or 0.2,inf".into())
}
