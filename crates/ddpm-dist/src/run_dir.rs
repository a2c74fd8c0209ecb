//! A run's directory: where its checkpoints are, what its paths mean now, and checkpoints that lie there unseen.

use std::path::{Path, PathBuf};

use ddpm_checkpoint::Store;
use ddpm_config::{Settings, check_path};

use crate::assemble;
use crate::failure::{Exit, Failure};

/// The store of SRC: an address as it is; of a run's directory the one its `config.toml` names, or its own
/// `checkpoints`; else SRC itself.
pub fn store_of(run: &str) -> Result<String, Failure> {
    let (directory, own) = (Path::new(run), Path::new(run).join("checkpoints"));
    let config = directory.join("config.toml");
    if check_path(run).is_err() {
        return Ok(run.into());
    }
    if !config.is_file() {
        return Ok(if own.is_dir() { own.display().to_string() } else { run.into() });
    }
    let text = std::fs::read_to_string(&config).map_err(|e| Failure::file(&config, e))?;
    let settings = Settings::from_toml(&text, &config.display().to_string(), &[])?;
    match resettled(settings, directory).checkpoint.uri {
        Some(uri) if check_path(&uri).is_ok() && Path::new(&uri).is_relative() => Err(Failure::usage(format!(
            "{} gives the checkpoints' address as {uri}, relative to a folder that it does not record; name the folder of \
             the checkpoints instead of the run's",
            config.display()
        ))),
        Some(uri) => Ok(uri),
        // A run that was moved keeps its checkpoints beside its configuration.
        None => Ok(own.display().to_string()),
    }
}

/// The settings that a run wrote down, with its paths as they are now, seen from the run's directory: a run that was
/// moved takes along what moved with it, and one of an earlier version, which wrote paths down as typed, shows by its own
/// where it was started.
pub fn resettled(mut settings: Settings, run: &Path) -> Settings {
    let seen = [std::path::absolute(run), run.canonicalize()].into_iter().flatten().collect::<Vec<_>>();
    let there = PathBuf::from(&settings.run.dir);
    let typed = there.strip_prefix(".").unwrap_or(&there);
    if typed.is_relative() {
        let start = seen.iter().find(|here| here.ends_with(typed));
        return match start.and_then(|here| here.ancestors().nth(typed.components().count())) {
            Some(start) => settings.anchored(start),
            None => settings,
        };
    }
    let Some(here) = seen.last() else { return settings };
    let common = there.components().rev().zip(here.components().rev()).take_while(|(was, is)| was == is).count();
    let (Some(was), Some(is)) = (there.ancestors().nth(common), here.ancestors().nth(common)) else { return settings };
    for path in settings.paths_mut() {
        let moved = Path::new(&*path).strip_prefix(was).map(|rest| is.join(rest));
        if let Ok(moved) = moved
            && !Path::new(&*path).exists()
            && moved.exists()
        {
            *path = moved.display().to_string();
        }
    }
    settings
}

/// Refuses to begin a run where checkpoints are that it would not see: in its directory or below its `checkpoints`, but
/// not in the store that it saves to; or beside `recorded`, the `config.toml` of another run that it is configured with.
pub fn refuse_unseen(settings: &Settings, recorded: Option<&Path>) -> Result<(), Failure> {
    let store = settings.checkpoint_uri();
    let directory = Path::new(&settings.run.dir);
    let own = directory.join("checkpoints");
    let places = [vec![directory.to_path_buf(), own.clone()], folders(directory), folders(&own)].concat();
    let by_uri = places.into_iter().map(|place| (place.clone(), format!("checkpoint.uri={}", place.display())));
    let by_directory = recorded.and_then(Path::parent).map(|run| {
        (
            run.join("checkpoints"),
            format!("run.dir={}", if run == Path::new("") { Path::new(".") } else { run }.display()),
        )
    });
    for (place, set) in by_uri.chain(by_directory) {
        if !place.join("manifest").is_dir() || are_same(&place, Path::new(&store)) {
            continue;
        }
        let uri = place.display().to_string();
        let opened = Store::open_existing_with(&uri, assemble::store_options(settings))?;
        if let Some(newest) = opened.list()?.first() {
            return Err(Failure::new(
                Exit::ResumeRefused,
                format!(
                    "{uri} holds checkpoints up to step {newest}, but this run saves to {store} and would start at step 0. \
                     Go on from them with --set {set}, or start in another run.dir (--set run.dir=...)."
                ),
            ));
        }
    }
    Ok(())
}

fn are_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// The folders in a folder; none if it cannot be read.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
