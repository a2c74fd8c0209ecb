//! Waiting for the slowest rank.

/// Half the range of the integral, in standard deviations, and its number of steps.
const RANGE: f64 = 10.0;
const STEPS: u32 = 4000;

/// The expected maximum of `n` independent standard normal numbers.
///
/// With F the probability of one number below x, F^n is that of all: the mean of the maximum is the integral of 1 - F^n
/// over x > 0 less that of F^n over x < 0.
pub(crate) fn expected_max(n: usize) -> f64 {
    let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let width = 2.0 * RANGE / f64::from(STEPS);
    let all = |one: f64| one.powf(n as f64);
    let (mut below, mut mean) = (0.0, 0.0);
    for step in 0..STEPS {
        let x = f64::from(step) * width - RANGE;
        // Simpson's rule for F; the trapezoidal rule for the mean, which is exact enough as F^n is flat at both ends.
        let next = below + width / 6.0 * (density(x) + 4.0 * density(x + width / 2.0) + density(x + width));
        let certain = if 2 * step < STEPS { 0.0 } else { 1.0 };
        mean += width * (certain - (all(below) + all(next)) / 2.0);
        below = next;
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 2 and 3: 1/sqrt(pi) and 3/(2 sqrt(pi)). The others from Harter (1961), "Expected values of normal order
    /// statistics", table 1.
    #[test]
    fn it_agrees_with_the_published_values() {
        let pi = std::f64::consts::PI;
        let known = [(1, 0.0), (2, 1.0 / pi.sqrt()), (3, 1.5 / pi.sqrt())];
        let tabulated = [(4, 1.02938), (5, 1.16296), (8, 1.42360), (10, 1.53875), (100, 2.50759)];
        for (n, expected) in known.into_iter().chain(tabulated) {
            assert!((expected_max(n) - expected).abs() < 6e-6, "{n}: {} and {expected}", expected_max(n));
        }
    }
}
