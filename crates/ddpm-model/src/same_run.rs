//! Whether checkpoints belong to the same run, and what a run without one of them would resume from.

use ddpm_checkpoint::{CheckpointError, Manifest, Store, Want};
use ddpm_config::{DifferenceKind, Settings};
use serde_json::Value;

use crate::error::{Error, ErrorKind};

/// Makes `to` a store of the run whose checkpoint of `step` is about to be copied there from `from`.
///
/// # Errors
/// `to` holds another run's checkpoints, or a store fails.
pub fn adopt_run(from: &Store, step: u64, to: &Store) -> Result<(), Error> {
    let (theirs, ours) = (from.find_run()?, to.find_run()?);
    let same = matches!((&theirs, &ours), (Some(theirs), Some(ours)) if theirs.id == ours.id);
    if !same {
        let newest = match to.list()?.first().map(|newest| to.read_manifest(*newest)) {
            Some(Err(CheckpointError::Damaged { .. } | CheckpointError::NotFound { .. })) | None => None,
            Some(found) => Some(found?.config),
        };
        if let Some(there) = newest.or(ours.map(|run| run.config)) {
            refuse_other_run(&from.read_manifest(step)?, &there, to.uri())?;
        }
    }
    if let Some(run) = &theirs {
        to.adopt_run(run)?;
    }
    Ok(())
}

/// The newest step other than `step` from which a run could resume; `None` if all others are damaged, or there are none.
///
/// # Errors
/// The store fails.
pub fn newest_besides(store: &Store, step: u64) -> Result<Option<u64>, Error> {
    let mut others = store.search(Want::Latest)?;
    loop {
        match others.candidate() {
            Ok(Some(manifest)) if manifest.step == step => {}
            Ok(found) => return Ok(found.map(|manifest| manifest.step)),
            Err(CheckpointError::NoneVerifies { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Refuses to put a checkpoint beside those in the store `uri` if they belong to another run, whose settings are
/// `there`. What a run learns is determined by its settings, so a checkpoint with the same settings counts as the same
/// run's, wherever it was stored.
fn refuse_other_run(manifest: &Manifest, there: &Value, uri: &str) -> Result<(), Error> {
    let refuse = |how: String| {
        let message = format!(
            "step {} belongs to another run than the checkpoints in {uri} ({how}), and no run could resume there; copy \
             it to a folder of its own",
            manifest.step
        );
        Err(Error::new(ErrorKind::ResumeRefused, message))
    };
    let read = |config: &Value| serde_json::from_value::<Settings>(config.clone());
    let (Ok(theirs), Ok(ours)) = (read(&manifest.config), read(there)) else {
        return if manifest.config == *there { Ok(()) } else { refuse("by another version of the program".into()) };
    };
    let differences = ours.diff(&theirs).into_iter().filter(|d| d.kind == DifferenceKind::Learned);
    let list: Vec<String> = differences.map(|d| format!("{}: {} there, {} here", d.key, d.ours, d.theirs)).collect();
    if list.is_empty() { Ok(()) } else { refuse(list.join("; ")) }
}
