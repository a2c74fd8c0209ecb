//! The number and the spacing of sampling steps, and a warning if sampling starts at a timestep that is not pure noise.

use ddpm_diffusion::{Diffusion, Spacing, VISIBLE_SIGNAL};

/// Default number of steps for drawing images.
pub const DEFAULT_SAMPLING_STEPS: usize = 50;
/// Default number of steps for encoding images: more than for drawing, because decoding should reproduce the image.
pub const DEFAULT_ENCODING_STEPS: usize = 100;

/// The number of steps: `asked` if given, otherwise the smaller of `usual` and `timesteps`.
pub fn count(asked: Option<usize>, usual: usize, timesteps: usize) -> usize {
    asked.unwrap_or(usual.min(timesteps))
}

/// Where to put the timesteps: as `asked`, otherwise with leading spacing, or trailing if the process has zero terminal
/// SNR: then its last timestep is the one that was trained to start from pure noise.
pub fn spacing(asked: Option<Spacing>, whole: &Diffusion) -> Spacing {
    let usual = if whole.terminal_signal() == 0.0 { Spacing::Trailing } else { Spacing::Leading };
    asked.unwrap_or(usual)
}

/// Warns if sampling over the timesteps `kept` of `whole` starts from pure noise at a timestep at which the network
/// was trained on images that are still visible, or just not at the last one of a process with zero terminal SNR. If `kept` includes the last timestep of `whole`, there is no warning
/// here: [`diffusion`](crate::diffusion) warns of a schedule that does not end in noise.
pub fn warn_of_visible_signal(whole: &Diffusion, kept: &[usize], remedy: &str) {
    let (Some(&first), last) = (kept.last(), whole.timesteps() - 1) else { return };
    let signal = whole.alphas_cumprod[first];
    if (signal > VISIBLE_SIGNAL || whole.terminal_signal() == 0.0) && first < last {
        let seen = if signal > VISIBLE_SIGNAL { "are still visible" } else { "are not pure noise" };
        tracing::warn!(
            "drawing starts from pure noise at t = {first} of 0 to {last}, where the network was trained on images that \
             {seen} (alphas_cumprod = {signal:.3}); {remedy}"
        );
    }
}
