//! A run's directory: finds its checkpoints, and adjusts recorded paths after the directory was moved.

use std::path::{Path, PathBuf};

use ddpm_config::{Settings, check_path};

use crate::error::Error;

/// The store of SRC. If SRC is the address of an object store, it is returned unchanged. For a run's directory, it is
/// the store that its `config.toml` names, or its own `checkpoints` folder. Anything else is taken as a store itself.
pub fn store_of(run: &str) -> Result<String, Error> {
    let (directory, own) = (Path::new(run), Path::new(run).join("checkpoints"));
    let config = directory.join("config.toml");
    if check_path(run).is_err() {
        return Ok(run.into());
    }
    if !config.is_file() {
        return Ok(if own.is_dir() { own.display().to_string() } else { run.into() });
    }
    let text = std::fs::read_to_string(&config).map_err(|e| Error::file(&config, e))?;
    let settings = Settings::from_toml(&text, &config.display().to_string(), &[])?;
    match with_relocated_paths(settings, directory).checkpoint.uri {
        Some(uri) if check_path(&uri).is_ok() && Path::new(&uri).is_relative() => Err(Error::config(format!(
            "{} gives the checkpoints' address as {uri}, relative to a folder that it does not record; name the folder of \
             the checkpoints instead of the run's",
            config.display()
        ))),
        Some(uri) => Ok(uri),
        // A run that was moved keeps its checkpoints next to its configuration.
        None => Ok(own.display().to_string()),
    }
}

/// The settings that a run recorded, with paths adjusted to the present location of the run's directory. If the run
/// was moved or copied, paths to files that moved along with it are updated. An earlier version recorded paths as
/// typed; in that case the recorded `run.dir` shows in which folder the run was started.
pub fn with_relocated_paths(mut settings: Settings, run: &Path) -> Settings {
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
        // After a copy the original still exists, but files that were copied along belong to the copy.
        if let Ok(moved) = moved
            && moved.exists()
        {
            *path = moved.display().to_string();
        }
    }
    settings
}
