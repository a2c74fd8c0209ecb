//! Averages of any width: combined from the snapshots that a run stored of its power-function averages.

use ddpm_checkpoint::{CheckpointError, Manifest, Store};
use ddpm_nn::{Profile, combination, exponent_of};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Remedy};
use crate::weights::{EMA_PREFIX, width_in};

/// The entry in a manifest's state with the number of updates of each average, in the order of its buffers.
pub const UPDATES: &str = "ema_updates";

/// Factors so small that the average need not be read.
const NEGLIGIBLE: f64 = 1e-9;

/// Where the snapshots of the run with these checkpoints are.
pub fn snapshots_of(checkpoints: &str) -> String {
    format!("{}/snapshots", checkpoints.trim_end_matches('/'))
}

/// One stored average.
struct Stored {
    /// The index of its manifest.
    manifest: usize,
    buffer: String,
    profile: Profile,
}

/// The power-function average of `width` at the checkpoint `manifest` in `store`, f32 flat: from the checkpoint if it holds
/// that width, otherwise combined from the widths around it, in the checkpoint and in the snapshots before it.
///
/// # Errors
/// The run keeps no such averages or no snapshots, or `width` is not between the widths that it keeps.
pub(crate) fn average_of(store: &Store, manifest: Manifest, width: f64) -> Result<Vec<f32>, Error> {
    let kept: Vec<f64> = manifest.buffers.iter().filter_map(|buffer| width_in(&buffer.name)).collect();
    if let Some(buffer) = manifest.buffers.iter().find(|buffer| width_in(&buffer.name) == Some(width)) {
        return Ok(store.load_buffer(&manifest, &buffer.name)?);
    }
    let [low, high] = [kept.iter().copied().reduce(f64::min), kept.iter().copied().reduce(f64::max)];
    let (Some(low), Some(high)) = (low, high) else {
        return Err(Error::config(format!(
            "the checkpoint of step {} holds no power-function averages, which a width is reconstructed from",
            manifest.step
        ))
        .or(Remedy::Do("train with two of them, such as ema.widths=[0.05,0.1]".into()))
        .or(Remedy::Do("choose a rate".into())));
    };
    if !(low..=high).contains(&width) {
        let message = format!("{width} is not between the widths that the run keeps, {low} to {high}");
        return Err(Error::config(message).or(Remedy::Do("choose a width in between".into())));
    }
    let snapshots = Snapshots::before(store, manifest)?;
    snapshots.combined(width)
}

/// The manifests with stored averages: those of the snapshots, and last that of the checkpoint itself.
struct Snapshots<'a> {
    checkpoints: &'a Store,
    snapshots: Store,
    manifests: Vec<Manifest>,
    stored: Vec<Stored>,
}

impl<'a> Snapshots<'a> {
    fn before(checkpoints: &'a Store, checkpoint: Manifest) -> Result<Self, Error> {
        let none = |uri: &str| {
            let message = format!(
                "there are no snapshots before step {} in {uri}, which a width is reconstructed from; train further, or \
                 set ema.snapshot_every lower",
                checkpoint.step
            );
            Error::new(ErrorKind::Storage, message)
        };
        let uri = snapshots_of(checkpoints.uri());
        let snapshots = match Store::open_existing(&uri) {
            Err(CheckpointError::Absent { .. }) => return Err(none(&uri)),
            opened => opened?,
        };
        let mut steps = snapshots.list()?;
        steps.retain(|step| *step < checkpoint.step);
        if steps.is_empty() {
            return Err(none(&uri));
        }
        let mut manifests =
            steps.into_iter().map(|step| snapshots.read_manifest(step)).collect::<Result<Vec<_>, _>>()?;
        manifests.push(checkpoint);
        let mut stored = Vec::new();
        for (index, manifest) in manifests.iter().enumerate() {
            stored.extend(averages_in(manifest, index)?);
        }
        Ok(Self { checkpoints, snapshots, manifests, stored })
    }

    fn combined(&self, width: f64) -> Result<Vec<f32>, Error> {
        let last = self.stored.last().expect("the checkpoint holds averages").profile;
        let profiles: Vec<Profile> = self.stored.iter().map(|stored| stored.profile).collect();
        let target = Profile { exponent: exponent_of(width), ..last };
        let factors = combination(&profiles, target)?;
        let mut sum = Vec::new();
        for (stored, factor) in self.stored.iter().zip(factors).filter(|(_, factor)| factor.abs() > NEGLIGIBLE) {
            let of_run = stored.manifest + 1 == self.manifests.len();
            let store = if of_run { self.checkpoints } else { &self.snapshots };
            let values = store.load_buffer(&self.manifests[stored.manifest], &stored.buffer)?;
            sum.resize(values.len(), 0.0);
            sum.iter_mut().zip(values).for_each(|(sum, value): (&mut f64, _)| *sum += factor * f64::from(value));
        }
        Ok(sum.into_iter().map(|value| value as f32).collect())
    }
}

/// The power-function averages of a manifest that were updated at least once.
fn averages_in(manifest: &Manifest, index: usize) -> Result<Vec<Stored>, Error> {
    let averages = manifest.buffers.iter().filter(|buffer| buffer.name.starts_with(EMA_PREFIX));
    let updates = manifest.state.get(UPDATES).and_then(Value::as_array);
    let mut stored = Vec::new();
    for (at, buffer) in averages.enumerate() {
        let Some(width) = width_in(&buffer.name) else { continue };
        let updates = updates.and_then(|updates| updates.get(at)?.as_u64()).ok_or_else(|| {
            let message =
                format!("the snapshot of step {} does not say how often {} was updated", manifest.step, buffer.name);
            Error::new(ErrorKind::Storage, message)
        })?;
        if updates > 0 {
            let profile = Profile { exponent: exponent_of(width), updates: updates as f64 };
            stored.push(Stored { manifest: index, buffer: buffer.name.clone(), profile });
        }
    }
    Ok(stored)
}
