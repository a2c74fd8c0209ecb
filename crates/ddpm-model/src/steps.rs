//! The timesteps that images are drawn over: how many, and whether the first of them is noise.

use ddpm_diffusion::{Diffusion, VISIBLE_SIGNAL};

/// Steps that images are drawn in where no number is given.
pub const DRAWING: usize = 50;
/// Steps that they are encoded in: more, as decoding is to lead back to the image itself.
pub const ENCODING: usize = 100;

/// As many steps as were asked for; else `usual`, or all of `timesteps` where there are fewer.
pub fn count(asked: Option<usize>, usual: usize, timesteps: usize) -> usize {
    asked.unwrap_or(usual.min(timesteps))
}

/// Warns where images that are drawn from pure noise over the timesteps `kept` of `whole` start at one at which the network
/// was trained on images that still show. Of a schedule that never ends in noise the configuration's own warning speaks.
pub fn warn_of_visible_signal(whole: &Diffusion, kept: &[usize], remedy: &str) {
    let (Some(&first), last) = (kept.last(), whole.timesteps() - 1) else { return };
    let signal = whole.alphas_cumprod[first];
    if signal > VISIBLE_SIGNAL && first < last {
        tracing::warn!(
            "drawing starts from pure noise at t = {first} of 0 to {last}, where the network was trained on images that \
             still show (alphas_cumprod = {signal:.3}); {remedy}"
        );
    }
}
