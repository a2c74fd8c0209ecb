//! The resolved settings of a run: one struct per section, one field per key, with meaning, unit and default.
//!
//! These structs are the only list of keys there is. The parser, the suggestions for misspelt names, `config.toml`
//! and the comparison on resume are all derived from them.

use serde::{Deserialize, Deserializer, Serialize};

use crate::labels::Labels;

/// Everything that defines a run, resolved and of the right types.
///
/// [`Settings::load`](crate::Settings::load) returns it validated. It serialises to TOML (`config.toml`) and to JSON
/// (broadcast to the ranks, kept in checkpoints), and reads back equal from either.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Key of every random draw: weights, sample order, noise, timesteps. Default 0.
    pub seed: u64,
    /// Where the run lives.
    pub run: RunSettings,
    /// What it learns from.
    pub data: DataSettings,
    /// The network.
    pub model: ModelSettings,
    /// The diffusion process and its objective.
    pub diffusion: DiffusionSettings,
    /// The optimisation.
    pub train: TrainSettings,
    /// Averaged copies of the weights.
    pub ema: EmaSettings,
    /// How ranks talk to each other.
    pub comm: CommSettings,
    /// What is saved, where and when.
    pub checkpoint: CheckpointSettings,
    /// What is reported while training.
    pub monitor: MonitorSettings,
}

/// `[run]`: where the run lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Folder of the run's files. Default `runs/<name>`.
    pub dir: String,
    /// Name shown in logs. Default: the configuration file's name without its extension.
    pub name: String,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { dir: "runs/run".into(), name: "run".into() }
    }
}

/// `[data]`: what the run learns from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// Kind of source. The one key that has no default in a file.
    pub kind: DataKind,
    /// File or folder to read, as the program sees it (`~` is not expanded). Required for `idx` and `folder`;
    /// empty, the default, for `synthetic`.
    pub path: String,
    /// Where class labels come from. Default `auto`: the source's own, where it has any.
    pub labels: Labels,
    /// Number of images drawn by `synthetic`; the other kinds count their files. Default 60000.
    pub count: u64,
    /// Side of the square images given to the network, in pixels. Default 32.
    pub image_size: u32,
    /// Colour channels: 1 (grey) or 3 (RGB). Default 1.
    pub channels: u32,
    /// Side of the central square cut out before resizing, in source pixels; absent or 0: the largest that fits.
    #[serde(deserialize_with = "zero_is_none")]
    pub crop: Option<u32>,
    /// Mirror half of the images left to right. Default false.
    pub flip: bool,
    /// Decoding threads per rank. Default 1.
    pub workers: usize,
    /// What an unreadable image does. Default `error`.
    pub on_corrupt: OnCorrupt,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            kind: DataKind::Synthetic,
            path: String::new(),
            labels: Labels::Auto,
            count: 60_000,
            image_size: 32,
            channels: 1,
            crop: None,
            flip: false,
            workers: 1,
            on_corrupt: OnCorrupt::Error,
        }
    }
}

/// Kind of data source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// The IDX files of MNIST and its relatives.
    Idx,
    /// A folder of image files, searched to any depth.
    Folder,
    /// A packed data set; reserved, refused by validation.
    Packed,
    /// Digits drawn by the program: no files needed.
    Synthetic,
}

/// What an unreadable image does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCorrupt {
    /// Ends the run, naming the file.
    Error,
    /// Is replaced by another image and counted.
    Skip,
}

/// `[model]`: the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// Architecture. Default `unet`.
    pub kind: ModelKind,
    /// Width of each resolution level, highest resolution first. Default `[32, 64, 128]`; `[4, 10, 20, 40]` for `small`.
    pub channels: Vec<u32>,
    /// Residual blocks per level on the way down; one more on the way up. Default 2.
    pub layers_per_block: u32,
    /// Self-attention at each level, as long as `channels`. Default: the last level but one; none for `small`.
    pub attention: Vec<bool>,
    /// Channels per attention head; absent or 0: one head over all channels.
    #[serde(deserialize_with = "zero_is_none")]
    pub head_dim: Option<u32>,
    /// Groups of every group normalisation. Default 32.
    pub norm_groups: u32,
    /// Dropout probability inside residual blocks. Default 0.
    pub dropout: f64,
    /// The time embedding scales and shifts the normalised activations (Nichol & Dhariwal 2021) instead of being
    /// added to them (Ho et al. 2020). Default false.
    pub time_scale_shift: bool,
    /// Padding of the strided convolutions: 1 on every side, or 0 for right and bottom only, as Ho et al. Default 1.
    pub downsample_padding: u32,
    /// Subtracted from half the embedding's width in the sinusoids' exponent: 1 as Ho et al., 0 later. Default 0.
    pub freq_shift: u32,
    /// Time embedding is [cos, sin] rather than [sin, cos]. Default true.
    pub flip_sin_to_cos: bool,
    /// Added to the variance in group normalisation. Default 1e-5.
    pub norm_eps: f64,
    /// Number of classes the network is conditioned on; absent or 0: unconditional.
    #[serde(deserialize_with = "zero_is_none")]
    pub classes: Option<u32>,
}

impl Default for ModelSettings {
    fn default() -> Self {
        let channels = ModelKind::Unet.default_channels().to_vec();
        Self {
            kind: ModelKind::Unet,
            attention: ModelKind::Unet.default_attention(channels.len()),
            channels,
            layers_per_block: 2,
            head_dim: None,
            norm_groups: 32,
            dropout: 0.0,
            time_scale_shift: false,
            downsample_padding: 1,
            freq_shift: 0,
            flip_sin_to_cos: true,
            norm_eps: 1e-5,
            classes: None,
        }
    }
}

/// Architecture of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// The U-Net of Ho et al. (2020) and Nichol & Dhariwal (2021).
    Unet,
    /// The tutorial's small U-Net without attention; of `[model]` it uses `channels` and `classes` only.
    Small,
}

impl ModelKind {
    /// Widths used where `model.channels` is not given.
    pub(crate) fn default_channels(self) -> &'static [u32] {
        match self {
            Self::Unet => &[32, 64, 128],
            Self::Small => &[4, 10, 20, 40],
        }
    }

    /// Attention used where `model.attention` is not given: at the last level but one of a U-Net.
    pub(crate) fn default_attention(self, levels: usize) -> Vec<bool> {
        (0..levels).map(|level| self == Self::Unet && level + 2 == levels).collect()
    }
}

/// `[diffusion]`: the process and its objective. Timesteps are 0-based; t = 0 has the least noise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiffusionSettings {
    /// Number of noise levels T. Default 1000.
    pub timesteps: u32,
    /// Shape of the noise schedule. Default `linear`.
    pub schedule: Schedule,
    /// First beta of `linear`, `quadratic` and `sigmoid`; absent or 0: see [`DiffusionSettings::beta_range`].
    #[serde(deserialize_with = "zero_is_none")]
    pub beta_start: Option<f64>,
    /// Last beta of the same, and of `constant`; absent or 0: see [`DiffusionSettings::beta_range`].
    #[serde(deserialize_with = "zero_is_none")]
    pub beta_end: Option<f64>,
    /// The betas themselves, T of them, for `schedule = "list"`. Default empty.
    pub betas: Vec<f64>,
    /// What the network predicts. Default `eps`.
    pub predict: Predict,
    /// Variance of the reverse process. Default `fixed_small`.
    pub variance: Variance,
    /// Objective. Default `simple`.
    pub loss: Loss,
    /// Weight of the bound in `hybrid`: mse + lambda * T * vb (Nichol & Dhariwal 2021, eq. 16). Default 0.001.
    pub lambda: f64,
    /// Weight of each timestep in the objective. Default `none`.
    pub weighting: Weighting,
    /// Ceiling gamma of the signal-to-noise ratio in `weighting = "min_snr"`. Default 5.
    pub min_snr_gamma: f64,
    /// How training timesteps are drawn. Default `uniform`.
    pub timestep_sampler: TimestepSampler,
    /// Share of labels replaced by "no class", for classifier-free guidance. Default 0.
    pub label_dropout: f64,
}

impl Default for DiffusionSettings {
    fn default() -> Self {
        Self {
            timesteps: 1000,
            schedule: Schedule::Linear,
            beta_start: None,
            beta_end: None,
            betas: Vec::new(),
            predict: Predict::Eps,
            variance: Variance::FixedSmall,
            loss: Loss::Simple,
            lambda: 0.001,
            weighting: Weighting::None,
            min_snr_gamma: 5.0,
            timestep_sampler: TimestepSampler::Uniform,
            label_dropout: 0.0,
        }
    }
}

impl DiffusionSettings {
    /// First and last beta of the schedules that take them.
    ///
    /// Given values are taken as they are. The defaults are Ho et al.'s 1e-4 and 0.02, multiplied by 1000/T for
    /// `linear` and `quadratic` so that fewer steps add as much noise.
    pub fn beta_range(&self) -> (f64, f64) {
        let scale = match self.schedule {
            Schedule::Linear | Schedule::Quadratic => 1000.0 / f64::from(self.timesteps),
            _ => 1.0,
        };
        (self.beta_start.unwrap_or(1e-4 * scale), self.beta_end.unwrap_or(0.02 * scale))
    }
}

/// Shape of the noise schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// beta linear from `beta_start` to `beta_end` (Ho et al. 2020).
    Linear,
    /// sqrt(beta) linear from sqrt(`beta_start`) to sqrt(`beta_end`).
    Quadratic,
    /// abar(t) a squared cosine (Nichol & Dhariwal 2021, eq. 17); takes no betas.
    Cosine,
    /// beta along a logistic curve from `beta_start` to `beta_end`.
    Sigmoid,
    /// beta = `beta_end` at every t.
    Constant,
    /// The values of `betas`.
    List,
}

/// What the network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predict {
    /// The noise.
    Eps,
    /// The clean image.
    XStart,
    /// v = sqrt(abar) eps - sqrt(1 - abar) x_0.
    V,
}

/// Variance of the reverse process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    /// The posterior's.
    FixedSmall,
    /// beta.
    FixedLarge,
    /// Learned, between the two (Nichol & Dhariwal 2021, eq. 15).
    LearnedRange,
}

/// Objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Mean squared error of the prediction (Ho et al. 2020, eq. 14).
    Simple,
    /// The variational bound, T * vb in bits per dimension. `kl` is read as the same.
    #[serde(alias = "kl")]
    Vlb,
    /// mse + lambda * T * vb (Nichol & Dhariwal 2021, eq. 16).
    Hybrid,
}

/// Weight of each timestep in the objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// All alike.
    None,
    /// By the signal-to-noise ratio, capped at `min_snr_gamma` (Hang et al. 2023).
    MinSnr,
}

/// How training timesteps are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSampler {
    /// Uniform and independent.
    Uniform,
    /// Uniform, one draw in each of `global_batch` equal parts.
    Stratified,
    /// Proportional to the root mean square of recent losses (Nichol & Dhariwal 2021, eq. 18).
    LossSecondMoment,
}

/// `[train]`: the optimisation (AdamW).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// Optimizer steps of the whole run, at least 1. Default 10000.
    pub steps: u64,
    /// Images per step over all ranks. Default 128.
    pub global_batch: usize,
    /// Images per forward pass on each rank, to bound memory; absent or 0: the rank's whole slice.
    #[serde(deserialize_with = "zero_is_none")]
    pub micro_batch: Option<usize>,
    /// Learning rate after warm-up. Default 2e-4.
    pub lr: f64,
    /// Steps over which the learning rate rises linearly from 0. Default 0.
    pub warmup_steps: u64,
    /// Learning rate after warm-up. Default `constant`.
    pub lr_schedule: LrSchedule,
    /// Decoupled weight decay. Default 0.
    pub weight_decay: f64,
    /// Decay rates of Adam's two moments. Default `[0.9, 0.999]`.
    pub betas: [f64; 2],
    /// Added to Adam's denominator. Default 1e-8.
    pub adam_eps: f64,
    /// Largest global gradient norm; 0 turns clipping off. Default 1.
    pub grad_clip: f64,
    /// Arithmetic of the network; weights and optimizer stay fp32. Default `fp32`.
    pub precision: Precision,
    /// Steps in a row that a non-finite gradient may skip before the run ends. Default 10.
    pub skip_nonfinite: u32,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            steps: 10_000,
            global_batch: 128,
            micro_batch: None,
            lr: 2e-4,
            warmup_steps: 0,
            lr_schedule: LrSchedule::Constant,
            weight_decay: 0.0,
            betas: [0.9, 0.999],
            adam_eps: 1e-8,
            grad_clip: 1.0,
            precision: Precision::Fp32,
            skip_nonfinite: 10,
        }
    }
}

/// Learning rate after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// Stays at `lr`.
    Constant,
    /// Falls along half a cosine to 0 at `steps`.
    Cosine,
}

/// Arithmetic of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    Fp32,
    /// bfloat16 activations, fp32 weights.
    Bf16,
}

/// `[ema]`: exponential moving averages of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmaSettings {
    /// Decay per update, one averaged copy each; may be empty. Default `[0.9999]`.
    pub rates: Vec<f64>,
    /// Steps between updates. Default 1.
    pub every: u64,
    /// After n updates the decay is min(rate, (1 + n)/(10 + n)), so that a short run is not ruled by its initial
    /// weights. Default true.
    pub warmup: bool,
}

impl Default for EmaSettings {
    fn default() -> Self {
        Self { rates: vec![0.9999], every: 1, warmup: true }
    }
}

/// `[comm]`: how ranks talk to each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommSettings {
    /// Library that averages gradients. Default `auto`.
    pub backend: Backend,
    /// Size of a gradient bucket, in MiB. Default 25.
    pub bucket_mb: u32,
    /// Average a bucket while backward computes the next. Default true.
    pub overlap: bool,
    /// Seconds without progress after which the watchdog ends the job. Default 600.
    pub timeout_s: u64,
}

impl Default for CommSettings {
    fn default() -> Self {
        Self { backend: Backend::Auto, bucket_mb: 25, overlap: true, timeout_s: 600 }
    }
}

/// Library that averages gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// `solo` for one rank; `nccl` where every rank has a GPU; else `mpi`.
    Auto,
    /// No communication: one rank.
    Solo,
    /// MPI, on host memory.
    Mpi,
    /// NCCL, between GPUs.
    Nccl,
}

/// `[checkpoint]`: what is saved, where and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Store: a folder or a URI such as `s3://bucket/run`. Default `<run.dir>/checkpoints`;
    /// see [`Settings::checkpoint_uri`].
    pub uri: Option<String>,
    /// Steps between saves; the last step is always saved. Default 1000.
    pub every: u64,
    /// Newest checkpoints kept, at least 2. Default 2.
    pub keep_last: usize,
    /// Checkpoints at multiples of this many steps are kept for good; 0: none. Default 0.
    pub keep_every: u64,
    /// What a save that failed for good does. Default `warn`.
    pub on_failure: OnFailure,
    /// Size of an upload part, in MiB, at least 8. Default 8.
    pub part_mb: u32,
    /// Parts in flight per rank. Default 4.
    pub concurrency: usize,
    /// What a save does that comes due while the last one is in flight. Default `wait`.
    pub when_busy: WhenBusy,
    /// Promises that no other job writes to the store, for stores without conditional writes. Default false.
    pub exclusive: bool,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            uri: None,
            every: 1000,
            keep_last: 2,
            keep_every: 0,
            on_failure: OnFailure::Warn,
            part_mb: 8,
            concurrency: 4,
            when_busy: WhenBusy::Wait,
            exclusive: false,
        }
    }
}

/// What a save that failed for good does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Is logged and counted; training goes on.
    Warn,
    /// Ends the run.
    Abort,
}

/// What a save does that comes due while the last one is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenBusy {
    /// Holds training until the last one is done.
    Wait,
    /// Is left out.
    Skip,
}

/// `[monitor]`: what is reported while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorSettings {
    /// Steps between lines of `metrics.jsonl`. Default 10.
    pub log_every: u64,
    /// Steps between sample grids; 0: never. Default 1000.
    pub sample_every: u64,
    /// Images in a grid. Default 64.
    pub sample_count: usize,
    /// Network evaluations per image. Default 50.
    pub sample_steps: u32,
    /// Sampler of the grids. Default `ddim`.
    pub sampler: GridSampler,
    /// Write TensorBoard events. Default true.
    pub tensorboard: bool,
}

impl Default for MonitorSettings {
    fn default() -> Self {
        Self {
            log_every: 10,
            sample_every: 1000,
            sample_count: 64,
            sample_steps: 50,
            sampler: GridSampler::Ddim,
            tensorboard: true,
        }
    }
}

/// Sampler of the grids drawn while training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GridSampler {
    /// Ancestral (Ho et al. 2020).
    Ddpm,
    /// Deterministic (Song et al. 2020).
    Ddim,
}

impl Settings {
    /// Where checkpoints go: `checkpoint.uri`, or `<run.dir>/checkpoints`.
    pub fn checkpoint_uri(&self) -> String {
        self.checkpoint.uri.clone().unwrap_or_else(|| format!("{}/checkpoints", self.run.dir))
    }
}

/// Reads 0 as "not set", so that `--set` and an extending file can undo a value, which TOML itself cannot.
fn zero_is_none<'de, D, N>(deserializer: D) -> Result<Option<N>, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + PartialEq + Default,
{
    Ok(Option::<N>::deserialize(deserializer)?.filter(|n| *n != N::default()))
}
