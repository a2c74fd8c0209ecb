//! Whether checkpoints belong to the same run.

use ddpm_checkpoint::Manifest;
use ddpm_config::{DifferenceKind, Settings};
use serde_json::Value;

use crate::error::{Error, ErrorKind};

/// Refuses to put a checkpoint beside those in the store `uri` if they belong to another run, whose settings are
/// `there`. What a run learns is determined by its settings, so a checkpoint with the same settings counts as the same
/// run's, wherever it was stored.
///
/// # Errors
/// They belong to another run.
pub fn refuse_other_run(manifest: &Manifest, there: &Value, uri: &str) -> Result<(), Error> {
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
