//! Opens a model to sample from or to evaluate. Its source (SRC) is a run, a run at a step, or a diffusers directory.

use std::path::Path;
use std::sync::Arc;

use ddpm_checkpoint::{CheckpointError, Manifest, Store, Want};
use ddpm_comm::{Collective, agree};
use ddpm_config::{ModelSettings, Settings};
use ddpm_data::{Source, Split};
use ddpm_diffusion::{BetaSchedule, Diffusion};
use ddpm_nn::{Architecture, Inputs, Network, Weights};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

use crate::arithmetic::Arithmetic;
use crate::build;
use crate::data;
use crate::diffusers::{self, Pretrained};
use crate::error::{Error, ErrorKind, Failure, Remedy};
use crate::finite;
use crate::learner::Learner;
use crate::run_dir::{store_of, with_relocated_paths};
use crate::snapshots::{average_of, usable};
use crate::weights::WeightChoice;

/// A network with its weights and its diffusion process.
pub struct Model {
    /// What the network is built from.
    pub architecture: Architecture,
    /// The network.
    pub network: Network,
    /// Its weights, prepared for many passes.
    pub weights: Weights,
    /// The diffusion process that it was trained on.
    pub diffusion: Diffusion,
    /// The noise schedule of that process.
    pub schedule: BetaSchedule,
    /// The row of the class table that means "no class", if there is one.
    pub null_class: Option<i64>,
    /// Number of classes that the model can be conditioned on, or that a classifier distinguishes.
    pub classes: Option<i64>,
    /// Whether predicted images are clipped to [-1, 1] by default.
    pub clips: bool,
    /// The `[model]` that describes the network.
    pub network_settings: ModelSettings,
    /// The settings that the run was trained with; `None` for a diffusers directory.
    pub settings: Option<Settings>,
    /// The checkpoint that the weights were read from; `None` for a diffusers directory.
    pub origin: Option<Origin>,
    /// A phrase that describes the model in logs and messages.
    pub description: String,
}

/// The checkpoint that a model was read from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The address of its store.
    pub store: String,
    /// Its step.
    pub step: u64,
    /// The name of the buffer that holds the model's weights.
    pub buffer: String,
    /// Number of images that training had consumed.
    pub images: u64,
    /// The program that wrote it.
    pub program: String,
    /// The counters of the run, its record of the data set among them.
    pub state: serde_json::Value,
}

/// What rank 0 found at SRC, to be sent to all ranks.
#[derive(Serialize, Deserialize)]
enum Found {
    /// A diffusers directory, which every rank reads for itself.
    Diffusers,
    /// A checkpoint, followed by a broadcast of the buffer with its `numbers` weights.
    Run { description: String, settings: Box<Settings>, origin: Origin, numbers: usize },
}

impl Model {
    /// Opens SRC, all ranks together. Rank 0 chooses the checkpoint, reads the requested weights and broadcasts them.
    /// All ranks therefore get the same weights even while the run is still saving checkpoints, and the store is read
    /// only once.
    pub fn open(
        comm: &dyn Collective,
        source: &str,
        choice: WeightChoice,
        on: impl Into<Arithmetic>,
    ) -> Result<Self, Failure> {
        Self::open_as(Learner::Diffusion, comm, source, choice, on)
    }

    /// Like [`open`](Self::open), but for a model of kind `learner`; any other kind is refused.
    pub fn open_as(
        learner: Learner,
        comm: &dyn Collective,
        source: &str,
        choice: WeightChoice,
        on: impl Into<Arithmetic>,
    ) -> Result<Self, Failure> {
        let Arithmetic { device, kind } = on.into();
        let mut flat = Vec::new();
        let found = agree::on_root(comm, || {
            let (found, weights) = find(learner, source, choice)?;
            flat = weights;
            Ok::<_, Error>(found)
        })?;
        let model = match found {
            Found::Diffusers => {
                let pretrained = diffusers::open(Path::new(source), device, comm.rank() == 0);
                agree::unanimous(comm, pretrained.and_then(|pretrained| Self::from_diffusers(source, pretrained)))
            }
            Found::Run { description, settings, origin, numbers } => {
                flat.resize(numbers, 0.0);
                comm.broadcast(&mut flat, 0);
                agree::unanimous(comm, Self::from_run(description, *settings, origin, &flat, device))
            }
        }?;
        agree::unanimous(comm, finite::check_weights(&model.weights, &model.description))?;
        Ok(agree::unanimous(comm, model.computing_in(kind))?)
    }

    /// The same model computing in `kind`, with its weights prepared for that.
    fn computing_in(self, kind: Kind) -> Result<Self, Error> {
        let network = self.network.computing_in(kind);
        let weights = network.prepare(&self.weights)?;
        Ok(Self { network, weights, ..self })
    }

    fn from_run(
        description: String,
        settings: Settings,
        origin: Origin,
        flat: &[f32],
        device: Device,
    ) -> Result<Self, Error> {
        let architecture = settings.architecture();
        let network = Network::new(architecture.clone())?;
        Ok(Self {
            weights: Weights::over(network.layout(), Tensor::from_slice(flat).to_device(device))?,
            architecture,
            network,
            diffusion: build::diffusion(&settings, device)?,
            schedule: settings.diffusion.beta_schedule(),
            null_class: settings.null_class(),
            classes: settings.model.classes.map(i64::from),
            clips: true,
            network_settings: settings.model.clone(),
            settings: Some(settings),
            origin: Some(origin),
            description,
        })
    }

    fn from_diffusers(source: &str, pretrained: Pretrained) -> Result<Self, Error> {
        let Pretrained { network, weights, diffusion, description, clips } = pretrained;
        Ok(Self {
            network_settings: ModelSettings::describing(&description.unet)?,
            architecture: Architecture::UNet(description.unet),
            schedule: description.schedule,
            classes: network.classes(),
            network,
            weights,
            diffusion,
            null_class: None,
            clips,
            settings: None,
            origin: None,
            description: format!("{source} (diffusers)"),
        })
    }

    /// The prediction `[B, ...]` of the network for images `x` `[B, C, H, W]` at timesteps `t` `[B]` of the model's
    /// own process, with the classes `labels` `[B]` if the network is conditioned on classes.
    pub fn predict(&self, x: &Tensor, t: &Tensor, labels: Option<&Tensor>) -> Result<Tensor, TchError> {
        self.network.forward(&self.weights, &Inputs { x, t, labels, dropout: None })
    }

    /// The configuration that describes the images: `config` or, by default, the configuration of the model's own
    /// run, with `overrides` applied.
    pub fn data_settings(&self, config: Option<&str>, overrides: &[String]) -> Result<Settings, Error> {
        match (config, &self.settings) {
            (Some(config), _) => Ok(Settings::load(config, overrides)?),
            (None, Some(settings)) => {
                let settings = Settings::from_toml(&settings.to_toml(), "the run's configuration", overrides)?;
                let path = &settings.data.path;
                if !path.is_empty()
                    && Path::new(path).is_relative()
                    && !overrides.iter().any(|set| set.contains("data.path"))
                {
                    tracing::warn!(
                        "the run gives data.path as {path}, relative to a folder that it does not record; reading {path} \
                         below the current folder. Set data.path to name another place"
                    );
                }
                Ok(settings)
            }
            (None, None) => {
                Err(Error::config("a diffusers directory does not say what it was trained on").or(Remedy::NameData))
            }
        }
    }

    /// Opens the images that `settings` describe. Refuses images whose shape is not the model's, and classes that the
    /// model does not know.
    pub fn open_data(&self, settings: &Settings, split: Split) -> Result<Arc<dyn Source>, Error> {
        let source = data::open(settings, split)?;
        let (found, image) = (source.image(), self.network.image());
        if found != image {
            return Err(Error::config(format!(
                "the model was trained on {image} images (channels, height, width), but the data are {found}"
            ))
            .or(Remedy::Set(vec![
                ("data.image_size".into(), image.size().to_string()),
                ("data.channels".into(), image.channels.to_string()),
            ])));
        }
        match (self.classes, source.classes()) {
            (Some(classes), Some(found)) if found as i64 > classes => Err(Error::config(format!(
                "the data has {found} classes and the model knows {classes}; name the data it was trained on"
            ))),
            (Some(classes), None) => Err(Error::config(format!(
                "the model needs one of {classes} classes with each image, but the data has no labels; set data.labels"
            ))),
            _ => Ok(source),
        }
    }
}

/// Splits `RUN@STEP` into run and step. An `@` inside the name of a folder or an address does not count.
fn step_of(source: &str) -> Option<(&str, u64)> {
    let (run, step) = source.rsplit_once('@').filter(|_| !Path::new(source).exists())?;
    Some((run, step.parse().ok()?))
}

/// Finds out what SRC is. For a run, also reads the requested weights.
fn find(learner: Learner, source: &str, choice: WeightChoice) -> Result<(Found, Vec<f32>), Error> {
    if diffusers::is_diffusers_dir(Path::new(source))? {
        refuse_other(learner, Learner::Diffusion, source)?;
        if choice != WeightChoice::SlowestAverage {
            return Err(Error::config("a diffusers directory holds one set of weights").or(Remedy::LeaveWeightsOut));
        }
        return Ok((Found::Diffusers, Vec::new()));
    }
    let (run, want) = step_of(source).map_or((source, Want::Latest), |(run, step)| (run, Want::Step(step)));
    let store = Store::open_existing(&store_of(run)?)?;
    let mut search = store.search(want)?;
    while let Some(manifest) = search.candidate()? {
        match read(learner, run, &store, &manifest, choice)? {
            Ok(found) => return Ok(found),
            Err(damaged) => search.reject(manifest.step, damaged)?,
        }
    }
    let message = format!("{} has no checkpoint yet; train first, or name another run", store.uri());
    Err(Error::new(ErrorKind::Storage, message))
}

/// Reads the requested weights of one checkpoint. If the checkpoint is damaged, the inner result is that error.
fn read(
    learner: Learner,
    run: &str,
    store: &Store,
    manifest: &Manifest,
    choice: WeightChoice,
) -> Result<Result<(Found, Vec<f32>), CheckpointError>, Error> {
    let settings: Settings = serde_json::from_value(manifest.config.clone()).map_err(|e| {
        let program = &manifest.program;
        let message = format!("{run} was written by {program}, which this version cannot read ({e}); use that version");
        Error::new(ErrorKind::Storage, message)
    })?;
    refuse_other(learner, Learner::of(&settings), run)?;
    let settings = with_relocated_paths(settings, Path::new(run));
    let buffer = choice.buffer(&settings.ema);
    let loaded = match choice {
        WeightChoice::Width(width) => average_of(store, manifest, width)?,
        _ => usable(store.load_buffer(manifest, &buffer))?,
    };
    let flat = match loaded {
        Ok(flat) => flat,
        Err(damaged) => return Ok(Err(damaged)),
    };
    let description = format!("{run} at step {}, {buffer}", manifest.step);
    let origin = Origin {
        store: store.uri().into(),
        step: manifest.step,
        buffer,
        images: manifest.position,
        program: manifest.program.clone(),
        state: manifest.state.clone(),
    };
    Ok(Ok((Found::Run { description, settings: Box::new(settings), origin, numbers: flat.len() }, flat)))
}

fn refuse_other(wanted: Learner, found: Learner, source: &str) -> Result<(), Error> {
    if wanted == found {
        return Ok(());
    }
    let message = format!("{source} holds {}, where {} is needed", found.name(), wanted.name());
    Err(Error::config(message).or(Remedy::RunOf(wanted)))
}
