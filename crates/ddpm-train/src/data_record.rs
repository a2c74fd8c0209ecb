//! The data set of a run: the one that its checkpoint knows, or another that the user allows.

use ddpm_checkpoint::Manifest;
use ddpm_data::{Order, Source};
use ddpm_model::{Error, ErrorKind, Remedy};
use serde::{Deserialize, Serialize};

/// What a checkpoint holds of its data set, among the counters: which one it is, and from where on its images come in
/// the order that follows from their number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Number of images.
    pub images: u64,
    /// [`Source::fingerprint`], in hexadecimal; `None` in checkpoints of versions that had none.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// Position of the first image of that order: 0, unless the run has gone on with another data set.
    #[serde(default)]
    pub order_start: u64,
    /// Number of the epoch that begins there.
    #[serde(default)]
    pub order_epoch: u64,
}

impl DataRecord {
    /// The record of a run that begins with `source`.
    pub fn new(source: &dyn Source) -> Self {
        let fingerprint = Some(format!("{:016x}", source.fingerprint()));
        Self { images: source.len(), fingerprint, order_start: 0, order_epoch: 0 }
    }

    /// The record of a run that goes on from `manifest` with `source`. Where that is another data set than before, it is
    /// refused, unless the user `allows` it: then an epoch begins at the manifest's position, in an order of its own. The
    /// epoch under way is not finished.
    pub fn resumed(source: &dyn Source, manifest: &Manifest, allows: bool) -> Result<Self, Error> {
        let refuse = |reason: String| Error::new(ErrorKind::ResumeRefused, reason);
        let step = manifest.step;
        let held: Self = serde_json::from_value(manifest.state.clone()).map_err(|e| {
            refuse(format!(
                "the checkpoint of step {step} has a state that cannot be read ({e}); resume with the program that wrote it"
            ))
        })?;
        let now = Self::new(source);
        let same_files = held.fingerprint.is_none() || held.fingerprint == now.fingerprint;
        if held.images == now.images && same_files {
            return Ok(Self { fingerprint: now.fingerprint, ..held });
        }
        let (before, after) = (held.images, now.images);
        let change = match before == after {
            true => format!(
                "the data set has {after} images as it had when step {step} was saved, but other images, names or classes"
            ),
            false => format!("the data set has {after} images, but had {before} when step {step} was saved"),
        };
        if !allows {
            return Err(refuse(format!("{change}, and which image comes next follows from all of them"))
                .or(Remedy::Do("bring the data set back".into()))
                .or(Remedy::AllowChange(vec![DATA.into()])));
        }
        let order_epoch = held.order(manifest.seed).epochs_begun(manifest.position);
        tracing::warn!("{change}; epoch {order_epoch} begins, in a new order");
        Ok(Self { order_start: manifest.position, order_epoch, ..now })
    }

    /// The order that the images come in.
    pub fn order(&self, seed: u64) -> Order {
        Order::beginning(self.images, seed, self.order_start, self.order_epoch)
    }
}

/// What stands for the data set and all keys of `[data]` in [`Remedy::AllowChange`] and in what the user allows to change.
pub const DATA: &str = "data";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn checkpoints_that_know_only_the_number_of_images_go_on_in_the_order_that_they_had() {
        let held: DataRecord = serde_json::from_value(json!({ "images": 400, "optimizer_steps": 3 })).unwrap();
        assert_eq!((held.fingerprint.as_ref(), held.order(7)), (None, Order::new(400, 7)));
    }
}
