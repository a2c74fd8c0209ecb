//! The number of sampling steps, and a warning if sampling starts at a timestep that is not pure noise.

use ddpm_diffusion::{Diffusion, VISIBLE_SIGNAL};

/// Default number of steps for drawing images.
pub const DEFAULT_SAMPLING_STEPS: usize = 50;
/// Default number of steps for encoding images: more than for drawing, because decoding should reproduce the image.
pub const DEFAULT_ENCODING_STEPS: usize = 100;

/// The number of steps: `asked` if given, otherwise the smaller of `usual` and `timesteps`.
pub fn count(asked: Option<usize>, usual: usize, timesteps: usize) -> usize {
    asked.unwrap_or(usual.min(timesteps))
}

/// Warns if sampling over the timesteps `kept` of `whole` starts from pure noise at a timestep at which the network
/// was trained on images that are still visible. If `kept` includes the last timestep of `whole`, there is no warning
/// here: [`diffusion`](crate::diffusion) warns of a schedule that does not end in noise.
pub fn warn_of_visible_signal(whole: &Diffusion, kept: &[usize], remedy: &str) {
    let (Some(&first), last) = (kept.last(), whole.timesteps() - 1) else { return };
    let signal = whole.alphas_cumprod[first];
    if signal > VISIBLE_SIGNAL && first < last {
        tracing::warn!(
            "drawing starts from pure noise at t = {first} of 0 to {last}, where the network was trained on images that \
             are still visible (alphas_cumprod = {signal:.3}); {remedy}"
        );
    }
}
