//! One noise process: its `f64` tables, and their copies on the device that the images live on.

use ddpm_spec::{DiffusionSpec, Naming};
use tch::{Device, Kind, Tensor};

use crate::weighting::weight;
use crate::{DiffusionError, schedule};

/// `alphas_cumprod` at the last timestep above which x_T still shows x_0: such a schedule deserves a warning, because
/// sampling starts from pure noise, which the network has never seen in training.
pub const VISIBLE_SIGNAL: f64 = 1e-2;

/// A Gaussian diffusion process of T timesteps with its tables, every one indexed by 0-based t.
///
/// The tables are computed and kept in `f64`; tensor arithmetic casts a gathered value to the kind of the images
/// last. Copies of the tables stay on `device`, so a training step uploads nothing.
#[derive(Debug)]
pub struct Diffusion {
    /// beta_t.
    pub betas: Vec<f64>,
    /// abar_t, the product of 1 - beta up to and including t.
    pub alphas_cumprod: Vec<f64>,
    /// abar_{t-1}; 1 at t = 0.
    pub alphas_cumprod_prev: Vec<f64>,
    /// Variance of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7); 0 at t = 0.
    pub posterior_variance: Vec<f64>,
    /// Its logarithm, with the value of t = 1 at t = 0, where the variance is 0.
    pub posterior_log_variance_clipped: Vec<f64>,
    /// The coefficient of x_0 in the mean of q(x_{t-1} | x_t, x_0).
    pub posterior_mean_coef1: Vec<f64>,
    /// The coefficient of x_t in the mean of q(x_{t-1} | x_t, x_0).
    pub posterior_mean_coef2: Vec<f64>,
    /// The original timestep of each t: what the network is given. `0..T` unless the process is respaced.
    pub timestep_map: Vec<i64>,
    spec: DiffusionSpec,
    device: Device,
    rows: Vec<Tensor>,
    model_timesteps: Tensor,
}

/// The tables that tensor arithmetic gathers from, in the order of `Diffusion::rows`.
#[derive(Clone, Copy)]
pub(crate) enum Row {
    SqrtAlphasCumprod,
    SqrtOneMinusAlphasCumprod,
    SqrtRecipAlphasCumprod,
    SqrtRecipM1AlphasCumprod,
    AlphasCumprod,
    AlphasCumprodPrev,
    PosteriorVariance,
    PosteriorLogVariance,
    PosteriorMeanCoef1,
    PosteriorMeanCoef2,
    LogBetas,
    LossWeight,
}

impl Diffusion {
    /// A process with the given betas, its tables on `device`.
    ///
    /// # Errors
    /// No betas, a beta outside (0, 1), or a specification that contradicts itself. The last beta may be 1, if the
    /// prediction is not of eps.
    pub fn new(betas: Vec<f64>, spec: DiffusionSpec, device: Device) -> Result<Self, DiffusionError> {
        let timestep_map = (0..betas.len() as i64).collect();
        Self::with_timesteps(betas, timestep_map, spec, device)
    }

    pub(crate) fn with_timesteps(
        betas: Vec<f64>,
        timestep_map: Vec<i64>,
        spec: DiffusionSpec,
        device: Device,
    ) -> Result<Self, DiffusionError> {
        if betas.is_empty() {
            return Err(DiffusionError::NoTimesteps);
        }
        schedule::validate(&betas)?;
        spec.validate(Naming::PLAIN)?;

        if betas[betas.len() - 1] == 1.0 {
            spec.validate_zero_terminal_snr(Naming::PLAIN)?;
        }
        let alphas_cumprod = schedule::alphas_cumprod(&betas);
        let count = betas.len();
        let alphas_cumprod_prev: Vec<f64> = [1.0].iter().chain(&alphas_cumprod[..count - 1]).copied().collect();
        let per_step = |f: &dyn Fn(f64, f64, f64) -> f64| -> Vec<f64> {
            (0..count).map(|t| f(betas[t], alphas_cumprod[t], alphas_cumprod_prev[t])).collect()
        };
        // Ho et al. 2020, eq. 7.
        let posterior_variance = per_step(&|beta, abar, prev| beta * (1.0 - prev) / (1.0 - abar));
        let posterior_mean_coef1 = per_step(&|beta, abar, prev| beta * prev.sqrt() / (1.0 - abar));
        let posterior_mean_coef2 = per_step(&|beta, abar, prev| (1.0 - prev) * (1.0 - beta).sqrt() / (1.0 - abar));
        // A process of one timestep has no t = 1; its own beta is the only scale there is.
        let first = posterior_variance.get(1).copied().unwrap_or(betas[0]);
        let posterior_log_variance_clipped =
            [first].iter().chain(&posterior_variance[1..]).map(|variance| variance.ln()).collect();

        let mut diffusion = Self {
            model_timesteps: Tensor::from_slice(&timestep_map).to_device(device),
            rows: Vec::new(),
            betas,
            alphas_cumprod,
            alphas_cumprod_prev,
            posterior_variance,
            posterior_log_variance_clipped,
            posterior_mean_coef1,
            posterior_mean_coef2,
            timestep_map,
            spec,
            device,
        };
        diffusion.rows =
            Row::ALL.iter().map(|&row| Tensor::from_slice(&diffusion.row(row)).to_device(device)).collect();
        Ok(diffusion)
    }

    /// T, the number of timesteps.
    pub fn timesteps(&self) -> usize {
        self.betas.len()
    }

    /// What the network predicts and is trained for.
    pub fn spec(&self) -> DiffusionSpec {
        self.spec
    }

    /// Where the tables are, and the images must be.
    pub fn device(&self) -> Device {
        self.device
    }

    /// abar_{T-1}: the share of x_0's variance left in x_T. Above [`VISIBLE_SIGNAL`] a caller should warn; at 0 sampling
    /// must start from the last timestep, which alone is pure noise.
    pub fn terminal_signal(&self) -> f64 {
        self.alphas_cumprod[self.timesteps() - 1]
    }

    /// sigma = sqrt(1/abar - 1) of this process's timestep `index`: the scale of the noise relative to the image, the noise
    /// level of Karras et al. 2022; infinite where x_t is pure noise.
    pub fn sigma(&self, index: usize) -> f64 {
        (1.0 / self.alphas_cumprod[index] - 1.0).sqrt()
    }

    /// The original timesteps `[B]` that the network is given for `t` `[B]` of this process.
    pub fn model_timesteps(&self, t: &Tensor) -> Tensor {
        self.model_timesteps.index_select(0, t)
    }

    /// A table's values at `t` `[B]` in `f64`, shaped to broadcast against `like` `[B, ...]`.
    pub(crate) fn exactly_at(&self, row: Row, t: &Tensor, like: &Tensor) -> Tensor {
        let mut shape = vec![1; like.dim()];
        shape[0] = -1;
        self.rows[row as usize].index_select(0, t).view(shape.as_slice())
    }

    /// The same in the kind of `like`.
    pub(crate) fn at(&self, row: Row, t: &Tensor, like: &Tensor) -> Tensor {
        self.exactly_at(row, t, like).to_kind(like.kind())
    }

    /// i64 `[batch]` with every entry the timestep `index`, 0-based, on the tables' device.
    pub fn full_t(&self, index: usize, batch: i64) -> Tensor {
        Tensor::full([batch], index as i64, (Kind::Int64, self.device))
    }

    fn row(&self, row: Row) -> Vec<f64> {
        let map = |values: &[f64], f: &dyn Fn(f64) -> f64| values.iter().map(|&x| f(x)).collect::<Vec<f64>>();
        let abar = &self.alphas_cumprod;
        match row {
            Row::SqrtAlphasCumprod => map(abar, &f64::sqrt),
            Row::SqrtOneMinusAlphasCumprod => map(abar, &|a| (1.0 - a).sqrt()),
            Row::SqrtRecipAlphasCumprod => map(abar, &|a| (1.0 / a).sqrt()),
            Row::SqrtRecipM1AlphasCumprod => map(abar, &|a| (1.0 / a - 1.0).sqrt()),
            Row::AlphasCumprod => abar.clone(),
            Row::AlphasCumprodPrev => self.alphas_cumprod_prev.clone(),
            Row::PosteriorVariance => self.posterior_variance.clone(),
            Row::PosteriorLogVariance => self.posterior_log_variance_clipped.clone(),
            Row::PosteriorMeanCoef1 => self.posterior_mean_coef1.clone(),
            Row::PosteriorMeanCoef2 => self.posterior_mean_coef2.clone(),
            Row::LogBetas => map(&self.betas, &f64::ln),
            Row::LossWeight => map(abar, &|a| weight(self.spec.weighting, a, self.spec.prediction)),
        }
    }
}

impl Row {
    const ALL: [Row; 12] = [
        Row::SqrtAlphasCumprod,
        Row::SqrtOneMinusAlphasCumprod,
        Row::SqrtRecipAlphasCumprod,
        Row::SqrtRecipM1AlphasCumprod,
        Row::AlphasCumprod,
        Row::AlphasCumprodPrev,
        Row::PosteriorVariance,
        Row::PosteriorLogVariance,
        Row::PosteriorMeanCoef1,
        Row::PosteriorMeanCoef2,
        Row::LogBetas,
        Row::LossWeight,
    ];
}
