//! `plot`: pictures of the diffusion process, of a run's metrics, and of a model's samples.

use std::path::{Path, PathBuf};

use ddpm_comm::{Collective, World, agree};
use ddpm_config::Settings;
use ddpm_data::Split;
use ddpm_diffusion::{Ddim, Direction, Sampler, Variance, kept_timesteps};
use ddpm_model::pictures::{self, STRIP_IMAGES};
use ddpm_model::process_charts::{self, EvaluatedModel};
use ddpm_model::{Drawn, Error, Failure, Generation, Model, data, diffusion, images, steps};
use ddpm_telemetry::{Chart, Picture, Series, Work, loss_by_timestep, read_metrics};
use serde::Deserialize;
use tch::Device;

use crate::cli::PlotCommand;
use crate::model_data;
use crate::output::shown;

/// Draws the requested picture.
pub fn run(command: &PlotCommand, world: &World) -> Result<(), Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    match command {
        PlotCommand::Schedule { config, timesteps, out } => {
            let draw = || {
                let own =
                    config.as_deref().map(|config| Settings::load(config, &[]).map_err(Error::from)).transpose()?;
                process_charts::schedules(own.as_ref(), *timesteps)
            };
            save(comm, out, draw)
        }
        PlotCommand::Metric { runs, metric, out } => save(comm, out, || metric_over_steps(runs, metric)),
        PlotCommand::Points { files, x_label, y_label, out } => save(comm, out, || points(files, x_label, y_label)),
        PlotCommand::Forward { config, out } => save(comm, out, || {
            let settings = Settings::load(&config.config, &config.overrides)?;
            let source = data::open(&settings, Split::Train)?;
            let diffusion = diffusion(&settings, Device::Cpu)?;
            pictures::forward_strip(source.as_ref(), &diffusion, settings.seed)
        }),
        PlotCommand::Reverse { model, sampler, steps, seed, out } => {
            let model = Model::open(comm, &model.model, model.weights, model.on.resolve(world)?)?;
            let steps = steps::count(*steps, steps::DEFAULT_SAMPLING_STEPS, model.diffusion.timesteps());
            let sampler = sampler.with(Ddim { eta: 0.0, direction: Direction::FromModel });
            let drawn = reverse(world, &model, sampler, steps, *seed)?;
            let strip = || pictures::reverse_strip(&drawn.trajectories, steps, model.network.image());
            save(comm, out, strip)
        }
        PlotCommand::Variance { model, data: args, count, out } => {
            let model = Model::open(comm, &model.model, model.weights, model.on.resolve(world)?)?;
            let draw = || {
                if model.diffusion.spec().variance != Variance::LearnedRange {
                    return process_charts::fixed_variance(&model.diffusion);
                }
                let source = model_data::open(&model, args, *count)?;
                let images = images::read(source.as_ref(), 0, *count, model.diffusion.device())?;
                process_charts::learned_variance(&EvaluatedModel {
                    network: &model.network,
                    weights: &model.weights,
                    process: &model.diffusion,
                    images: &images,
                })
            };
            save(comm, out, draw)
        }
        PlotCommand::Terms { nll, out } => save(comm, out, || terms(nll)),
        PlotCommand::Embedding { timesteps, channels, out } => {
            save(comm, out, || process_charts::embedding(*timesteps, *channels))
        }
    }
}

/// Draws and saves a picture on rank 0; all ranks share the outcome.
fn save(comm: &dyn Collective, out: &Path, draw: impl FnOnce() -> Result<Picture, Error>) -> Result<(), Failure> {
    let drawn = || {
        draw()?.save_png(out).map_err(|e| Error::file(out, e))?;
        tracing::info!("wrote {}", out.display());
        Ok(())
    };
    Ok(agree::act_on_root(comm, drawn)?)
}

/// Weight of a new value in the averaged curve.
const AVERAGING: f64 = 0.15;

/// Metrics that are not averaged, because they are computed from the same images and noise each time.
const EVALUATIONS: [&str; 3] = ["eval_loss", "eval_bits_per_dim", "fid"];

/// A metric at each log step and its bias-corrected exponential average; for several runs, the averages.
fn metric_over_steps(runs: &[PathBuf], metric: &str) -> Result<Picture, Error> {
    let mut series = Vec::new();
    for run in runs {
        let logged = logged(&run.join("metrics.jsonl"), metric)?;
        let name = run.file_name().map_or("run".into(), |name| name.to_string_lossy().into_owned());
        if EVALUATIONS.contains(&metric) {
            series.push(Series { name, points: logged });
            continue;
        }
        let averaged = averaged(&logged);
        if runs.len() == 1 {
            series.push(Series { name: "each log step".into(), points: logged });
            series.push(Series { name: "averaged".into(), points: averaged });
        } else {
            series.push(Series { name, points: averaged });
        }
    }
    let positive = series.iter().flat_map(|series| &series.points).all(|(_, y)| *y > 0.0);
    let chart = Chart {
        title: metric.into(),
        x_label: "step".into(),
        y_label: metric.into(),
        log_y: positive,
        series,
        ..Chart::default()
    };
    Ok(chart.draw()?)
}

/// The log steps at which one metric has a value, as (step, value).
fn logged(path: &Path, metric: &str) -> Result<Vec<(f64, f64)>, Error> {
    let lines = read_metrics(path).map_err(|e| Error::file(path, e))?;
    if let Some(first) = lines.first()
        && !first.contains_key(metric)
    {
        let known: Vec<&str> = first.keys().map(String::as_str).collect();
        return Err(Error::config(format!("there is no metric `{metric}`; choose from {}", known.join(", "))));
    }
    let value = |line: &serde_json::Map<String, serde_json::Value>, key: &str| line.get(key)?.as_f64();
    let points: Vec<(f64, f64)> =
        lines.iter().filter_map(|line| Some((value(line, "step")?, value(line, metric)?))).collect();
    if points.len() < 2 {
        let path = path.display();
        return Err(Error::config(format!("{path} has fewer than two log steps with {metric}; train further")));
    }
    Ok(points)
}

fn averaged(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let (mut sum, mut weight) = (0.0, 0.0);
    let average = |(step, value): &(f64, f64)| {
        sum += AVERAGING * (value - sum);
        weight += AVERAGING * (1.0 - weight);
        (*step, sum / weight)
    };
    points.iter().map(average).collect()
}

/// The pairs of numbers in each of `files`, in order of x.
fn points(files: &[PathBuf], x_label: &str, y_label: &str) -> Result<Picture, Error> {
    let mut series = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
        let mut points = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let pair: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
            let Ok(&[x, y]) = pair.as_deref() else {
                let path = path.display();
                return Err(Error::config(format!("{path}, line {number}: give two numbers, x and y, not `{line}`")));
            };
            points.push((x, y));
        }
        if points.is_empty() {
            return Err(Error::config(format!("{} has no line with two numbers, x and y", path.display())));
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let name = path.file_stem().map_or("points".into(), |name| name.to_string_lossy().into_owned());
        series.push(Series { name, points });
    }
    let (x_label, y_label) = (x_label.into(), y_label.into());
    let title = format!("{y_label} against {x_label}");
    Ok(Chart { title, x_label, y_label, series, ..Chart::default() }.draw()?)
}

/// A few samples on their way from noise, drawn by all ranks together.
fn reverse(world: &World, model: &Model, sampler: Sampler, steps: usize, seed: u64) -> Result<Drawn, Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    let respace = || {
        let kept = kept_timesteps(steps::spacing(None, &model.diffusion), model.diffusion.timesteps(), steps)?;
        steps::warn_of_visible_signal(&model.diffusion, &kept, "take more --steps");
        Ok::<_, Error>(model.diffusion.respaced(&kept)?)
    };
    let process = agree::unanimous(comm, respace())?;
    let labels: Option<Vec<i64>> = model.classes.map(|classes| (0..STRIP_IMAGES as i64).map(|i| i % classes).collect());
    let generation = Generation {
        seed,
        labels: labels.as_deref(),
        batch: STRIP_IMAGES,
        trajectories: STRIP_IMAGES,
        ..Generation::of(model, &process, sampler)
    };
    Work::on_images("drawing", STRIP_IMAGES, shown(world), |progress| generation.gather(comm, STRIP_IMAGES, progress))
}

/// The part of `eval nll --json` that is drawn.
#[derive(Deserialize)]
struct Likelihood {
    timesteps: usize,
    terms: Terms,
}

/// One column per quantity, with one entry per timestep evaluated.
#[derive(Deserialize)]
struct Terms {
    t: Vec<usize>,
    vb: Vec<f64>,
}

/// The bound's terms, as `eval nll --json` printed them.
fn terms(path: &Path) -> Result<Picture, Error> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    let unfit = |what: String| {
        Error::config(format!("{}: {what}; give a file with the output of `eval nll --json`", path.display()))
    };
    let found: Likelihood = serde_json::from_str(&text).map_err(|e| unfit(e.to_string()))?;
    let last = found.terms.t.iter().max().copied().unwrap_or(0).max(found.timesteps.saturating_sub(1));
    if last > MOST_TIMESTEPS {
        return Err(unfit(format!("timestep {last} is beyond {MOST_TIMESTEPS}")));
    }
    let mut values = vec![None; last + 1];
    found.terms.t.iter().zip(&found.terms.vb).for_each(|(t, vb)| values[*t] = Some(*vb));
    Ok(loss_by_timestep(&values)?)
}

/// The largest number of timesteps that a configuration may have.
const MOST_TIMESTEPS: usize = 1_000_000;
