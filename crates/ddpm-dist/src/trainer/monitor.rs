//! What rank 0 shows of a run: its directory's files, TensorBoard, the progress on the terminal, sample grids.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use ddpm_comm::Collective;
use ddpm_config::{GridSampler, Settings};
use ddpm_data::Source;
use ddpm_diffusion::{BoundByTimestep, Clip, Ddim, Diffusion, Direction, Sampler, Spacing, Variance, kept_timesteps};
use ddpm_nn::Weights;

use super::step::Task;
use crate::assemble;
use crate::coordinator::Learner;
use crate::failure::Failure;
use crate::generate::{Drawn, Generation};
use crate::pictures::{self, STRIP_IMAGES};
use crate::process_charts::{self, AtWork, FEWEST};
use crate::steps;
use crate::telemetry::{Metrics, MetricsLog, Picture, Progress, TensorBoard, loss_by_timestep, write_atomic};

/// Key of the noise that sample grids start from: the same at every step and for every run, so grids compare.
const GRID_SEED: u64 = 0;
/// Images per forward pass in a grid, unless `train.micro_batch` says that fewer fit.
const GRID_BATCH: usize = 64;

/// The outputs of a run.
pub struct Monitor {
    directory: PathBuf,
    metrics: MetricsLog,
    tensorboard: Option<TensorBoard>,
    progress: Progress,
    channels: usize,
    size: usize,
    columns: usize,
    sample_steps: usize,
}

impl Monitor {
    /// Writes `config.toml`, opens the logs at the step after `resumed`, takes away grids of later steps, and shows the data
    /// on its way to noise.
    pub fn open(
        settings: &Settings,
        source: &dyn Source,
        diffusion: &Diffusion,
        resumed: Option<u64>,
    ) -> Result<Self, Failure> {
        let directory = PathBuf::from(&settings.run.dir);
        let recorded = settings.clone().anchored(&assemble::current_folder()?);
        let config = format!("# Resolved by ddpm-dist {}.\n{}", env!("CARGO_PKG_VERSION"), recorded.to_toml());
        let path = directory.join("config.toml");
        write_atomic(&path, config.as_bytes()).map_err(|e| Failure::file(&path, e))?;
        if let Err(error) = remove_later_grids(&grids(&directory), resumed) {
            tracing::warn!("sample grids of steps that will be run again cannot be removed ({error})");
        }
        if settings.monitor.sample_every > 0 && Learner::of(settings) == Learner::Diffusion {
            let kept = grid_timesteps(settings, diffusion)?;
            steps::warn_of_visible_signal(diffusion, &kept, "raise monitor.sample_steps");
        }
        let mut tensorboard = settings.monitor.tensorboard.then(|| TensorBoard::open(&directory.join("tb"), resumed));
        if let Some(board) = &mut tensorboard {
            let step = board.first_step();
            board.text("config", &config);
            // An image that cannot be read is a matter for the step that needs it, and for data.on_corrupt.
            show(board, step, "forward", pictures::forward_strip(source, diffusion, settings.seed));
            let timesteps = settings.diffusion.timesteps;
            show(board, step, "schedule", process_charts::schedules(Some(settings), timesteps.max(FEWEST)));
            let width = settings.model.channels[0];
            show(board, step, "embedding", process_charts::embedding(timesteps, width));
        }
        Ok(Self {
            metrics: MetricsLog::open(&directory.join("metrics.jsonl"), resumed),
            tensorboard,
            progress: Progress::new(settings.train.steps, resumed.unwrap_or(0), std::io::stderr().is_terminal()),
            channels: settings.data.channels as usize,
            size: settings.data.image_size as usize,
            columns: columns(settings),
            sample_steps: settings.monitor.sample_steps as usize,
            directory,
        })
    }

    /// Step `step` is done.
    pub fn advance(&self, step: u64) {
        self.progress.advance(step);
    }

    /// Records a log step.
    pub fn log(&mut self, metrics: &Metrics) {
        self.metrics.append(metrics);
        if let Some(board) = &mut self.tensorboard {
            board.metrics(metrics);
        }
        self.progress.report(metrics);
    }

    /// Shows what the network has learned of the process by step `step`: the bound's terms over t and, of a learned
    /// variance, where it lies between its bounds.
    pub fn show_learning(&mut self, step: u64, bound: &BoundByTimestep, model: &AtWork) {
        let Some(board) = &mut self.tensorboard else { return };
        show(board, step, "loss_by_timestep", loss_by_timestep(bound.averages()).map_err(Failure::internal));
        if model.process.spec().variance == Variance::LearnedRange {
            show(board, step, "variance", process_charts::learned_variance(model));
        }
    }

    /// Shows images drawn after step `step`, and the first of them on their way from noise.
    pub fn show_samples(&mut self, step: u64, drawn: &Drawn) {
        let picture = match pictures::grid(&drawn.samples, self.channels, self.size, self.columns) {
            Ok(picture) => picture,
            Err(failure) => return tracing::warn!("the samples of step {step} cannot be drawn: {failure}"),
        };
        if let Some(board) = &mut self.tensorboard {
            board.picture(step, "samples", &picture);
            let strip = pictures::reverse_strip(&drawn.trajectories, self.sample_steps, self.channels, self.size);
            show(board, step, "reverse", strip);
        }
        let path = grid_path(&self.directory, step);
        match picture.save_png(&path) {
            Ok(()) => tracing::info!("samples: {}", path.display()),
            Err(error) => tracing::warn!("the samples of step {step} cannot be saved in {} ({error})", path.display()),
        }
    }
}

/// Nobody's training should end for want of a picture: what fails is warned of.
fn show(board: &mut TensorBoard, step: u64, tag: &str, picture: Result<Picture, Failure>) {
    match picture {
        Ok(picture) => board.picture(step, tag, &picture),
        Err(failure) => tracing::warn!("no picture `{tag}` of step {step}: {failure}"),
    }
}

fn grids(directory: &Path) -> PathBuf {
    directory.join("samples")
}

fn grid_path(directory: &Path, step: u64) -> PathBuf {
    grids(directory).join(grid_name(step))
}

fn grid_name(step: u64) -> String {
    format!("step-{step:09}.png")
}

/// Removes the grids of steps after `resumed`, as the logs are cut there: each step is shown once. Nothing else is touched.
fn remove_later_grids(folder: &Path, resumed: Option<u64>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let digits = name.strip_prefix("step-").and_then(|rest| rest.strip_suffix(".png"));
        let step = digits.and_then(|digits| digits.parse::<u64>().ok()).filter(|step| grid_name(*step) == name);
        if step > resumed {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Columns of a grid: one per class where there are few, else about a square.
fn columns(settings: &Settings) -> usize {
    match settings.model.classes {
        Some(classes) if classes <= 16 => classes as usize,
        _ => (settings.monitor.sample_count as f64).sqrt().ceil() as usize,
    }
}

/// The timesteps over which grids are drawn.
fn grid_timesteps(settings: &Settings, diffusion: &Diffusion) -> Result<Vec<usize>, Failure> {
    Ok(kept_timesteps(Spacing::Leading, diffusion.timesteps(), settings.monitor.sample_steps as usize)?)
}

/// The images of a grid, every rank drawing its share and rank 0 getting them all; `name` says whose they are.
pub fn draw_samples(
    settings: &Settings,
    comm: &dyn Collective,
    task: &Task,
    weights: &Weights,
    name: &str,
) -> Result<Drawn, Failure> {
    let m = &settings.monitor;
    let kept = grid_timesteps(settings, &task.diffusion)?;
    let labels: Option<Vec<i64>> =
        settings.model.classes.map(|classes| (0..m.sample_count as i64).map(|i| i % i64::from(classes)).collect());
    Generation {
        name,
        network: &task.network,
        weights,
        process: &task.diffusion.respaced(&kept)?,
        sampler: match m.sampler {
            GridSampler::Ddpm => Sampler::Ancestral,
            GridSampler::Ddim => Sampler::Ddim(Ddim { eta: 0.0, direction: Direction::FromModel }),
        },
        corrector: None,
        clip: Clip::Unit,
        seed: GRID_SEED,
        labels: labels.as_deref(),
        classifier: None,
        guidance: None,
        init_noise: None,
        batch: settings.train.micro_batch.map_or(GRID_BATCH, |micro| micro.min(GRID_BATCH)),
        trajectories: if m.tensorboard { STRIP_IMAGES } else { 0 },
    }
    .gather(comm, m.sample_count, |_, _| ())
}
