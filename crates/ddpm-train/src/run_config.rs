//! `config.toml`: the settings of a run, as recorded in its directory.

use std::path::Path;

use ddpm_config::Settings;
use ddpm_model::{Error, current_folder};
use ddpm_telemetry::write_atomic;

use crate::program::Program;

/// Writes `config.toml` to `run.dir`, and returns its text. Its paths mean the same from any working directory.
pub fn write_config(settings: &Settings, program: &Program) -> Result<String, Error> {
    let recorded = settings.clone().anchored(&current_folder()?);
    let config = format!("# Resolved by {}.\n{}", program.name, recorded.to_toml());
    let path = Path::new(&settings.run.dir).join("config.toml");
    write_atomic(&path, config.as_bytes()).map_err(|e| Error::file(&path, e))?;
    Ok(config)
}
