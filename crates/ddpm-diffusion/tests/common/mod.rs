//! What the tests of the mathematics share: processes, noise, and data whose best network is known.
#![allow(dead_code, reason = "each test crate uses its part")]

use ddpm_diffusion::{
    BetaSchedule, Diffusion, DiffusionSpec, Loss, Prediction, Stream, Variance, Weighting, betas, noise_batch,
};
use tch::{Device, Kind, Tensor};

/// A process whose network predicts eps.
pub const SIMPLE: DiffusionSpec = DiffusionSpec {
    prediction: Prediction::Eps,
    variance: Variance::FixedSmall,
    loss: Loss::Simple,
    weighting: Weighting::None,
};
/// The standard deviation of the data in the tests whose best network is known.
pub const SPREAD: f64 = 0.5;

/// DDPM's schedule.
pub fn linear(timesteps: usize) -> Diffusion {
    Diffusion::new(betas(&BetaSchedule::linear(timesteps), timesteps).unwrap(), SIMPLE, Device::Cpu).unwrap()
}

/// Standard normal draws `[batch, shape...]` in f64.
pub fn noise(seed: u64, batch: u64, shape: &[i64]) -> Tensor {
    let positions: Vec<u64> = (0..batch).collect();
    noise_batch(seed, Stream::Noise, &positions, shape).to_kind(Kind::Double)
}

/// The largest difference.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// The mean square.
pub fn mean_square(x: &Tensor) -> f64 {
    x.square().mean(Kind::Double).double_value(&[])
}

/// The best possible eps where x_0 is normal with mean 0 and standard deviation [`SPREAD`]: `original` is the process
/// whose timesteps the network was trained on.
pub fn gaussian_model(
    original: &Diffusion,
) -> impl Fn(&Tensor, &Tensor) -> Result<Tensor, Box<dyn std::error::Error + Send + Sync>> {
    let abar = Tensor::from_slice(&original.alphas_cumprod);
    move |x, t| {
        let abar = abar.index_select(0, t).view([-1, 1, 1, 1]);
        let one_minus: Tensor = 1.0 - &abar;
        Ok(x * one_minus.sqrt() / (abar * (SPREAD * SPREAD) + one_minus))
    }
}

/// The model of golden's bound.json, at images `x` and timesteps `t` of `timesteps`: eps, then the variance's channels.
pub fn bound_model(
    timesteps: usize,
    x: &Tensor,
    t: &Tensor,
) -> Result<Tensor, Box<dyn std::error::Error + Send + Sync>> {
    let share = t.to_kind(x.kind()).view([-1, 1, 1, 1]) / timesteps as f64;
    let eps: Tensor = x * &share * 0.9 + 0.05;
    let v: Tensor = (x * 3.0).sin() * (1.0 - share);
    Ok(Tensor::cat(&[eps, v], 1))
}
