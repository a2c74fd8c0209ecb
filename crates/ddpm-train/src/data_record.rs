//! The data set of a run: the one recorded in its checkpoint, or another one if the user allows the change.

use ddpm_checkpoint::Manifest;
use ddpm_data::{Order, Source};
use ddpm_model::{Error, ErrorKind, Remedy};
use serde::{Deserialize, Serialize};

/// The record of a run's data set, stored among the counters of a checkpoint: which data set it is, and how its images
/// are ordered: that follows from their number, and from how they are spread over files if it is an order of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Number of images; 0 if nothing is known about the data, as for an imported model.
    pub images: u64,
    /// [`Source::fingerprint`] in hexadecimal; `None` in checkpoints of versions without fingerprints.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// Position of the first image of that order: 0 unless the run was continued with another data set.
    #[serde(default)]
    pub order_start: u64,
    /// Number of the epoch that begins at `order_start`.
    #[serde(default)]
    pub order_epoch: u64,
    /// How many files are mixed with each other; `None` if any image may follow any other.
    #[serde(default)]
    pub window: Option<u64>,
}

/// How the data set of a resumed run may differ from the one before; each includes what precedes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataChange {
    /// Not at all.
    Nothing,
    /// The same images in another order.
    Order,
    /// Other images or classes.
    Images,
}

impl DataRecord {
    /// The record of a run that starts with `source`, shuffled in windows of this many files, or as a whole.
    pub fn new(source: &dyn Source, window: Option<u64>) -> Self {
        let fingerprint = Some(format!("{:016x}", source.fingerprint()));
        Self { images: source.len(), fingerprint, order_start: 0, order_epoch: 0, window }
    }

    /// The record of a run that holds a model of which nothing more is known.
    pub fn unknown() -> Self {
        Self { images: 0, fingerprint: None, order_start: 0, order_epoch: 0, window: None }
    }

    /// The record in the `state` of a checkpoint, that of `step`.
    ///
    /// # Errors
    /// There is none that this version can read.
    pub fn read(step: u64, state: &serde_json::Value) -> Result<Self, Error> {
        Self::deserialize(state).map_err(|e| {
            let reason = format!(
                "the checkpoint of step {step} has a state that cannot be read ({e}); resume with the program that wrote it"
            );
            Error::new(ErrorKind::ResumeRefused, reason)
        })
    }

    /// The record of a run that resumes from `manifest` with `source`. A data set or shuffle that differs from the
    /// checkpoint's is refused unless it is `allowed`. If so, the current epoch is cut short, and a new epoch in a new
    /// order begins at the manifest's position.
    pub fn resumed(
        source: &dyn Source,
        window: Option<u64>,
        manifest: &Manifest,
        allowed: DataChange,
    ) -> Result<Self, Error> {
        let refuse = |reason: String| Error::new(ErrorKind::ResumeRefused, reason);
        let step = manifest.step;
        let held = Self::read(step, &manifest.state)?;
        let now = Self::new(source, window);
        if held.images == 0 {
            return Ok(now);
        }
        let same_files = held.fingerprint.is_none() || held.fingerprint == now.fingerprint;
        let same_data = held.images == now.images && same_files;
        if same_data && held.window == window {
            return Ok(Self { fingerprint: now.fingerprint, ..held });
        }
        let needed = if same_data { DataChange::Order } else { DataChange::Images };
        let (before, after) = (held.images, now.images);
        let change = match before == after {
            true if same_data => format!("data.shuffle has changed since step {step} was saved"),
            true => format!(
                "the data set still has {after} images, but images, names or classes have changed since step {step} \
                 was saved"
            ),
            false => format!("the data set has {after} images, but had {before} when step {step} was saved"),
        };
        if allowed < needed {
            let (because, restore) = match same_data {
                true => ("follows from it", "set it and data.shuffle_window back"),
                false => ("depends on the whole data set", "restore the data set"),
            };
            return Err(refuse(format!("{change}, and the order of the images {because}"))
                .or(Remedy::Do(restore.into()))
                .or(Remedy::AllowChange(vec![DATA.into()])));
        }
        let order_epoch = held.epochs(manifest.seed).epochs_begun(manifest.position);
        tracing::warn!("{change}; epoch {order_epoch} begins, in a new order");
        Ok(Self { order_start: manifest.position, order_epoch, ..now })
    }

    /// The epoch of a position, counted from 0; 0 if the data is unknown.
    pub fn epoch_of(&self, position: u64, seed: u64) -> u64 {
        if self.images == 0 { 0 } else { self.epochs(seed).epoch_of(position) }
    }

    /// The order in which the images of `source`, whose record this is, are used.
    pub fn order(&self, seed: u64, source: &dyn Source) -> Order {
        match (self.window, source.files()) {
            (Some(window), Some(starts)) => self.epochs(seed).in_windows(starts, window),
            _ => self.epochs(seed),
        }
    }

    /// The order as far as its epochs are concerned.
    fn epochs(&self, seed: u64) -> Order {
        Order::beginning(self.images, seed, self.order_start, self.order_epoch)
    }
}

/// The name that stands for the data set and all keys of `[data]`, in [`Remedy::AllowChange`] and in the user's list
/// of allowed changes.
pub const DATA: &str = "data";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn checkpoints_that_know_only_the_number_of_images_go_on_in_the_order_that_they_had() {
        let held: DataRecord = serde_json::from_value(json!({ "images": 400, "optimizer_steps": 3 })).unwrap();
        assert_eq!((held.fingerprint.as_ref(), held.epochs(7)), (None, Order::new(400, 7)));
    }
}
