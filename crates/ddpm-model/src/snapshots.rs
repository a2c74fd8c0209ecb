//! Averages of any width: combined from the snapshots that a run stored of its power-function averages.

use ddpm_checkpoint::{CheckpointError, Manifest, Store};
use ddpm_nn::{Profile, combination, exponent_of};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Remedy};
use crate::weights::{EMA_PREFIX, width_in};

/// The entry in a manifest's state with the number of updates of each average, in the order of its buffers.
pub const UPDATES: &str = "ema_updates";

/// The entry in a manifest's state with the step after which its power-function averages began; 0 if absent. Those that
/// began at different steps are not averages of the same weights.
pub const BEGUN: &str = "ema_begun";

/// Factors so small that the average need not be read.
const NEGLIGIBLE: f64 = 1e-9;

/// The largest distance of a combined profile from the requested one, relative to its length.
const TOLERANCE: f64 = 0.02;

/// Where the snapshots of the run with these checkpoints are.
pub fn snapshots_of(checkpoints: &str) -> String {
    format!("{}/snapshots", checkpoints.trim_end_matches('/'))
}

/// The store of the snapshots that belong to these checkpoints, if there are any, with their steps, newest first.
///
/// # Errors
/// The store fails.
pub fn find_snapshots(checkpoints: &Store) -> Result<Option<(Store, Vec<u64>)>, Error> {
    let store = match Store::open_existing(&snapshots_of(checkpoints.uri())) {
        Err(CheckpointError::Absent { .. }) => return Ok(None),
        opened => opened?,
    };
    let steps = store.list()?;
    Ok((!steps.is_empty()).then_some((store, steps)))
}

/// Copies the snapshots up to `step` from beside one store of checkpoints to beside another, each with `copy`; damaged
/// ones are left out with a warning.
///
/// # Errors
/// A store fails, or the other one has different snapshots.
pub fn copy_snapshots(
    from: &Store,
    step: u64,
    to: &Store,
    copy: impl Fn(&Store, u64, &Store) -> Result<Manifest, CheckpointError>,
) -> Result<(), Error> {
    let Some((from, steps)) = find_snapshots(from)? else { return Ok(()) };
    let to = Store::open(&snapshots_of(to.uri()))?;
    for step in steps.into_iter().filter(|held| *held <= step) {
        match copy(&from, step, &to) {
            Ok(_) => {}
            // Damaged, or deleted since they were listed.
            Err(error @ (CheckpointError::Damaged { .. } | CheckpointError::NotFound { .. })) => {
                tracing::warn!("a snapshot was not copied: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Separates damage, without which the rest may still serve, from other errors.
pub(crate) fn usable<T>(read: Result<T, CheckpointError>) -> Result<Result<T, CheckpointError>, Error> {
    match read {
        Err(damaged @ CheckpointError::Damaged { .. }) => Ok(Err(damaged)),
        read => Ok(Ok(read?)),
    }
}

/// Averages that were stored together: a snapshot's or a checkpoint's.
struct Stored<'a> {
    store: &'a Store,
    manifest: Manifest,
    /// Each average's buffer.
    averages: Vec<(Profile, String)>,
}

impl<'a> Stored<'a> {
    /// The power-function averages of a manifest that were updated at least once.
    fn of(store: &'a Store, manifest: Manifest) -> Result<Self, Error> {
        let buffers = manifest.buffers.iter().filter(|buffer| buffer.name.starts_with(EMA_PREFIX));
        let updates = manifest.state.get(UPDATES).and_then(Value::as_array);
        let mut averages = Vec::new();
        for (at, buffer) in buffers.enumerate() {
            let Some(width) = width_in(&buffer.name) else { continue };
            let updates = updates.and_then(|updates| updates.get(at)?.as_u64()).ok_or_else(|| {
                let (step, name) = (manifest.step, &buffer.name);
                Error::new(
                    ErrorKind::Storage,
                    format!("the manifest of step {step} does not say how often {name} was updated"),
                )
            })?;
            if updates > 0 {
                averages.push((Profile { exponent: exponent_of(width), updates: updates as f64 }, buffer.name.clone()));
            }
        }
        Ok(Self { store, manifest, averages })
    }

    fn begun(&self) -> u64 {
        self.manifest.state.get(BEGUN).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Adds each average times its factor to `sum`.
    fn add_to(&self, sum: &mut Vec<f64>, factors: &[f64]) -> Result<(), CheckpointError> {
        for ((_, buffer), factor) in self.averages.iter().zip(factors).filter(|(_, factor)| factor.abs() > NEGLIGIBLE) {
            let values = self.store.load_buffer(&self.manifest, buffer)?;
            sum.resize(values.len(), 0.0);
            sum.iter_mut().zip(values).for_each(|(sum, value): (&mut f64, _)| *sum += factor * f64::from(value));
        }
        Ok(())
    }
}

/// The power-function average of `width` at the checkpoint `manifest` in `store`, f32 flat: from the checkpoint if it holds
/// that width, otherwise combined from the widths around it, in the checkpoint and in the snapshots before it. Damaged
/// snapshots are left out with a warning; if the checkpoint is damaged, the inner result is that error.
///
/// # Errors
/// The run keeps no such averages or too few snapshots, or `width` is not between the widths that it keeps.
pub(crate) fn average_of(
    store: &Store,
    manifest: &Manifest,
    width: f64,
) -> Result<Result<Vec<f32>, CheckpointError>, Error> {
    let kept: Vec<f64> = manifest.buffers.iter().filter_map(|buffer| width_in(&buffer.name)).collect();
    if let Some(buffer) = manifest.buffers.iter().find(|buffer| width_in(&buffer.name) == Some(width)) {
        return usable(store.load_buffer(manifest, &buffer.name));
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
    if low == high {
        let message = format!("the run keeps one width, {low}, and others are reconstructed from two");
        return Err(Error::config(message).or(Remedy::Do("train with two, such as ema.widths=[0.05,0.1]".into())));
    }
    if !(low..=high).contains(&width) {
        let message = format!("{width} is not between the widths that the run keeps, {low} to {high}");
        return Err(Error::config(message).or(Remedy::Do("choose a width in between".into())));
    }
    let own = Stored::of(store, manifest.clone())?;
    let found = find_snapshots(store)?;
    let mut snapshots = match &found {
        Some((store, steps)) => before(&own, store, steps)?,
        None => Vec::new(),
    };
    loop {
        let factors = factors(&own, &snapshots, width)?;
        let (mut sum, mut rest) = (Vec::new(), factors.as_slice());
        let failed = snapshots.iter().chain([&own]).enumerate().find_map(|(index, stored)| {
            let (ours, others) = rest.split_at(stored.averages.len());
            rest = others;
            stored.add_to(&mut sum, ours).err().map(|error| (index, error))
        });
        let Some((index, error)) = failed else { return Ok(Ok(sum.into_iter().map(|value| value as f32).collect())) };
        match error {
            CheckpointError::Damaged { .. } if index < snapshots.len() => {
                tracing::warn!("a snapshot is left out: {error}");
                snapshots.remove(index);
            }
            CheckpointError::Damaged { .. } => return Ok(Err(error)),
            _ => return Err(error.into()),
        }
    }
}

/// The snapshots in `store` before a checkpoint whose averages are of the same weights, oldest first.
fn before<'a>(own: &Stored, store: &'a Store, steps: &[u64]) -> Result<Vec<Stored<'a>>, Error> {
    let mut found = Vec::new();
    for step in steps.iter().rev().filter(|step| **step < own.manifest.step) {
        match store.read_manifest(*step) {
            Ok(manifest) => found.push(Stored::of(store, manifest)?),
            // Damaged, or deleted since they were listed.
            Err(error @ (CheckpointError::Damaged { .. } | CheckpointError::NotFound { .. })) => {
                tracing::warn!("a snapshot is left out: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    found.retain(|stored| stored.begun() == own.begun());
    Ok(found)
}

/// The factors of the snapshots' averages and then of the checkpoint's whose sum has this width; refuses one that would
/// not come close.
fn factors(own: &Stored, snapshots: &[Stored], width: f64) -> Result<Vec<f64>, Error> {
    let (step, count, uri) = (own.manifest.step, snapshots.len(), snapshots_of(own.store.uri()));
    let denser = "train further, or set ema.snapshot_every lower";
    let stored = snapshots.iter().chain([own]).flat_map(|stored| stored.averages.iter().map(|(profile, _)| *profile));
    let stored: Vec<Profile> = stored.collect();
    let (Some((last, _)), 1..) = (own.averages.last(), count) else {
        let message = format!(
            "there are no snapshots before step {step} in {uri}, which a width is reconstructed from; {denser}"
        );
        return Err(Error::new(ErrorKind::Storage, message));
    };
    let (factors, off) = combination(&stored, Profile { exponent: exponent_of(width), ..*last })?;
    let percent = 100.0 * off;
    if off > TOLERANCE {
        let message = format!(
            "there are too few snapshots before step {step} in {uri} ({count}) for width {width}, whose profile would be \
             off by {percent:.1} %; {denser}"
        );
        return Err(Error::new(ErrorKind::Storage, message));
    }
    tracing::info!(
        "width {width} is combined from {count} snapshots and step {step}; its profile is off by {percent:.2} %"
    );
    Ok(factors)
}
