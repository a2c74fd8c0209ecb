//! Power-function averages (Karras et al. 2024, arXiv 2312.02696, section 3 and appendix C): their width, and combining
//! stored ones into an average of another width after training.
//!
//! The average of exponent g after t updates weighs the weights of update s by about `s^g`: `(g + 1) s^g / t^(g + 1)` as
//! a density. Its width is the standard deviation of that density relative to t.

use tch::{Kind, TchError, Tensor};

/// One power-function average: its exponent, and the number of updates after which it was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// The exponent g, at least 0.
    pub exponent: f64,
    /// Updates so far, at least 1.
    pub updates: f64,
}

/// The width of exponent `g` (section 3.1): `sqrt((g + 1) / ((g + 2)^2 (g + 3)))`.
fn width_of(g: f64) -> f64 {
    ((g + 1.0) / ((g + 2.0).powi(2) * (g + 3.0))).sqrt()
}

/// The exponent of a width above 0 and up to that of the plain mean, 0.2887, whose exponent is 0.
pub fn exponent_of(width: f64) -> f64 {
    // It decreases with the exponent, and is less than 1/g.
    let (mut low, mut high) = (0.0, 1.0 / width);
    while low < high {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if width_of(middle) > width {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The integral of the product of two densities (appendix C).
fn inner_product(a: Profile, b: Profile) -> f64 {
    let (a, b) = if a.updates <= b.updates { (a, b) } else { (b, a) };
    let earlier = (a.updates / b.updates).powf(b.exponent);
    (a.exponent + 1.0) * (b.exponent + 1.0) * earlier / ((a.exponent + b.exponent + 1.0) * b.updates)
}

/// The factors by which to multiply the `stored` averages so that their sum is closest to `target` (appendix C): the
/// solution of `A x = b` with the inner products of the stored ones, and of these with the target, divided by its sum as in
/// the authors' code. Also the distance that
/// remains, relative to the length of the target's density.
///
/// # Errors
/// Memory runs out.
pub fn combination(stored: &[Profile], target: Profile) -> Result<(Vec<f64>, f64), TchError> {
    let products = |b: Profile| stored.iter().map(move |a| inner_product(*a, b));
    let side = stored.len() as i64;
    let matrix: Vec<f64> = stored.iter().flat_map(|b| products(*b)).collect();
    let matrix = Tensor::f_from_slice(&matrix)?.f_view([side, side])?;
    let right: Vec<f64> = products(target).collect();
    let right = Tensor::f_from_slice(&right)?.f_view([side, 1])?;
    // Neighbouring profiles are nearly dependent: singular values below rounding count as zero.
    let (solved, ..) = matrix.f_linalg_lstsq(&right, None::<f64>, "gelsd")?;
    // An average: weights that never change stay as they are.
    let factors = solved.f_div(&solved.f_sum(Kind::Double)?)?;
    let dot = |column: &Tensor| factors.f_mul(column)?.f_sum(Kind::Double)?.f_double_value(&[]);
    let reached = 2.0 * dot(&right)? - dot(&matrix.f_matmul(&factors)?)?;
    let off = (1.0 - reached / inner_product(target, target)).max(0.0).sqrt();
    Ok((Vec::try_from(factors.f_view(-1)?)?, off))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The largest width: that of the plain mean, whose exponent is 0.
    const WIDEST: f64 = 0.288_675_134_594_812_9;

    fn profile(width: f64, updates: f64) -> Profile {
        Profile { exponent: exponent_of(width), updates }
    }

    #[test]
    fn widths_of_the_paper() {
        // Section 3.1.
        assert!((exponent_of(0.05) - 16.97).abs() < 0.005);
        assert!((exponent_of(0.10) - 6.94).abs() < 0.005);
        assert!((width_of(0.0) - WIDEST).abs() < 1e-15 && exponent_of(WIDEST) < 1e-9);
    }

    #[test]
    fn a_stored_average_is_itself() {
        let stored: Vec<Profile> = [0.05, 0.1].map(|width| profile(width, 500.0)).to_vec();
        let (factors, off) = combination(&stored, stored[1]).unwrap();
        assert!(off < 1e-6, "{off}");
        assert!(factors[0].abs() < 1e-9 && (factors[1] - 1.0).abs() < 1e-9, "{factors:?}");
    }

    /// What numpy.linalg.solve finds for [`evenly`] stored ones: the number of times, the width, and of the solution divided
    /// by its sum, the distance that remains and the sum of absolute values.
    const NUMPY: [(u32, f64, f64, f64); 5] = [
        (4, 0.075, 3.463079831e-02, 1.090908048),
        (8, 0.03, 1.008996647e-01, 4.824978756),
        (16, 0.15, 8.990842300e-03, 1.679617603),
        (32, 0.075, 8.950572345e-04, 1.469006799),
        (64, 0.06, 2.188545589e-04, 1.500077937),
    ];

    /// The widths 0.05 and 0.1 at `count` times up to 1.
    fn evenly(count: u32) -> Vec<Profile> {
        let times = (1..=count).map(|i| f64::from(i) / f64::from(count));
        times.flat_map(|t| [profile(0.05, t), profile(0.1, t)]).collect()
    }

    #[test]
    fn factors_equal_those_of_numpy() {
        for (count, width, off, absolute) in NUMPY {
            let (factors, found) = combination(&evenly(count), profile(width, 1.0)).unwrap();
            let found = [found, factors.iter().sum(), factors.iter().map(|factor| factor.abs()).sum()];
            for (found, expected) in found.into_iter().zip([off, 1.0, absolute]) {
                assert!((found / expected - 1.0).abs() < 1e-4, "{count} times, {width}: {found}, not {expected}");
            }
        }
    }

    proptest! {
        #[test]
        fn widths_invert(width in 1e-3..WIDEST) {
            prop_assert!((width_of(exponent_of(width)) - width).abs() < 1e-12);
        }

        /// Against a Riemann sum of the two densities.
        #[test]
        fn inner_products_are_integrals(
            widths in prop::array::uniform2(0.02..0.28_f64),
            updates in prop::array::uniform2(10.0..1000.0_f64),
        ) {
            let [a, b] = [0, 1].map(|i| profile(widths[i], updates[i]));
            let density = |p: Profile, s: f64| (p.exponent + 1.0) * (s / p.updates).powf(p.exponent) / p.updates;
            let (end, parts) = (a.updates.min(b.updates), 20_000);
            let step = end / f64::from(parts);
            let sum: f64 = (0..parts).map(|i| (f64::from(i) + 0.5) * step).map(|s| density(a, s) * density(b, s)).sum();
            prop_assert!((inner_product(a, b) / (sum * step) - 1.0).abs() < 1e-3);
        }

        /// The combination follows the target's density at every time.
        #[test]
        fn a_width_in_between_is_reconstructed(width in 0.05..0.1_f64) {
            let times = (1..=20).map(|i| 50.0 * f64::from(i));
            let stored: Vec<Profile> = times.flat_map(|t| [profile(0.05, t), profile(0.1, t)]).collect();
            let target = profile(width, 1000.0);
            let (factors, error) = combination(&stored, target).unwrap();
            let density = |p: &Profile, s: f64| {
                if s > p.updates { 0.0 } else { (p.exponent + 1.0) * (s / p.updates).powf(p.exponent) / p.updates }
            };
            let (mut off, mut all, mut squares, mut whole) = (0.0, 0.0, 0.0, 0.0);
            for s in (0..1000).map(|s| f64::from(s) + 0.5) {
                let found: f64 = stored.iter().zip(&factors).map(|(p, x)| x * density(p, s)).sum();
                off += (found - density(&target, s)).abs();
                all += density(&target, s);
                squares += (found - density(&target, s)).powi(2);
                whole += density(&target, s).powi(2);
            }
            prop_assert!((factors.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(off / all < 0.02, "{}", off / all);
            prop_assert!((error - (squares / whole).sqrt()).abs() < 1e-3, "{error}");
        }
    }
}
