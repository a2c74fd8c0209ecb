//! `data`: inspecting a data set before training on it, and packing it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use ddpm_config::{OnCorrupt, Settings};
use ddpm_data::{Extent, Manifest, Packing, Source, Split, Survey};
use ddpm_model::{Error, ErrorKind, data, pictures};
use ddpm_telemetry::{Unit, Work};
use serde_json::json;

use crate::cli::{ConfigArgs, DataCommand};
use crate::output::{print, print_rows};

/// Columns of the grid.
const COLUMNS: usize = 8;

/// Runs `data info`, `data stats`, `data pack`.
pub fn run(command: &DataCommand, as_json: bool) -> Result<(), Error> {
    match command {
        DataCommand::Info { config, check, out, split } => info(config, *split, *check, out.as_deref(), as_json),
        DataCommand::Stats { config, split } => {
            let settings = Settings::load(&config.config, &config.overrides)?;
            let source = data::open(&settings, *split)?;
            let survey = survey(source.as_ref(), Extent::Statistics)?;
            show(&ddpm_data::statistics(source.as_ref(), &survey, as_json), as_json)?;
            conclude(&settings, &survey)
        }
        DataCommand::Pack { config, out, format, per_shard, resize, split } => {
            let settings = Settings::load(&config.config, &config.overrides)?;
            let source = data::open(&settings, *split)?;
            let packing = Packing { format: *format, split: *split, per_shard: *per_shard, resized: *resize };
            let done = AtomicU64::new(0);
            let (name, unit) = (format!("packing into {}", out.display()), Unit::Of("images"));
            let manifest = Work { name, total: Some(source.len()), unit }
                .show(|| done.load(Ordering::Relaxed), || ddpm_data::pack(source.as_ref(), out, &packing, &done))?;
            print(if as_json { json!(manifest).to_string() } else { packed(&manifest, out) })
        }
    }
}

fn info(config: &ConfigArgs, split: Split, check: bool, out: Option<&Path>, as_json: bool) -> Result<(), Error> {
    let settings = Settings::load(&config.config, &config.overrides)?;
    let source = data::open(&settings, split)?;
    let survey = survey(source.as_ref(), if check { Extent::Check } else { Extent::Preview })?;
    if let (Some(path), false) = (out, survey.preview.is_empty()) {
        let grid = pictures::grid_u8(&survey.preview, source.image(), COLUMNS)?;
        grid.save_png(path).map_err(|e| Error::file(path, e))?;
    }
    show(&ddpm_data::info(source.as_ref(), &survey, as_json), as_json)?;
    if check {
        let faults = ddpm_data::verify(Path::new(&settings.data.path))?.unwrap_or_default();
        faults.iter().skip(1).for_each(|fault| tracing::warn!("{fault}"));
        faults.into_iter().next().map_or(Ok(()), |fault| Err(Error::new(ErrorKind::Storage, fault)))?;
    }
    conclude(&settings, &survey)
}

fn show(text: &str, as_json: bool) -> Result<(), Error> {
    if as_json { print(text) } else { print_rows(text, 9) }
}

fn survey(source: &dyn Source, extent: Extent) -> Result<Survey, Error> {
    let survey = Survey::of(source, extent)?;
    survey.faults.iter().for_each(|fault| tracing::warn!("{fault}"));
    Ok(survey)
}

/// Fails if training would end at one of the images.
fn conclude(settings: &Settings, survey: &Survey) -> Result<(), Error> {
    if !survey.ends && survey.read > 0 {
        return Ok(());
    }
    let advice = match settings.data.on_corrupt {
        OnCorrupt::Skip => "correct data.path, or fetch the files again",
        OnCorrupt::Error => "replace or remove the files named above, or set data.on_corrupt = \"skip\"",
    };
    let (failed, looked_at) = (survey.faults.len(), survey.read + survey.faults.len() as u64);
    Err(Error::new(ErrorKind::Storage, format!("{failed} of {looked_at} images cannot be read; {advice}")))
}

fn packed(manifest: &Manifest, folder: &Path) -> String {
    let bytes: u64 = manifest.shards.iter().map(|shard| shard.bytes).sum();
    let (images, shards, megabytes) = (manifest.images, manifest.shards.len(), bytes as f64 / 1e6);
    let left_out = if manifest.left_out > 0 { format!(", {} left out", manifest.left_out) } else { String::new() };
    format!("{images} images in {shards} files, {megabytes:.1} MB, in {}{left_out}", folder.display())
}
