//! Finds checkpoints that a new run would overlook.

use std::path::{Path, PathBuf};

use ddpm_checkpoint::Store;
use ddpm_config::Settings;
use ddpm_model::{Error, ErrorKind, Remedy, store_options};

/// Refuses to begin a run if there are checkpoints that it would overlook: in its directory or below its
/// `checkpoints`, but not in the store that it saves to; or next to `recorded`, the `config.toml` of another run that
/// provides its settings.
pub fn check_overlooked_checkpoints(settings: &Settings, recorded: Option<&Path>) -> Result<(), Error> {
    let store = settings.checkpoint_uri();
    let directory = Path::new(&settings.run.dir);
    let own = directory.join("checkpoints");
    let places = [vec![directory.to_path_buf(), own.clone()], folders(directory), folders(&own)].concat();
    let by_uri = places.into_iter().map(|place| (place.clone(), ("checkpoint.uri", place.display().to_string())));
    let by_directory = recorded.and_then(Path::parent).map(|run| {
        let here = if run == Path::new("") { Path::new(".") } else { run };
        (run.join("checkpoints"), ("run.dir", here.display().to_string()))
    });
    for (place, (key, value)) in by_uri.chain(by_directory) {
        if !place.join("manifest").is_dir() || are_same(&place, Path::new(&store)) {
            continue;
        }
        let uri = place.display().to_string();
        let opened = Store::open_existing_with(&uri, store_options(settings))?;
        if let Some(newest) = opened.list()?.first() {
            let message = format!(
                "{uri} holds checkpoints up to step {newest}, but this run saves to {store} and would start at step 0"
            );
            return Err(Error::new(ErrorKind::ResumeRefused, message)
                .or(Remedy::ResumeWith(key.into(), value))
                .or(Remedy::OtherRunDir));
        }
    }
    Ok(())
}

fn are_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// The sub-folders of a folder; none if it cannot be read.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
