//! The outputs of a run: the files in its directory, TensorBoard, progress on the terminal, sample grids, evaluations.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ddpm_comm::agree;
use ddpm_config::Settings;
use ddpm_diffusion::Variance;
use ddpm_model::pictures::{self, STRIP_IMAGES};
use ddpm_model::process_charts::{self, EvaluatedModel, MIN_TIMESTEPS};
use ddpm_model::{Drawn, Error, ErrorKind, Failure, Learner, images, steps};
use ddpm_nn::Weights;
use ddpm_telemetry::{Metrics, MetricsLog, Picture, Progress, TensorBoard, loss_by_timestep, rss_mb};

use crate::evaluations::{Evaluated, Evaluations, unless_diverged};
use crate::gpu_usage::GpuUsage;
use crate::observer::{Run, TrainObserver};
use crate::preview::{self, Preview};
use crate::rank_times::{RankSpreads, Spread};
use crate::report::LogStep;
use crate::run_config::write_config;
use crate::task::Task;

/// Writes the outputs of a run on rank 0; draws its sample grids and evaluates it on all ranks.
pub struct Monitor {
    outputs: Option<Outputs>,
    evaluations: Evaluations,
    /// The metrics of a step after which evaluations are due, which complete them.
    incomplete: Option<Metrics>,
}

/// The outputs, on rank 0.
struct Outputs {
    directory: PathBuf,
    metrics: MetricsLog,
    tensorboard: Option<TensorBoard>,
    progress: Progress,
    /// On a GPU.
    gpu: Option<GpuUsage>,
}

impl Monitor {
    /// Writes `config.toml`, opens the logs at the step from which the run was resumed, removes the grids of later
    /// steps, plots the forward process, and opens what evaluations need; collective over all ranks.
    pub fn open(run: &Run) -> Result<Self, Failure> {
        run.stop.heeded(|| {
            let evaluations = Evaluations::open(run)?;
            let opened = match run.comm.rank() {
                0 => Outputs::open(run).map(Some),
                _ => Ok(None),
            };
            Ok(Self { outputs: agree::unanimous(run.comm.as_ref(), opened)?, evaluations, incomplete: None })
        })
    }
}

impl TrainObserver for Monitor {
    fn on_log(&mut self, run: &mut Run, figures: &LogStep) -> Result<(), Failure> {
        let Some(outputs) = &mut self.outputs else { return Ok(()) };
        let mut metrics = metrics(run, figures, outputs.gpu.as_ref());
        if self.evaluations.due(run).any() {
            // Evaluated after the step is saved, as grids are drawn.
            self.incomplete = Some(metrics);
        } else {
            Evaluated::default().add_to(run, &mut metrics);
            outputs.log(&metrics);
        }
        Ok(())
    }

    fn after_step(&mut self, run: &mut Run) -> Result<(), Failure> {
        if let Some(outputs) = &self.outputs {
            outputs.progress.advance(run.state.step);
        }
        let evaluations = self.evaluations.due(run);
        let grid = run.is_due(run.settings.monitor.sample_every) && run.task.objective.denoises();
        let mut evaluated = Evaluated::default();
        // Drawing may take longer than a stop request allows.
        if (grid || evaluations.any()) && !run.stop.requested_anywhere(run.comm.as_ref()) {
            let started = Instant::now();
            match self.evaluations.run(run, evaluations) {
                // Asked to stop, a rank no longer waits for images, which all ranks know. The next step stops.
                Err(Failure::Agreed(error)) if error.error().kind() == ErrorKind::Stopped => {}
                done => {
                    evaluated = done?;
                    if grid {
                        self.draw_samples(run)?;
                    }
                }
            }
            run.clock.drawing += started.elapsed();
        }
        if let (Some(outputs), Some(mut metrics)) = (&mut self.outputs, self.incomplete.take()) {
            evaluated.add_to(run, &mut metrics);
            outputs.log(&metrics);
        }
        Ok(())
    }

    fn finished(&mut self, run: &mut Run) -> Result<(), Failure> {
        let board = self.outputs.as_mut().and_then(|outputs| outputs.tensorboard.as_mut());
        // A run that was stopped is not finished: it may go on.
        if let Some(board) = board.filter(|_| run.state.step >= run.settings.train.steps) {
            board.finished(run.state.step);
        }
        Ok(())
    }
}

impl Monitor {
    /// Draws the grid of samples, all ranks together, and the accompanying pictures.
    fn draw_samples(&mut self, run: &Run) -> Result<(), Failure> {
        let weights = run.state.preview_weights(&run.task.network)?;
        let drawn = unless_diverged("grid of samples", draw_grid(run, &weights))?;
        let Some(outputs) = &mut self.outputs else { return Ok(()) };
        if let Some(drawn) = &drawn {
            outputs.show_samples(run, drawn);
        }
        outputs.show_learning(run, &weights);
        Ok(())
    }
}

/// The metrics of a log step, in the order of `metrics.jsonl`. To add a metric, add a line here.
fn metrics(run: &Run, figures: &LogStep, gpu: Option<&GpuUsage>) -> Metrics {
    let LogStep { means, clock, .. } = figures;
    let (state, timesteps) = (run.state, run.task.diffusion.timesteps() as f64);
    let images = state.step * run.task.global_batch as u64;
    // A classifier has no squared error and no bound: they are null in the file and absent from TensorBoard.
    let denoiser = |value: f64| Some(value).filter(|value| means.accuracy.is_none() || !value.is_nan());
    let mut metrics = Metrics::at(state.step);
    metrics.count("images", "progress/images", images);
    metrics.real("epoch", "progress/epoch", run.order.epochs_passed(images));
    metrics.real("loss", "loss/total", means.loss);
    metrics.optional("mse", "loss/mse", denoiser(means.mse));
    metrics.optional("vb", "loss/vb", denoiser(means.vb));
    metrics.optional("vlb", "vlb/raw", denoiser(means.vb * timesteps));
    metrics.quarters("vlb", "vlb/raw", means.vb_quarters.map(|vb| denoiser(vb * timesteps)));
    metrics.optional("vlb_smoothed", "vlb/smoothed", state.bound.total());
    metrics.quarters("vlb_smoothed", "vlb/smoothed", state.bound.quarters());
    metrics.quarters("loss", "loss_by_t", means.loss_quarters);
    if means.accuracy.is_some() {
        metrics.optional("accuracy", "accuracy/total", means.accuracy);
        metrics.quarters("accuracy", "accuracy_by_t", means.accuracy_quarters);
    }
    metrics.real("grad_norm", "update/grad_norm", figures.grad_norm);
    metrics.optional("grad_variance", "update/grad_variance", state.noise.variance());
    metrics.optional("grad_noise_scale", "update/grad_noise_scale", state.noise.scale());
    metrics.real("lr", "update/lr", figures.lr);
    let images_per_s = clock.images_per_s();
    metrics.real("images_per_s", "speed/images_per_s", images_per_s);
    metrics.real("data_wait_s", "speed/data_wait_s", clock.data_wait.as_secs_f64());
    if let Some(traffic) = run.source.traffic() {
        metrics.count("data_requests", "speed/data_requests", traffic.requests);
        metrics.real("data_mb", "speed/data_mb", traffic.bytes as f64 / 1e6);
    }
    metrics.real("comm_wait_s", "speed/comm_wait_s", clock.comm_wait.as_secs_f64());
    if run.comm.size() > 1 {
        let ranks = figures.ranks.as_ref();
        let of_ranks = |time: fn(&RankSpreads) -> Spread| {
            ranks.map(time).map(|spread| ([spread.min, spread.median, spread.max], spread.max_rank as u64))
        };
        metrics.ranks("step_s", "ranks/step_s", of_ranks(|ranks| ranks.step));
        metrics.ranks("step_data_s", "ranks/data_s", of_ranks(|ranks| ranks.data));
        metrics.ranks("step_compute_s", "ranks/compute_s", of_ranks(|ranks| ranks.compute));
        metrics.ranks("step_wait_s", "ranks/wait_s", of_ranks(|ranks| ranks.wait));
    }
    metrics.real("ckpt_stall_s", "speed/ckpt_stall_s", clock.checkpoint_stall.as_secs_f64());
    metrics.real("rss_mb", "memory/rss_mb", rss_mb());
    if let Some(gpu) = gpu {
        gpu.report(&mut metrics, run, images_per_s);
    }
    metrics.count("skipped", "update/skipped", state.skipped);
    metrics.count("corrupt", "progress/corrupt", figures.corrupt);
    metrics.count("ckpt_missed", "progress/ckpt_missed", figures.missed_saves);
    metrics
}

impl Outputs {
    fn open(run: &Run) -> Result<Self, Error> {
        let (settings, diffusion, resumed) = (run.settings, &run.task.diffusion, run.resumed);
        let directory = PathBuf::from(&settings.run.dir);
        let config = write_config(settings, run.program)?;
        if let Err(error) = remove_later_grids(&grids(&directory), resumed) {
            tracing::warn!("cannot remove the sample grids of steps that will be repeated ({error})");
        }
        let draws = settings.monitor.sample_every > 0 || settings.monitor.fid_every > 0;
        if draws && Learner::of(settings) == Learner::Diffusion {
            let kept = preview::timesteps(settings, diffusion)?;
            steps::warn_of_visible_signal(diffusion, &kept, "raise monitor.sample_steps");
        }
        let mut tensorboard = settings.monitor.tensorboard.then(|| TensorBoard::open(&directory, resumed));
        if let Some(board) = &mut tensorboard {
            let step = board.first_step();
            board.text("config", &config);
            let keys = settings.hyperparameters();
            board.settings(keys.iter().map(|(key, value)| (key.as_str(), value)));
            // An unreadable image is only a warning here. The step that needs it handles it by data.on_corrupt.
            show(board, step, "forward", pictures::forward_strip(run.source, diffusion, settings.seed));
            let timesteps = settings.diffusion.timesteps;
            show(board, step, "schedule", process_charts::schedules(Some(settings), timesteps.max(MIN_TIMESTEPS)));
            let width = settings.model.time_channels.unwrap_or(settings.model.channels[0]);
            show(board, step, "embedding", process_charts::embedding(timesteps, width));
        }
        Ok(Self {
            metrics: MetricsLog::open(&directory.join("metrics.jsonl"), resumed),
            tensorboard,
            progress: Progress::new(settings.train.steps, resumed.unwrap_or(0), io::stderr().is_terminal()),
            gpu: GpuUsage::of(run)?,
            directory,
        })
    }

    fn log(&mut self, metrics: &Metrics) {
        self.metrics.append(metrics);
        if let Some(board) = &mut self.tensorboard {
            board.metrics(metrics);
        }
        self.progress.report(metrics);
    }

    /// Plots what the network has learned: the terms of the variational bound over t and, for a learned variance,
    /// where it lies between its two limits.
    fn show_learning(&mut self, run: &Run, weights: &Weights) {
        let Some(board) = &mut self.tensorboard else { return };
        let step = run.state.step;
        show(board, step, "loss_by_timestep", loss_by_timestep(run.state.bound.averages()).map_err(Error::from));
        let Task { network, diffusion: process, .. } = run.task;
        if process.spec().variance != Variance::LearnedRange {
            return;
        }
        let count = STRIP_IMAGES.min(run.source.len() as usize);
        let picture = images::read(run.source, 0, count, process.device()).and_then(|images| {
            process_charts::learned_variance(&EvaluatedModel { network, weights, process, images: &images })
        });
        show(board, step, "variance", picture);
    }

    /// Shows images drawn after the run's last step, and the reverse process of the first of them.
    fn show_samples(&mut self, run: &Run, drawn: &Drawn) {
        let (settings, step) = (run.settings, run.state.step);
        let image = settings.data.image();
        let picture = match pictures::grid(&drawn.samples, image, columns(settings)) {
            Ok(picture) => picture,
            Err(error) => return tracing::warn!("the samples of step {step} cannot be drawn: {error}"),
        };
        if let Some(board) = &mut self.tensorboard {
            board.picture(step, "samples", &picture);
            let steps = settings.monitor.sample_steps as usize;
            let strip = pictures::reverse_strip(&drawn.trajectories, steps, image);
            show(board, step, "reverse", strip);
        }
        let path = grid_path(&self.directory, step);
        match picture.save_png(&path) {
            Ok(()) => tracing::info!("samples: {}", path.display()),
            Err(error) => tracing::warn!("the samples of step {step} cannot be saved in {} ({error})", path.display()),
        }
    }
}

/// Adds `picture` to TensorBoard; if it could not be drawn, logs a warning, unless the run is to stop.
fn show(board: &mut TensorBoard, step: u64, tag: &str, picture: Result<Picture, Error>) {
    match picture {
        Ok(picture) => board.picture(step, tag, &picture),
        Err(error) if error.kind() == ErrorKind::Stopped => {}
        Err(error) => tracing::warn!("the picture `{tag}` of step {step} cannot be drawn: {error}"),
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

/// Removes the grids of steps after `resumed`, just as the logs are truncated there, so that each step is shown once.
/// No other file is touched.
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

/// Number of columns of a grid: one per class if there are few classes, otherwise for a roughly square grid.
fn columns(settings: &Settings) -> usize {
    match settings.model.classes {
        Some(classes) if classes <= 16 => classes as usize,
        _ => (settings.monitor.sample_count as f64).sqrt().ceil() as usize,
    }
}

/// Draws the images of a grid: every rank draws its share, and rank 0 receives all of them.
fn draw_grid(run: &Run, weights: &Weights) -> Result<Drawn, Failure> {
    let monitor = &run.settings.monitor;
    let preview = agree::unanimous(run.comm.as_ref(), Preview::of(run, weights, monitor.sample_count))?;
    let trajectories = if monitor.tensorboard { STRIP_IMAGES } else { 0 };
    preview.generation(trajectories).gather(run.comm.as_ref(), monitor.sample_count, |_, _| ())
}
