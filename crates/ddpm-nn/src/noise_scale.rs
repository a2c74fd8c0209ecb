//! The gradient noise scale: how noisy the gradient is.

use serde::{Deserialize, Serialize};

/// The share of a step's estimates in the average, which thus covers the last hundred or so steps.
const SHARE: f64 = 0.01;

/// The gradient noise scale tr(Σ)/|G|² (McCandlish et al. 2018, appendix A.1), by which Nichol & Dhariwal (2021, section
/// 3.3) compare objectives: G is the true gradient and Σ the covariance of one sample's. It is the number of images in a
/// batch at which noise and signal are equal.
///
/// Averaging over the ranks yields both estimates at no cost: E|g_B|² = |G|² + tr(Σ)/B for a batch of B, and each step
/// holds the norms of two sizes, a rank's batch and the global one. Both estimates are averaged over steps before they are
/// divided, because a single step's may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GradientNoise {
    /// tr(Σ), times the weight.
    variance: f64,
    /// |G|², times the weight.
    signal: f64,
    /// Sum of the weights of the estimates so far; below 1 while there are few.
    weight: f64,
}

impl GradientNoise {
    /// Records one step: `parts` are the norms of the gradients of equal parts of the batch (one per rank), `whole` is
    /// the norm of their mean, from `batch` samples. A single part gives no estimate, nor does a norm that is not finite.
    pub fn update(&mut self, parts: &[f64], whole: f64, batch: usize) {
        let small = batch as f64 / parts.len() as f64;
        let large = batch as f64;
        let of_part = parts.iter().map(|norm| norm * norm).sum::<f64>() / parts.len() as f64;
        let of_whole = whole * whole;
        if parts.len() < 2 || !(of_part + of_whole).is_finite() {
            return;
        }
        let variance = (of_part - of_whole) / (1.0 / small - 1.0 / large);
        let signal = (large * of_whole - small * of_part) / (large - small);
        self.variance += SHARE * (variance - self.variance);
        self.signal += SHARE * (signal - self.signal);
        self.weight += SHARE * (1.0 - self.weight);
    }

    /// tr(Σ), the sum of the variances of one sample's gradient over all parameters; none before the first estimate.
    pub fn variance(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.variance / self.weight)
    }

    /// tr(Σ)/|G|², in images; none while the estimate of |G|² is not above 0.
    pub fn scale(&self) -> Option<f64> {
        (self.variance > 0.0 && self.signal > 0.0).then(|| self.variance / self.signal)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Normal};

    use super::*;

    #[test]
    fn the_scale_of_known_gradients_is_found_from_any_number_of_parts() {
        // One sample's gradient: mean 1 and variance 4 in each of 50 dimensions, hence a scale of 4.
        let (dimensions, batch) = (50, 16);
        let normal = Normal::new(1.0, 2.0).unwrap();
        for parts in [2, 4] {
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let mut noise = GradientNoise::default();
            for _ in 0..400 {
                let mut mean_of_part = || -> Vec<f64> {
                    let each = batch / parts;
                    (0..dimensions)
                        .map(|_| (0..each).map(|_| normal.sample(&mut rng)).sum::<f64>() / each as f64)
                        .collect()
                };
                let gradients: Vec<Vec<f64>> = (0..parts).map(|_| mean_of_part()).collect();
                let norm = |g: &[f64]| g.iter().map(|x| x * x).sum::<f64>().sqrt();
                let whole: Vec<f64> =
                    (0..dimensions).map(|i| gradients.iter().map(|g| g[i]).sum::<f64>() / parts as f64).collect();
                noise.update(&gradients.iter().map(|g| norm(g)).collect::<Vec<_>>(), norm(&whole), batch);
            }
            let scale = noise.scale().unwrap();
            assert!((scale - 4.0).abs() < 0.4, "{parts} parts: {scale}");
            let variance = noise.variance().unwrap();
            assert!((variance / 200.0 - 1.0).abs() < 0.1, "{parts} parts: {variance}");
        }
    }

    #[test]
    fn a_single_part_or_a_non_finite_norm_gives_no_estimate() {
        let mut noise = GradientNoise::default();
        noise.update(&[3.0], 3.0, 8);
        noise.update(&[3.0, f64::NAN], f64::NAN, 8);
        assert_eq!((noise, noise.scale(), noise.variance()), (GradientNoise::default(), None, None));
    }
}
