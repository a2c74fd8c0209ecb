//! Imports a model that was trained elsewhere: its weights, and the settings of a run that holds it.

mod openai;

use std::path::Path;

use ddpm_config::{ModelDescription, Settings};
use ddpm_nn::{Network, Weights};
use tch::Device;

use crate::diffusers;
use crate::error::{Error, ErrorKind};
use crate::finite;
use crate::model::Model;

pub use openai::{NoiseSchedule, OpenAiArguments};

/// A model from elsewhere, ready to become a run.
pub struct Imported {
    /// The settings of the run.
    pub settings: Settings,
    /// The network that they describe.
    pub network: Network,
    /// Its weights, on the CPU.
    pub weights: Weights,
}

impl Imported {
    /// A run in `dir` with the weights of `model`, which are one of another run's averages. It keeps no power-function
    /// averages of its own, and the others begin at trained weights.
    ///
    /// # Errors
    /// The model is not of a run.
    pub fn of(model: Model, dir: &str) -> Result<Self, Error> {
        let Model { network, weights, settings: Some(mut settings), description, .. } = model else {
            return Err(Error::config(format!("{} is not of a run", model.description)));
        };
        finite::check_weights(&weights, &description)?;
        settings.run.name = Path::new(dir).file_name().map_or("average".into(), |name| name.to_string_lossy().into());
        settings.run.dir = dir.into();
        settings.checkpoint.uri = None;
        settings.ema.widths.clear();
        settings.ema.warmup = false;
        Ok(Self { settings, network, weights })
    }
}

/// Keys of `[model]` that may differ from the model's own: they do not change what its weights mean. The number of
/// classes may be divided into classes and a null class.
const FREE: [&str; 3] = ["model.classes", "model.dropout", "model.checkpoint_activations"];

/// Reads the model at `source`, a diffusers directory or a file of OpenAI's code, for a run in the directory `run`.
/// `arguments` are for such files only. `overrides`, each `a.b=value`, set keys of the run. Set `warn` on one rank
/// only: it logs warnings.
///
/// # Errors
/// The source cannot be read, is no such model, or needs more `arguments`; or `overrides` do not fit the model.
pub fn import(
    source: &Path,
    arguments: &OpenAiArguments,
    run: &str,
    overrides: &[String],
    warn: bool,
) -> Result<Imported, Error> {
    let (description, network, weights) = open(source, arguments, warn)?;
    finite::check_weights(&weights, &source.display().to_string())?;
    let found = Settings::of_model(run, &description)?;
    let settings = Settings::from_toml(&found.to_toml(), "the imported model", overrides)?;
    check_network(&settings, &found, &network)?;
    Ok(Imported { settings, network, weights })
}

/// Opens the source: what the model is, its network, and its weights.
fn open(source: &Path, arguments: &OpenAiArguments, warn: bool) -> Result<(ModelDescription, Network, Weights), Error> {
    let named = source.display();
    if source.is_file() {
        return openai::open(source, arguments);
    }
    if !diffusers::is_diffusers_dir(source)? {
        let message = format!(
            "{named} is neither a diffusers directory nor a file; give the folder that diffusers saved, or a .pt file \
             of OpenAI's code"
        );
        return Err(Error::new(ErrorKind::Storage, message));
    }
    if *arguments != OpenAiArguments::default() {
        return Err(Error::config(format!(
            "{named} is a diffusers directory, which describes its model itself; the options that describe a model are \
             for files of OpenAI's code, so leave them out"
        )));
    }
    let pretrained = diffusers::open(source, Device::Cpu, warn)?;
    if warn && !pretrained.clips {
        tracing::warn!(
            "the scheduler in {named} does not clip predicted images to [-1, 1], and drawing from a run does by default"
        );
    }
    Ok((pretrained.description, pretrained.network, pretrained.weights))
}

/// Refuses settings whose network is not the one that the weights belong to.
fn check_network(settings: &Settings, found: &Settings, network: &Network) -> Result<(), Error> {
    let differences = settings.diff(found);
    let other = differences.iter().find(|d| d.key.starts_with("model.") && !FREE.contains(&d.key.as_str()));
    if let Some(d) = other {
        let message = format!("{} is {} in this model, so it cannot be {}; leave it as it is", d.key, d.theirs, d.ours);
        return Err(Error::config(message));
    }
    if Network::new(settings.architecture())?.layout() == network.layout() {
        return Ok(());
    }
    let rows = network.classes().map_or("no classes".into(), |rows| format!("{rows} rows in its table of classes"));
    Err(Error::config(format!(
        "this model takes {} images and has {rows}, and the network that these settings describe has other tensors; \
         leave model.classes, diffusion.label_dropout, diffusion.variance and data.channels as they are",
        network.image()
    )))
}
