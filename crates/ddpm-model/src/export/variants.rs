//! The other weights of a checkpoint, each exported as a variant: raw weights, and averages of other rates.

use ddpm_checkpoint::Store;

use crate::error::Error;
use crate::model::Origin;
use crate::weights::{EMA_PREFIX, WEIGHTS, width_in};

/// Reads all weights of the checkpoint but the model's own, one after another, and passes each to `save` with the name
/// of its variant. Weights that are not finite are left out with a warning.
pub(super) fn each(origin: &Origin, mut save: impl FnMut(&str, &[f32]) -> Result<(), Error>) -> Result<(), Error> {
    let store = Store::open_existing(&origin.store)?;
    let manifest = store.read_manifest(origin.step)?;
    for buffer in manifest.buffers.iter().filter(|buffer| buffer.name != origin.buffer) {
        let Some(variant) = variant(&buffer.name) else { continue };
        let values = store.load_buffer(&manifest, &buffer.name)?;
        if values.iter().all(|value| value.is_finite()) {
            save(&variant, &values)?;
        } else {
            tracing::warn!("the weights of {} are not finite and were left out", buffer.name);
        }
    }
    Ok(())
}

/// The name of the variant with the weights of a buffer, if it holds weights. It contains no dot: diffusers takes the
/// name of a variant to end there.
pub(super) fn variant(buffer: &str) -> Option<String> {
    if buffer == WEIGHTS {
        return Some("raw".into());
    }
    buffer.strip_prefix(EMA_PREFIX).map(|rate| format!("ema_{}", rate.replace('.', "_")))
}

/// The weights of a buffer in a phrase.
pub(super) fn phrase(buffer: &str) -> String {
    match (buffer.strip_prefix(EMA_PREFIX), width_in(buffer)) {
        (_, Some(width)) => format!("power-function average of width {width}"),
        (Some(rate), _) => format!("moving average with rate {rate}"),
        (None, _) => "raw weights".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ddpm_nn::Averaging;

    use crate::weights::average_buffer;

    #[test]
    fn names_of_variants() {
        assert_eq!(variant(WEIGHTS).as_deref(), Some("raw"));
        let rate = average_buffer(Averaging::Exponential { rate: 0.9999, warmup: true });
        assert_eq!(variant(&rate).as_deref(), Some("ema_0_9999"));
        let width = average_buffer(Averaging::Power { width: 0.05 });
        assert_eq!(variant(&width).as_deref(), Some("ema_width-0_05"));
        assert_eq!(phrase(&width), "power-function average of width 0.05");
        assert_eq!(variant("exp_avg_sq"), None);
    }
}
