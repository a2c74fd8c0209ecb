//! Weights of the timesteps in the objective.

use ddpm_spec::{Prediction, Weighting};

/// The weight where alphas_cumprod is `abar`, on the squared error of the given prediction.
pub(crate) fn weight(weighting: Weighting, abar: f64, prediction: Prediction) -> f64 {
    let snr = abar / (1.0 - abar);
    let of_x_start = match weighting {
        Weighting::None => return 1.0,
        Weighting::MinSnr { gamma } => snr.min(gamma),
        Weighting::P2 { gamma, k } => snr / (k + snr).powf(gamma),
    };
    // |x_0 error|² = |eps error|² / SNR = |v error|² / (SNR + 1).
    of_x_start
        / match prediction {
            Prediction::XStart => 1.0,
            Prediction::Eps => snr,
            Prediction::V => snr + 1.0,
        }
}
