//! The state that training updates (weights, gradients, moments, averages, counters), and how it is converted to and
//! from checkpoints.

use ddpm_checkpoint::{BufferEntry, Dtype, Manifest, TensorEntry};
use ddpm_config::Settings;
use ddpm_diffusion::{BoundByTimestep, LossSecondMoment, TimestepSampler};
use ddpm_model::{EMA_PREFIX, Error, ErrorKind, Remedy, WEIGHTS, average_buffer, averagings, slowest};
use ddpm_nn::{AdamW, Averaging, Ema, GradientNoise, Gradients, Moments, Network, Weights};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::build;
use crate::data_record::DataRecord;
use crate::gradient_sync::Norms;

/// Everything that a step updates.
pub struct TrainState {
    /// The trained weights.
    pub weights: Weights,
    /// Their gradients.
    pub gradients: Gradients,
    /// The optimizer and its moments.
    pub optimizer: AdamW,
    /// Moving averages of the weights, in the order of `ema.rates` and `ema.widths`.
    pub averages: Vec<Ema>,
    /// The step after which the power-function averages began: 0, unless `ema.widths` was changed later.
    pub ema_begun: u64,
    /// The sampler of timesteps, with its history.
    pub sampler: TimestepSampler,
    /// The variational bound by timestep, smoothed over steps.
    pub bound: BoundByTimestep,
    /// Estimate of the gradient noise; needs at least two ranks.
    pub noise: GradientNoise,
    /// Steps done.
    pub step: u64,
    /// Number of steps so far whose update was skipped because the gradient was not finite.
    pub skipped: u64,
    /// Number of such steps in a row, up to the current one.
    pub skipped_in_a_row: u32,
}

/// The counters that a checkpoint stores in addition to its buffers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counters {
    // The next five fields form a `DataRecord`, which is read separately, before the rest.
    images: u64,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    order_start: u64,
    #[serde(default)]
    order_epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<u64>,
    optimizer_steps: u64,
    ema_updates: Vec<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    ema_begun: u64,
    skipped: u64,
    skipped_in_a_row: u32,
    timestep_history: Option<LossSecondMoment>,
    bound: BoundByTimestep,
    noise: GradientNoise,
}

const EXP_AVG: &str = "exp_avg";
const EXP_AVG_SQ: &str = "exp_avg_sq";

impl TrainState {
    /// The state at step 0, with random weights.
    pub fn fresh(settings: &Settings, network: &Network, device: Device) -> Result<Self, Error> {
        let weights = Weights::initialise(network.layout(), settings.seed, device)?;
        Self::starting_with(settings, network, weights)
    }

    /// The state at step 0 with these weights, on their device: the moments are zero, and the averages equal the
    /// weights.
    pub fn starting_with(settings: &Settings, network: &Network, weights: Weights) -> Result<Self, Error> {
        let t = &settings.train;
        let optimizer = AdamW::new(weights.flat(), t.betas, t.weight_decay, t.adam_eps)?;
        let averages =
            averagings(&settings.ema).map(|averaging| Ema::new(weights.flat(), averaging)).collect::<Result<_, _>>()?;
        Self::assemble(settings, network, weights, optimizer, averages)
    }

    /// A state of these parts, with counters and histories as at step 0.
    fn assemble(
        settings: &Settings,
        network: &Network,
        mut weights: Weights,
        optimizer: AdamW,
        averages: Vec<Ema>,
    ) -> Result<Self, Error> {
        let gradients = Gradients::attach(network.layout(), &mut weights)?;
        let sampler = build::timestep_sampler(settings);
        Ok(Self {
            weights,
            gradients,
            optimizer,
            averages,
            ema_begun: 0,
            sampler,
            bound: BoundByTimestep::new(settings.diffusion.timesteps as usize),
            noise: GradientNoise::default(),
            step: 0,
            skipped: 0,
            skipped_in_a_row: 0,
        })
    }

    /// The state stored in a checkpoint; `buffer` returns each flat buffer by name, which becomes part of the state if it
    /// is on `device`. An average that the checkpoint lacks (`ema.rates` and `ema.widths` may change if allowed) starts
    /// from the checkpoint's weights. If that is one of the power-function averages, all of them do: only averages of the
    /// same weights can be combined.
    pub fn restore(
        settings: &Settings,
        network: &Network,
        device: Device,
        manifest: &Manifest,
        buffer: impl Fn(&str) -> Option<Tensor>,
    ) -> Result<Self, Error> {
        let refuse = |reason: String| {
            Error::new(
                ErrorKind::ResumeRefused,
                format!("the checkpoint of step {} {reason}; resume with the program that wrote it", manifest.step),
            )
        };
        let need = |name: &str| buffer(name).ok_or_else(|| refuse(format!("has no buffer {name}")));
        let counters: Counters = serde_json::from_value(manifest.state.clone())
            .map_err(|e| refuse(format!("has a state that cannot be read ({e})")))?;
        if manifest.tensors != tensor_table(network) {
            return Err(Error::new(
                ErrorKind::ResumeRefused,
                format!("the parameters in the checkpoint of step {} are not those of this network", manifest.step),
            )
            .or(Remedy::Do("set the keys of [model] back".into()))
            .or(Remedy::OtherRunDir));
        }
        let weights = Weights::over(network.layout(), need(WEIGHTS)?.f_to_device(device)?)?;
        let moments =
            Moments { exp_avg: need(EXP_AVG)?, exp_avg_sq: need(EXP_AVG_SQ)?, steps: counters.optimizer_steps };
        let t = &settings.train;
        let optimizer = AdamW::continued(weights.flat(), moments, t.betas, t.weight_decay, t.adam_eps)?;
        let held: Vec<&str> =
            manifest.buffers.iter().map(|b| b.name.as_str()).filter(|n| n.starts_with(EMA_PREFIX)).collect();
        let saved = |averaging: Averaging| held.iter().position(|held| *held == average_buffer(averaging));
        let lacking = averagings(&settings.ema).any(|averaging| averaging.is_power() && saved(averaging).is_none());
        let average = |averaging: Averaging| -> Result<Ema, Error> {
            let begins = lacking && averaging.is_power();
            let Some(index) = saved(averaging).filter(|_| !begins) else {
                return Ok(Ema::new(weights.flat(), averaging)?);
            };
            let updates = counters.ema_updates.get(index).copied();
            let updates = updates.ok_or_else(|| refuse(format!("has no counter for {}", held[index])))?;
            Ok(Ema::restore(averaging, updates, need(held[index])?, device)?)
        };
        let averages = averagings(&settings.ema).map(average).collect::<Result<_, _>>()?;
        let mut state = Self::assemble(settings, network, weights, optimizer, averages)?;
        state.ema_begun = if lacking { manifest.step } else { counters.ema_begun };
        if counters.bound.timesteps() == state.bound.timesteps() {
            state.bound = counters.bound;
            if let (TimestepSampler::LossSecondMoment(history), Some(saved)) =
                (&mut state.sampler, counters.timestep_history)
            {
                *history = saved;
            }
        } else {
            tracing::warn!("the history of losses by timestep is reset because the number of timesteps has changed");
        }
        state.noise = counters.noise;
        state.step = manifest.step;
        state.skipped = counters.skipped;
        state.skipped_in_a_row = counters.skipped_in_a_row;
        Ok(state)
    }

    /// Updates the estimate of the gradient noise from the norms of the ranks' gradients.
    pub(crate) fn record_noise(&mut self, norms: &Norms, global_batch: usize) {
        // With stratified timesteps the ranks' batches are not independent, so their gradients do not measure the
        // noise.
        if !matches!(self.sampler, TimestepSampler::Stratified { .. }) {
            self.noise.update(&norms.per_rank, norms.average, global_batch);
        }
    }

    /// The flat buffers of a checkpoint, by name.
    pub fn buffers(&self) -> Vec<(String, &Tensor)> {
        let mut buffers = vec![
            (WEIGHTS.into(), self.weights.flat()),
            (EXP_AVG.into(), self.optimizer.exp_avg()),
            (EXP_AVG_SQ.into(), self.optimizer.exp_avg_sq()),
        ];
        buffers.extend(self.averages.iter().map(|ema| (average_buffer(ema.averaging()), ema.flat())));
        buffers
    }

    /// The table of buffers for the manifest.
    pub fn buffer_table(&self) -> Vec<BufferEntry> {
        self.buffers().into_iter().map(|(name, flat)| BufferEntry { name, len: flat.numel() as u64 }).collect()
    }

    /// Total size of a checkpoint's buffers over all ranks, in MB (10^6 bytes).
    pub fn megabytes(&self) -> f64 {
        self.buffers().iter().map(|(_, flat)| 4.0 * flat.numel() as f64 / 1e6).sum()
    }

    /// The counters and the record of the data set, as the manifest's `state`.
    pub fn counters(&self, data: &DataRecord) -> serde_json::Value {
        let counters = Counters {
            images: data.images,
            fingerprint: data.fingerprint.clone(),
            order_start: data.order_start,
            order_epoch: data.order_epoch,
            window: data.window,
            optimizer_steps: self.optimizer.steps(),
            ema_updates: self.averages.iter().map(Ema::updates).collect(),
            ema_begun: self.ema_begun,
            skipped: self.skipped,
            skipped_in_a_row: self.skipped_in_a_row,
            timestep_history: match &self.sampler {
                TimestepSampler::LossSecondMoment(history) => Some(history.clone()),
                _ => None,
            },
            bound: self.bound.clone(),
            noise: self.noise,
        };
        serde_json::to_value(counters).expect("counters are plain data")
    }

    /// The weights used to draw samples: the slowest average, or the raw weights if there is none.
    pub fn preview_weights(&self, network: &Network) -> Result<Weights, Error> {
        let slowest = slowest(&self.averages, |average| average.averaging());
        let flat = slowest.map_or(self.weights.flat(), Ema::flat).detach();
        Ok(Weights::over(network.layout(), flat)?)
    }
}

fn is_zero(step: &u64) -> bool {
    *step == 0
}

/// The table of parameters for the manifest.
pub fn tensor_table(network: &Network) -> Vec<TensorEntry> {
    let entries = network.layout().entries().iter();
    entries
        .map(|entry| TensorEntry {
            name: entry.name.clone(),
            shape: entry.shape.iter().map(|n| *n as u64).collect(),
            offset: entry.offset as u64,
            dtype: Dtype::F32,
        })
        .collect()
}
