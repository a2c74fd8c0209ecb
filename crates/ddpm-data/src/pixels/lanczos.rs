//! The Lanczos filter of three lobes, without sines: computing the resizer's own takes longer than applying it.

use std::f64::consts::PI;

use fast_image_resize::{Filter, FilterType};

/// The series of `sin(y) / y` in powers of `y * y`; up to `PI` it is exact to 4e-12.
const SERIES: [f64; 11] = {
    let mut terms = [1.0; 11];
    let mut n = 1;
    while n < terms.len() {
        terms[n] = -terms[n - 1] / (2 * n * (2 * n + 1)) as f64;
        n += 1;
    }
    terms
};

/// The filter. Its weights equal those of [`FilterType::Lanczos3`] to 1e-11.
pub(super) fn filter() -> FilterType {
    FilterType::Custom(Filter::new("Lanczos3", lanczos3, 3.0).expect("the support is positive"))
}

/// `sinc(x) * sinc(x / 3)` up to 3, with `sinc(x) = sin(PI * x) / (PI * x)`. The first factor follows from the second by
/// `sin(3 y) = 3 sin(y) - 4 sin(y)^3`.
fn lanczos3(x: f64) -> f64 {
    if x.abs() >= 3.0 {
        return 0.0;
    }
    let y2 = (x * (PI / 3.0)).powi(2);
    let sinc = SERIES.iter().rfold(0.0, |sum, term| sum * y2 + term);
    let square = sinc * sinc;
    square * (1.0 - 4.0 / 3.0 * y2 * square)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::lanczos3;

    #[test]
    fn weights_are_those_of_the_definition() {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
        for x in (-3500..=3500).map(|x| f64::from(x) / 1000.0) {
            let exact = if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 };
            assert!((lanczos3(x) - exact).abs() < 1e-11, "{x}: {} and not {exact}", lanczos3(x));
        }
    }
}
