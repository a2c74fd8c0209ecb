//! Noise schedules.

use serde::{Deserialize, Serialize};

use crate::check::{in_range, inside_unit, require};
use crate::error::{Naming, SpecError};

/// First and last beta of Ho et al. (2020, section 4), for their 1000 timesteps.
const HO: (f64, f64) = (1e-4, 0.02);

/// The name of a [`BetaSchedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// [`BetaSchedule::Linear`].
    Linear,
    /// [`BetaSchedule::Quadratic`].
    Quadratic,
    /// [`BetaSchedule::Cosine`].
    Cosine,
    /// [`BetaSchedule::Sigmoid`].
    Sigmoid,
    /// [`BetaSchedule::Constant`].
    Constant,
    /// [`BetaSchedule::List`].
    List,
}

impl ScheduleKind {
    /// First and last beta where none are given: Ho et al.'s 1e-4 and 0.02, for `linear` and `quadratic` multiplied by
    /// 1000/T so that fewer timesteps add as much noise.
    pub fn default_ends(self, timesteps: usize) -> (f64, f64) {
        let scale = match self {
            Self::Linear | Self::Quadratic => 1000.0 / timesteps.max(1) as f64,
            _ => 1.0,
        };
        (HO.0 * scale, HO.1 * scale)
    }
}

/// How beta_t runs over the T timesteps, whatever T is.
///
/// Ends are beta at t = 0 and at t = T - 1, given for that T: only [`BetaSchedule::linear`] rescales them.
#[derive(Clone, Debug, PartialEq)]
pub enum BetaSchedule {
    /// Evenly spaced from `start` to `end` (Ho et al. 2020, section 4).
    ///
    /// `start = end / T` is the schedule that other texts write as alpha_t = sqrt(1 - end t / T) with 1-based t.
    Linear {
        /// beta at t = 0.
        start: f64,
        /// beta at t = T - 1.
        end: f64,
    },
    /// Evenly spaced in sqrt(beta); diffusers calls it `scaled_linear`.
    Quadratic {
        /// beta at t = 0.
        start: f64,
        /// beta at t = T - 1.
        end: f64,
    },
    /// abar(t) = cos²((t/T + 0.008)/1.008 · π/2), betas clipped at 0.999 (Nichol & Dhariwal 2021, eq. 17).
    Cosine,
    /// A logistic curve over `[-6, 6]` between the ends, which it approaches without reaching.
    Sigmoid {
        /// The lower asymptote, approached towards t = 0.
        start: f64,
        /// The upper asymptote, approached towards t = T - 1.
        end: f64,
    },
    /// The same beta at every timestep.
    Constant(f64),
    /// The betas themselves, one for each timestep.
    List(Vec<f64>),
    /// Another schedule, rescaled so that nothing of x_0 is left at t = T - 1, where beta is then 1: sqrt(abar) is shifted
    /// to end at 0 and scaled to begin where it did (Lin et al. 2023, algorithm 1).
    ZeroTerminalSnr(Box<BetaSchedule>),
}

impl BetaSchedule {
    /// Ho et al.'s 1e-4 to 0.02, both multiplied by 1000/T, so that abar_T is about the same for every T.
    pub fn linear(timesteps: usize) -> Self {
        let (start, end) = ScheduleKind::Linear.default_ends(timesteps);
        Self::Linear { start, end }
    }

    /// Checks that every given beta of `timesteps` lies strictly inside (0, 1), in the fields `timesteps`, `beta_start`,
    /// `beta_end` and `betas`.
    ///
    /// # Errors
    /// [`SpecError`]: no timesteps, an end out of range, ends in the wrong order, or a list of another length.
    pub fn validate(&self, timesteps: usize, naming: Naming) -> Result<(), SpecError> {
        let of_timesteps = naming.path("timesteps");
        in_range(&of_timesteps, timesteps, timesteps > 0, "at least 1")?;
        match self {
            Self::Cosine => Ok(()),
            Self::ZeroTerminalSnr(schedule) => {
                in_range(&of_timesteps, timesteps, timesteps > 1, "at least 2 for a rescaled schedule")?;
                schedule.validate(timesteps, naming)
            }
            Self::Constant(beta) => valid_end(*beta, naming),
            Self::Linear { start, end } | Self::Quadratic { start, end } | Self::Sigmoid { start, end } => {
                valid_end(*end, naming)?;
                let limit = format!("above 0 and at most {} = {end}", naming.path("beta_end"));
                in_range(&naming.path("beta_start"), start, *start > 0.0 && start <= end, limit)
            }
            Self::List(betas) => {
                let path = naming.path("betas");
                require(
                    betas.len() == timesteps,
                    &path,
                    || format!("{path} has {} entries for {of_timesteps} = {timesteps}", betas.len()),
                    || format!("Give {timesteps} betas, or set {of_timesteps} to {}", betas.len()),
                )?;
                betas.iter().enumerate().try_for_each(|(index, &beta)| {
                    in_range(&format!("{path}[{index}]"), beta, inside_unit(beta), "above 0 and below 1")
                })
            }
        }
    }
}

fn valid_end(end: f64, naming: Naming) -> Result<(), SpecError> {
    let path = naming.path("beta_end");
    require(
        inside_unit(end),
        &path,
        || format!("{path} = {end} is out of range"),
        || format!("Give {path} a value above 0 and below 1"),
    )
}
