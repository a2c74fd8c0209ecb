//! Moving averages of the weights.

use tch::{Device, Tensor};

use crate::NnError;
use crate::power_average::exponent_of;

/// How much an update counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Averaging {
    /// `ema <- r ema + (1 - r) weights` per update. With `warmup`, update `n` (from 0) uses `min(r, (1 + n) / (10 + n))`,
    /// so that the average is not held back by its starting point.
    Exponential {
        /// The rate r, at least 0 and below 1.
        rate: f64,
        /// Whether the first updates count more.
        warmup: bool,
    },
    /// A power function of time (Karras et al. 2024, arXiv 2312.02696, eq. 3): update `t` (from 1) keeps
    /// `(1 - 1/t)^(g + 1)` of the average.
    Power {
        /// Its width relative to the updates so far; see [`exponent_of`].
        width: f64,
    },
}

impl Averaging {
    /// Whether it is a power function.
    pub fn is_power(self) -> bool {
        matches!(self, Self::Power { .. })
    }

    /// What update `n`, from 0, keeps of the average.
    fn kept(self, n: u64) -> f64 {
        let n = n as f64;
        match self {
            Self::Exponential { rate, warmup: false } => rate,
            Self::Exponential { rate, warmup: true } => rate.min((1.0 + n) / (10.0 + n)),
            Self::Power { width } => (n / (n + 1.0)).powf(exponent_of(width) + 1.0),
        }
    }
}

/// One moving average.
#[derive(Debug)]
pub struct Ema {
    averaging: Averaging,
    updates: u64,
    flat: Tensor,
}

impl Ema {
    /// Starts at `weights` (f32 flat).
    ///
    /// # Errors
    /// Memory runs out.
    pub fn new(weights: &Tensor, averaging: Averaging) -> Result<Self, NnError> {
        let weights = weights.detach();
        Ok(Self { averaging, updates: 0, flat: weights.f_to_device_(weights.device(), weights.kind(), false, true)? })
    }

    /// Continues an average from its saved buffer and counter. The buffer is moved to `device`, and not copied if it is
    /// there.
    ///
    /// # Errors
    /// Memory runs out.
    pub fn restore(averaging: Averaging, updates: u64, flat: Tensor, device: Device) -> Result<Self, NnError> {
        Ok(Self { averaging, updates, flat: flat.f_to_device(device)? })
    }

    /// How it averages.
    pub fn averaging(&self) -> Averaging {
        self.averaging
    }

    /// Number of updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The averaged weights, f32 flat.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Updates the average with the current `weights` (f32 flat).
    ///
    /// # Errors
    /// The weights have another length, or libtorch fails.
    pub fn update(&mut self, weights: &Tensor) -> Result<(), NnError> {
        let share = 1.0 - self.averaging.kept(self.updates);
        let _ = tch::no_grad(|| self.flat.f_lerp_(weights, share))?;
        self.updates += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_forgets_the_start_quickly() {
        let start = Tensor::from_slice(&[0f32]);
        let target = Tensor::from_slice(&[1f32]);
        let ema = |warmup| Ema::new(&start, Averaging::Exponential { rate: 0.999, warmup }).unwrap();
        let (mut plain, mut warm) = (ema(false), ema(true));
        for _ in 0..20 {
            plain.update(&target).unwrap();
            warm.update(&target).unwrap();
        }
        assert!((plain.flat().double_value(&[0]) - (1.0 - 0.999f64.powi(20))).abs() < 1e-5);
        assert!(warm.flat().double_value(&[0]) > 0.99);
        assert_eq!(warm.updates(), 20);
    }

    /// The weights of update s count (s^(g+1) - (s-1)^(g+1)) / t^(g+1); those before training not at all.
    #[test]
    fn a_power_function_of_time() {
        let values = [3.0, -1.0, 4.0, 1.0, -5.0f32];
        let mut average = Ema::new(&Tensor::from_slice(&[1e3f32]), Averaging::Power { width: 0.1 }).unwrap();
        for value in values {
            average.update(&Tensor::from_slice(&[value])).unwrap();
        }
        let power = |s: f64| s.powf(exponent_of(0.1) + 1.0);
        let terms =
            values.iter().zip(1..).map(|(value, s)| f64::from(*value) * (power(s.into()) - power(f64::from(s) - 1.0)));
        let expected = terms.sum::<f64>() / power(5.0);
        assert!((average.flat().double_value(&[0]) - expected).abs() < 1e-5);
    }
}
