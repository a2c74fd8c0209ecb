//! What one rank knows of its machine, and of what it is about to use.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use ddpm_comm::World;
use ddpm_config::Settings;
use ddpm_data::Split;
use ddpm_model::data;
use ddpm_telemetry::machine_mb;
use serde::{Deserialize, Serialize};

/// The facts of one rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Its number.
    pub rank: usize,
    /// Its machine.
    pub host: String,
    /// Name and version of the program.
    pub program: String,
    /// The version of libtorch, as the files beside it say.
    pub libtorch: String,
    /// The size of its main library in bytes: builds of one version differ in it.
    pub libtorch_bytes: u64,
    /// The instructions with which the rank computes, and the limits that its environment sets. They decide about the
    /// last bits of results.
    pub instructions: String,
    /// The model of the processor.
    pub processor: String,
    /// libtorch's threads.
    pub threads: usize,
    /// The processors on which the rank may run.
    pub processors: usize,
    /// The memory that is available on the machine, in MB (10^6 bytes).
    pub memory_mb: Option<f64>,
    /// The folder of the run or, as long as it does not exist, the one in which it would be created.
    pub folder: String,
    /// Free space there, in MB.
    pub disk_mb: Option<f64>,
    /// Whether the store can be written, and is the one that all ranks write to.
    pub store: Outcome<()>,
    /// The data set.
    pub data: Outcome<Data>,
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Outcome<T> {
    /// Without a configuration there was nothing to attempt.
    NotAsked,
    /// What was found.
    Fine(T),
    /// What is wrong.
    Failed(String),
}

/// What identifies a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Data {
    /// Its number of images.
    pub images: u64,
    /// A hash of the mapping from ids to images and classes.
    pub fingerprint: u64,
    /// A phrase that describes it.
    pub description: String,
}

/// Environment variables that limit the instructions of libtorch's libraries.
const LIMITS: [&str; 3] = ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"];
/// Bytes of an MB.
const MB: f64 = 1e6;

impl Facts {
    /// What this rank finds out alone, by `settings` if there are any. The data set is opened, which may take as long
    /// as at the start of training.
    pub(crate) fn here(world: &World, program: &str, settings: Option<&Settings>) -> Self {
        let (libtorch, libtorch_bytes) = libtorch();
        let folder = settings.map_or(Path::new("."), |settings| Path::new(&settings.run.dir));
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
        let folder = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
        Self {
            rank: world.rank(),
            host: world.host().into(),
            program: program.into(),
            libtorch,
            libtorch_bytes,
            instructions: instructions(),
            processor: processor(),
            threads: tch::get_num_threads() as usize,
            processors: available_parallelism().map_or(1, usize::from),
            memory_mb: machine_mb("MemAvailable"),
            folder: folder.display().to_string(),
            disk_mb: rustix::fs::statvfs(folder).ok().map(|disk| disk.f_bavail as f64 * disk.f_frsize as f64 / MB),
            store: Outcome::NotAsked,
            data: settings.map_or(Outcome::NotAsked, open),
        }
    }
}

/// The version of the libtorch that is loaded, and the size of its main library.
fn libtorch() -> (String, u64) {
    let Ok(folder) = tch_ext::libtorch_folder() else { return ("unknown".into(), 0) };
    let bytes = fs::metadata(folder.join("libtorch_cpu.so")).map_or(0, |file| file.len());
    let beside = |name: &str| fs::read_to_string(folder.join("..").join(name)).ok();
    // libtorch as an archive, and as part of PyTorch.
    let version = beside("build-version").or_else(|| quoted(&beside("version.py")?, "__version__ ="));
    (version.map_or_else(|| "unknown".into(), |version| version.trim().into()), bytes)
}

/// The text in quotes on the line that begins with `key`.
fn quoted(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim().trim_matches(['\'', '"']).into())
}

fn instructions() -> String {
    let mut all = tch_ext::processor().to_owned();
    if tch_ext::multiplies_bf16() {
        all += " bf16";
    }
    for name in LIMITS {
        if let Ok(limit) = std::env::var(name) {
            all += &format!(" {name}={limit}");
        }
    }
    all
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
}

fn open(settings: &Settings) -> Outcome<Data> {
    match data::open(settings, Split::Train) {
        Ok(source) => Outcome::Fine(Data {
            images: source.len(),
            fingerprint: source.fingerprint(),
            description: source.describe(),
        }),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_facts() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = format!("run.dir={:?}", dir.path().join("not/yet").display().to_string());
        let settings = Settings::load("smoke", &[run_dir]).unwrap();
        let facts = Facts::here(&World::init().unwrap(), "program 1", Some(&settings));
        assert!(facts.libtorch_bytes > 1_000_000, "{facts:?}");
        assert!(facts.libtorch.starts_with(|first: char| first.is_ascii_digit()), "{facts:?}");
        assert!(facts.threads >= 1 && facts.processors >= 1 && !facts.processor.is_empty());
        assert!(facts.memory_mb > Some(1.0) && facts.disk_mb > Some(0.0));
        assert_eq!(Path::new(&facts.folder), dir.path());
        assert!(matches!(&facts.data, Outcome::Fine(data) if data.images == 512), "{:?}", facts.data);
        assert!(!dir.path().join("not").exists());
    }

    #[test]
    fn the_version_is_in_quotes() {
        let text = "from typing import Optional\n__version__ = '2.13.0+cpu'\ndebug = False\n";
        assert_eq!(quoted(text, "__version__ =").as_deref(), Some("2.13.0+cpu"));
        assert_eq!(quoted("", "__version__ ="), None);
    }
}
