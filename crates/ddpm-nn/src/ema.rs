//! Exponential moving averages of the weights.

use tch::{Device, Tensor};

use crate::NnError;

/// One moving average: `ema <- r ema + (1 - r) weights` per update.
#[derive(Debug)]
pub struct Ema {
    rate: f64,
    warmup: bool,
    updates: u64,
    flat: Tensor,
}

impl Ema {
    /// Starts at `weights` (f32 flat). With `warmup`, update `n` (from 0) uses `min(rate, (1 + n) / (10 + n))`, so
    /// that the average is not held back by its starting point.
    ///
    /// # Errors
    /// Memory runs out.
    pub fn new(weights: &Tensor, rate: f64, warmup: bool) -> Result<Self, NnError> {
        Self::restore(rate, warmup, 0, &weights.detach(), weights.device())
    }

    /// Continues an average from its saved buffer and counter.
    ///
    /// # Errors
    /// Memory runs out.
    pub fn restore(rate: f64, warmup: bool, updates: u64, flat: &Tensor, device: Device) -> Result<Self, NnError> {
        Ok(Self { rate, warmup, updates, flat: flat.f_to_device_(device, flat.kind(), false, true)? })
    }

    /// The rate that it was created with.
    pub fn rate(&self) -> f64 {
        self.rate
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
        let n = self.updates as f64;
        let rate = if self.warmup { self.rate.min((1.0 + n) / (10.0 + n)) } else { self.rate };
        let _ = tch::no_grad(|| self.flat.f_lerp_(weights, 1.0 - rate))?;
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
        let ema = |warmup| Ema::new(&start, 0.999, warmup).unwrap();
        let (mut plain, mut warm) = (ema(false), ema(true));
        for _ in 0..20 {
            plain.update(&target).unwrap();
            warm.update(&target).unwrap();
        }
        assert!((plain.flat().double_value(&[0]) - (1.0 - 0.999f64.powi(20))).abs() < 1e-5);
        assert!(warm.flat().double_value(&[0]) > 0.99);
        assert_eq!(warm.updates(), 20);
    }
}
