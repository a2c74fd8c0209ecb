//! How a model was trained: its configuration without the paths of one machine, its data, its metrics.

use std::path::Path;

use ddpm_config::Settings;
use ddpm_spec::DataKind;
use ddpm_telemetry::read_metrics;

/// The metrics of training that the model's description reports.
const METRICS: [&str; 4] = ["loss", "mse", "vlb_smoothed", "epoch"];

/// The settings with every path reduced to its last part, in the current folder, and the run in a folder by its name;
/// they are valid settings again.
pub(super) fn portable(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.checkpoint.uri = None;
    settings.data.cache_dir = None;
    for path in settings.paths_mut() {
        if let Some(name) = Path::new(&*path).file_name() {
            *path = format!("./{}", name.to_string_lossy());
        }
    }
    settings.run.dir = format!("runs/{}", settings.run.name);
    settings
}

/// The training data in a phrase; `None` where nobody said what it was.
pub(super) fn data(settings: &Settings) -> Option<String> {
    let data = &settings.data;
    let name = Path::new(&data.path).file_name().unwrap_or_default().to_string_lossy();
    let source = match data.kind {
        DataKind::Synthetic => format!("{} digits that ddpm-dist drew itself", data.count),
        DataKind::Idx => format!("the IDX files `{name}`"),
        DataKind::Folder | DataKind::Parquet | DataKind::Webdataset | DataKind::Zip => {
            format!("the images in `{name}`")
        }
        DataKind::Unknown => return None,
    };
    Some(format!("{source}, as {}{}", data.image(), if data.flip { ", half of them mirrored" } else { "" }))
}

/// Names and values of the run's metrics when it had taken `step` steps, or at the last logged step before; none if its
/// `metrics.jsonl` cannot be read.
pub(super) fn metrics(settings: &Settings, step: u64) -> Vec<(&'static str, f64)> {
    let lines = read_metrics(&Path::new(&settings.run.dir).join("metrics.jsonl")).unwrap_or_default();
    let until = |line: &&serde_json::Map<_, _>| line.get("step").and_then(serde_json::Value::as_u64) <= Some(step);
    let Some(line) = lines.iter().rfind(until) else { return Vec::new() };
    METRICS.into_iter().filter_map(|name| Some((name, line.get(name)?.as_f64()?))).collect()
}
