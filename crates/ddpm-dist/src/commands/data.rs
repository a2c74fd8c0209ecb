//! `data`: inspecting a data set before training on it.

use std::collections::BTreeMap;

use ddpm_config::{OnCorrupt, Settings};
use ddpm_data::{DataError, Source, Split, class_phrases};
use ddpm_model::{Error, ErrorKind, data, pictures};
use serde_json::json;

use crate::cli::DataCommand;
use crate::output::print;

/// Images that are read without `--check`, and the number in the grid.
const PREVIEW: u64 = 64;
const COLUMNS: usize = 8;
/// Classes that are listed in the text output.
const CLASSES_SHOWN: usize = 100;

/// Runs `data info`.
pub fn run(command: &DataCommand, json: bool) -> Result<(), Error> {
    let DataCommand::Info { config, check, out } = command;
    let settings = Settings::load(&config.config, &config.overrides)?;
    let source = data::open(&settings, Split::Train)?;
    let shape = source.image();
    let skips = settings.data.on_corrupt == OnCorrupt::Skip;
    let looked_at = if *check { source.len() } else { PREVIEW.min(source.len()) };
    let mut image = vec![0; shape.values()];
    let mut preview = Vec::new();
    let mut labels: BTreeMap<u32, u64> = BTreeMap::new();
    let (mut read, mut failed, mut sum) = (0u64, 0u64, 0.0);
    // Whether training would end with an error.
    let mut ends = false;
    for id in 0..looked_at {
        match source.read(id, &mut image) {
            Ok(label) => {
                label.into_iter().for_each(|label| *labels.entry(label).or_default() += 1);
                read += 1;
                sum += image.iter().map(|v| f64::from(*v)).sum::<f64>() / image.len() as f64;
                if id < PREVIEW {
                    preview.extend_from_slice(&image);
                }
            }
            Err(error) if *check || (skips && matches!(error, DataError::Image { .. })) => {
                failed += 1;
                ends |= !skips || !matches!(error, DataError::Image { .. });
                tracing::warn!("{}", error.fault());
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let (Some(path), false) = (out, preview.is_empty()) {
        let grid = pictures::grid_u8(&preview, shape.channels, shape.height, COLUMNS)?;
        grid.save_png(path).map_err(|e| Error::file(path, e))?;
    }
    let mean = sum / read.max(1) as f64;
    if json {
        print(json!({
            "images": source.len(), "channels": shape.channels, "size": shape.height, "classes": source.classes(),
            "class_table": class_table(source.as_ref()), "passed_over": source.findings().ignored.0,
            "warnings": source.findings().warnings, "read": read, "failed": failed, "mean_pixel": mean,
            "labels_read": labels,
        }))?;
    } else {
        print(source.describe())?;
        print(format_args!("images   {} of {shape} (channels, height, width)", source.len(),))?;
        print(format_args!("classes  {}", source.classes().map_or("none".into(), |classes| classes.to_string())))?;
        let table = source.class_table();
        for class in class_phrases(&table).take(CLASSES_SHOWN) {
            print(format_args!("         {class}"))?;
        }
        if table.len() > CLASSES_SHOWN {
            print(format_args!("         and {} more; --json lists all of them", table.len() - CLASSES_SHOWN))?;
        }
        let others = source.findings().ignored;
        if !others.0.is_empty() {
            print(format_args!("others   {others} (not read)"))?;
        }
        print(format_args!(
            "read     {read} images, mean pixel {mean:.1} of 255{}",
            if failed > 0 { format!(", {failed} cannot be read") } else { String::new() }
        ))?;
    }
    if !ends && read > 0 {
        return Ok(());
    }
    let advice = match skips {
        true => "correct data.path, or fetch the files again",
        false => "replace or remove the files named above, or set data.on_corrupt = \"skip\"",
    };
    Err(Error::new(ErrorKind::Storage, format!("{failed} of {looked_at} images cannot be read; {advice}")))
}

fn class_table(source: &dyn Source) -> Vec<serde_json::Value> {
    source.class_table().iter().map(|class| json!({ "name": class.name, "images": class.images })).collect()
}
