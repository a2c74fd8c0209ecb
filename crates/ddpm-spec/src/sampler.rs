//! How images are drawn from a trained network.

use serde::{Deserialize, Serialize};

/// How x_{t-1} follows from x_t and the network's output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampler {
    /// A draw from p(x_{t-1} | x_t) (Ho et al. 2020, algorithm 2).
    Ancestral,
    /// DDIM (Song et al. 2020).
    Ddim(Ddim),
    /// Heun's method on the probability-flow ODE (Karras et al. 2022): deterministic, of second order, two evaluations a
    /// step but for the last.
    Heun,
    /// DPM-Solver++ of second order, multistep (Lu et al. 2022): deterministic, for 10 to 30 steps.
    DpmSolver,
}

/// DDIM's options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ddim {
    /// 0 is deterministic, 1 adds as much noise as the posterior has (Song et al. 2020, eq. 16).
    pub eta: f64,
    /// Which eps the step points along.
    pub direction: Direction,
}

/// Which eps points from the predicted x_0 back to x_t. They differ only where x_0 was clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Direction {
    /// At noise levels in this interval the one that leads from x_t to the clipped x_0, as in the code of Nichol &
    /// Dhariwal; at others the model's own.
    FromXStart(NoiseInterval),
    /// The model's own, as diffusers' `DDIMScheduler` has it by default.
    FromModel,
}

/// An interval (low, high] of noise levels sigma = sqrt(1/abar - 1) (Kynkäänniemi et al. 2024).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseInterval {
    /// Its lower end, 0 or above, which it does not contain.
    pub low: f64,
    /// Its upper end, above the lower one; it may be infinite.
    pub high: f64,
}

impl NoiseInterval {
    /// Every noise level.
    pub const ALL: Self = Self { low: 0.0, high: f64::INFINITY };

    /// Whether the interval contains this noise level.
    pub fn contains(self, sigma: f64) -> bool {
        self.low < sigma && sigma <= self.high
    }
}

/// The name of a [`Sampler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// [`Sampler::Ancestral`].
    Ddpm,
    /// [`Sampler::Ddim`].
    Ddim,
    /// [`Sampler::Heun`].
    Heun,
    /// [`Sampler::DpmSolver`].
    Dpmpp,
}

impl SamplerKind {
    /// The sampler; `ddim` are the options of [`Sampler::Ddim`], which the others do not have.
    pub fn with(self, ddim: Ddim) -> Sampler {
        match self {
            Self::Ddpm => Sampler::Ancestral,
            Self::Ddim => Sampler::Ddim(ddim),
            Self::Heun => Sampler::Heun,
            Self::Dpmpp => Sampler::DpmSolver,
        }
    }
}
