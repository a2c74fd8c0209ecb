//! Fewer timesteps than the network was trained on: which ones, and the process over them.

use ddpm_spec::Spacing;

use crate::schedule::linspace;
use crate::{Diffusion, DiffusionError};

/// The timesteps to keep of `timesteps`, ascending, by a rule given as text.
///
/// - `"N"`: N timesteps evenly spaced with both ends kept;
/// - `"a,b,c"`: the process is cut into as many equal sections as there are numbers (the first ones take the remainder),
///   and each section is spaced like `"N"`;
/// - `"ddimN"`: every k-th timestep from 0 on, for the one stride k that leaves exactly N.
///
/// Positions are rounded to the nearest timestep, ties to the even one.
///
/// # Errors
/// The rule is not one of these, a section keeps more timesteps than it has, or no whole stride leaves N.
pub fn space_timesteps(timesteps: usize, spec: &str) -> Result<Vec<usize>, DiffusionError> {
    let refuse = |reason: String| DiffusionError::Spacing { timesteps, spec: spec.to_owned(), reason };
    let number = |text: &str| match text.trim().parse::<usize>() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(refuse(format!("\"{text}\" is not a whole number above 0"))),
    };
    if let Some(count) = spec.strip_prefix("ddim") {
        let count = number(count)?;
        return (1..=timesteps)
            .find(|stride| timesteps.div_ceil(*stride) == count)
            .map(|stride| (0..timesteps).step_by(stride).collect())
            .ok_or_else(|| refuse(format!("no whole stride leaves exactly {count}")));
    }
    let counts = spec.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
    let (size, longer) = (timesteps / counts.len(), timesteps % counts.len());
    let mut kept = Vec::new();
    let mut start = 0;
    for (section, &count) in counts.iter().enumerate() {
        let size = size + usize::from(section < longer);
        if size < count {
            return Err(refuse(format!("section {section} has {size} timesteps and should keep {count}")));
        }
        let stride = if count == 1 { 1.0 } else { (size - 1) as f64 / (count - 1) as f64 };
        // Summed rather than multiplied: where a position falls on a tie, published lists depend on the sum's rounding.
        let mut position = 0.0f64;
        for _ in 0..count {
            kept.push(start + position.round_ties_even() as usize);
            position += stride;
        }
        start += size;
    }
    Ok(kept)
}

/// The N = `steps` timesteps to keep of `timesteps`, ascending, in an even spacing. The last of them, index 0, goes to
/// abar = 1.
///
/// Each step leads to the next timestep of the list. (Schedulers that subtract T/N instead differ from this where it is
/// not the list's stride: linspace always, trailing where N does not divide T.)
///
/// The first and the last timestep are within one stride T/N of the process's ends, so that sampling starts at noise.
/// (diffusers' leading spacing rounds the stride itself down: of T = 100 its 34 timesteps end at 66.)
///
/// # Errors
/// `steps` is 0 or above `timesteps`.
pub fn kept_timesteps(spacing: Spacing, timesteps: usize, steps: usize) -> Result<Vec<usize>, DiffusionError> {
    if steps == 0 || steps > timesteps {
        return Err(DiffusionError::Steps { timesteps, steps });
    }
    let (total, stride) = (timesteps as f64, timesteps as f64 / steps as f64);
    Ok(match spacing {
        Spacing::Leading => (0..steps).map(|i| i * timesteps / steps).collect(),
        Spacing::Linspace if steps == 1 => vec![timesteps - 1],
        Spacing::Linspace => {
            linspace(0.0, total - 1.0, steps).into_iter().map(|t| t.round_ties_even() as usize).collect()
        }
        Spacing::Trailing => {
            (0..steps).rev().map(|i| (total - i as f64 * stride).round_ties_even() as usize - 1).collect()
        }
    })
}

impl Diffusion {
    /// The process over the kept timesteps `kept` (ascending, indices of this process): each keeps its alphas_cumprod,
    /// the betas follow, and the network still gets the original timesteps.
    ///
    /// # Errors
    /// `kept` is empty, not strictly ascending, or names a timestep that this process does not have.
    pub fn respaced(&self, kept: &[usize]) -> Result<Diffusion, DiffusionError> {
        let timesteps = self.timesteps();
        let wrong = |index: usize| kept[index] >= timesteps || (index > 0 && kept[index] <= kept[index - 1]);
        if let Some(index) = (0..kept.len()).find(|&index| wrong(index)) {
            return Err(DiffusionError::KeptTimesteps { timesteps, index });
        }
        let mut previous = 1.0;
        let mut betas = Vec::with_capacity(kept.len());
        for &t in kept {
            betas.push(1.0 - self.alphas_cumprod[t] / previous);
            previous = self.alphas_cumprod[t];
        }
        let timestep_map = kept.iter().map(|&t| self.timestep_map[t]).collect();
        Self::with_timesteps(betas, timestep_map, self.spec(), self.device())
    }
}
