//! `plot`: pictures of the process, of a run, and of a model at work.

use std::collections::BTreeSet;
use std::path::Path;

use ddpm_comm::{Collective, World};
use ddpm_config::Settings;
use ddpm_data::Split;
use ddpm_diffusion::{BetaSchedule, Clip, Diffusion, Sampler, Spacing, Stream, VarianceKind, noise_batch};
use ddpm_nn::{Inputs, sinusoidal_embedding};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::assemble;
use crate::cli::{DataArgs, PlotCommand};
use crate::coordinator::unanimous;
use crate::failure::Failure;
use crate::generate::{Drawn, Generation, floats};
use crate::images;
use crate::pictures::{self, STRIP_IMAGES};
use crate::source::Model;
use crate::telemetry::{Chart, HeatMap, Picture, Series, loss_by_timestep, panel, read_metrics};

/// Draws what is asked for.
pub fn run(command: &PlotCommand, world: &World) -> Result<(), Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    match command {
        PlotCommand::Schedule { config, timesteps, out } => {
            save(comm, out, || schedules(config.as_deref(), *timesteps))
        }
        PlotCommand::Loss { run, out } => save(comm, out, || loss(run)),
        PlotCommand::Forward { config, out } => save(comm, out, || {
            let settings = Settings::load(&config.config, &config.overrides)?;
            let source = assemble::open_data(&settings, Split::Train)?;
            let diffusion = assemble::diffusion(&settings, Device::Cpu)?;
            pictures::forward_strip(source.as_ref(), &diffusion, settings.seed)
        }),
        PlotCommand::Reverse { model, sampler, steps, seed, out } => {
            let model = Model::open(comm, &model.model, model.weights)?;
            let drawn = reverse(comm, &model, sampler.with_eta(0.0), *steps, *seed)?;
            let (channels, size) = model.network.image();
            let strip = || pictures::reverse_strip(&drawn.trajectories, *steps, channels as usize, size as usize);
            save(comm, out, strip)
        }
        PlotCommand::Variance { model, data, count, out } => {
            let model = Model::open(comm, &model.model, model.weights)?;
            save(comm, out, || variance(&model, data, *count))
        }
        PlotCommand::Terms { nll, out } => save(comm, out, || terms(nll)),
        PlotCommand::Embedding { timesteps, channels, out } => save(comm, out, || embedding(*timesteps, *channels)),
    }
}

/// Lets rank 0 draw and save a picture; all share its outcome.
fn save(comm: &dyn Collective, out: &Path, draw: impl FnOnce() -> Result<Picture, Failure>) -> Result<(), Failure> {
    let drawn = || {
        draw()?.save_png(out).map_err(|e| Failure::file(out, e))?;
        tracing::info!("wrote {}", out.display());
        Ok(())
    };
    unanimous(comm, if comm.rank() == 0 { drawn() } else { Ok(()) })
}

/// Share of a new value in the averaged curve.
const AVERAGING: f64 = 0.15;

/// The loss at each log step, and its exponential average without the bias of its start.
fn loss(run: &Path) -> Result<Picture, Failure> {
    let path = run.join("metrics.jsonl");
    let logged = read_metrics(&path).map_err(|e| Failure::file(&path, e))?;
    let raw: Vec<(f64, f64)> = logged.iter().map(|m| (m.step as f64, m.loss)).filter(|(_, y)| y.is_finite()).collect();
    if raw.len() < 2 {
        return Err(Failure::usage(format!("{} has fewer than two log steps; train further", path.display())));
    }
    let (mut sum, mut weight) = (0.0, 0.0);
    let averaged = raw.iter().map(|(step, loss)| {
        sum += AVERAGING * (loss - sum);
        weight += AVERAGING * (1.0 - weight);
        (*step, sum / weight)
    });
    let averaged = Series { name: "averaged".into(), points: averaged.collect() };
    let chart = Chart {
        title: run.file_name().map_or("loss".into(), |name| format!("{}: loss", name.to_string_lossy())),
        x_label: "step".into(),
        y_label: "loss".into(),
        log_y: true,
        series: vec![Series { name: "each log step".into(), points: raw }, averaged],
        ..Chart::default()
    };
    chart.draw().map_err(Failure::internal)
}

/// With fewer timesteps the last of Ho et al.'s betas, 0.02 * 1000/T, would reach 1.
const FEWEST: u32 = 21;

/// beta, abar and the signal-to-noise ratio of the well-known schedules, and of a configuration's own, against t/T.
fn schedules(config: Option<&str>, timesteps: u32) -> Result<Picture, Failure> {
    if timesteps < FEWEST {
        return Err(Failure::usage(format!(
            "--timesteps is {timesteps}, too few for betas that grow as 1000/T; give at least {FEWEST}"
        )));
    }
    let count = timesteps as usize;
    let scale = 1000.0 / f64::from(timesteps);
    let (start, end) = (1e-4 * scale, 0.02 * scale);
    let unscaled = BetaSchedule::Sigmoid { start: 1e-4, end: 0.02 };
    let mut named = vec![
        ("linear".to_owned(), BetaSchedule::linear(count), count),
        ("quadratic".to_owned(), BetaSchedule::Quadratic { start, end }, count),
        ("cosine".to_owned(), BetaSchedule::Cosine, count),
        ("sigmoid".to_owned(), unscaled, count),
    ];
    if let Some(config) = config {
        let settings = Settings::load(config, &[])?;
        let own = settings.diffusion.timesteps as usize;
        named.push((settings.run.name.clone(), assemble::beta_schedule(&settings), own));
    }
    let mut charts = [("beta", true), ("alphas_cumprod", false), ("signal-to-noise ratio", true)]
        .map(|(title, log_y)| Chart { title: title.into(), x_label: "t / T".into(), log_y, ..Chart::default() });
    for (name, schedule, count) in named {
        let process = Diffusion::new(schedule.betas(count)?, SETTINGS, Device::Cpu)?;
        let snr: Vec<f64> = process.alphas_cumprod.iter().map(|abar| abar / (1.0 - abar)).collect();
        for (chart, values) in charts.iter_mut().zip([&process.betas, &process.alphas_cumprod, &snr]) {
            let points = values.iter().enumerate().map(|(t, value)| (t as f64 / count as f64, *value)).collect();
            chart.series.push(Series { name: name.clone(), points });
        }
    }
    panel(&charts).map_err(Failure::internal)
}

/// A schedule's tables depend on none of these.
const SETTINGS: ddpm_diffusion::Settings = ddpm_diffusion::Settings {
    prediction: ddpm_diffusion::Prediction::Eps,
    variance: ddpm_diffusion::VarianceKind::FixedSmall,
    loss: ddpm_diffusion::Loss::Simple,
    weighting: ddpm_diffusion::Weighting::None,
};

/// A few images and their way from noise, all ranks together.
fn reverse(comm: &dyn Collective, model: &Model, sampler: Sampler, steps: usize, seed: u64) -> Result<Drawn, Failure> {
    let respace = || {
        let kept = Spacing::Leading.timesteps(model.diffusion.timesteps(), steps)?;
        Ok(model.diffusion.respaced(&kept)?)
    };
    let labels: Option<Vec<i64>> = model.classes.map(|classes| (0..STRIP_IMAGES as i64).map(|i| i % classes).collect());
    let generation = Generation {
        network: &model.network,
        weights: &model.weights,
        process: &unanimous(comm, respace())?,
        sampler,
        corrector: None,
        clip: if model.clips { Clip::Unit } else { Clip::None },
        seed,
        labels: labels.as_deref(),
        classifier: None,
        guidance: None,
        init_noise: None,
        batch: STRIP_IMAGES,
        trajectories: STRIP_IMAGES,
    };
    generation.gather(comm, STRIP_IMAGES, |_, _| ())
}

/// Timesteps at which a learned variance is looked at: as many evenly spaced as crowding towards t = 0.
const LOOKS: usize = 40;

/// beta and the posterior's variance over t, as Nichol & Dhariwal (2021) show them in figure 1, with what a model does:
/// one of the two, or the mean of what it has learned and how far between the two that lies.
fn variance(model: &Model, data: &DataArgs, count: usize) -> Result<Picture, Failure> {
    let process = &model.diffusion;
    let over_t = |values: &[f64]| values.iter().enumerate().map(|(t, value)| (t as f64 + 1.0, *value)).collect();
    let small: Vec<f64> = process.posterior_log_variance_clipped.iter().map(|log| log.exp()).collect();
    let kind = process.settings().variance;
    let name = |fixed, what: &str| if kind == fixed { format!("{what}, this model's") } else { what.to_owned() };
    let mut variances = Chart {
        title: "Variance of a reverse step".into(),
        x_label: "t + 1".into(),
        y_label: "variance".into(),
        log_x: true,
        log_y: true,
        y_covers: None,
        series: vec![
            Series { name: name(VarianceKind::FixedLarge, "beta"), points: over_t(&process.betas) },
            Series { name: name(VarianceKind::FixedSmall, "posterior"), points: over_t(&small) },
        ],
    };
    if kind != VarianceKind::LearnedRange {
        return variances.draw().map_err(Failure::internal);
    }
    let looks = learned_fractions(model, data, count)?;
    let between = looks.iter().map(|look| {
        let (low, high) = (process.posterior_log_variance_clipped[look.t], process.betas[look.t].ln());
        (look.t as f64 + 1.0, (low + look.mean * (high - low)).exp())
    });
    variances.series.push(Series { name: "learned, mean".into(), points: between.collect() });
    let line = |name: &str, value: fn(&Look) -> f64| Series {
        name: name.into(),
        points: looks.iter().map(|look| (look.t as f64 + 1.0, value(look))).collect(),
    };
    let fractions = Chart {
        title: "From posterior (0) to beta (1)".into(),
        x_label: "t + 1".into(),
        y_label: "share of the way, in log".into(),
        log_x: true,
        y_covers: Some((0.0, 1.0)),
        series: vec![
            line("90% of pixels below", |look| look.high),
            line("mean", |look| look.mean),
            line("10% of pixels below", |look| look.low),
        ],
        ..Chart::default()
    };
    panel(&[variances, fractions]).map_err(Failure::internal)
}

/// How far from the posterior's variance to beta, in logarithms, a learned one lies at one t.
struct Look {
    t: usize,
    mean: f64,
    low: f64,
    high: f64,
}

/// Looks at the variance channels at noised images, over t.
fn learned_fractions(model: &Model, data: &DataArgs, count: usize) -> Result<Vec<Look>, Failure> {
    let source = images::open(model, data, count)?;
    let process = &model.diffusion;
    let images = images::read(source.as_ref(), 0, count, process.device())?;
    let labels = model.classes.map(|_| Tensor::from_slice(&images.labels).to_device(process.device()));
    let shape = images.x_start.size();
    let positions: Vec<u64> = (0..count as u64).collect();
    let last = (process.timesteps() - 1) as f64;
    let timesteps: BTreeSet<usize> = (0..LOOKS)
        .map(|i| i as f64 / (LOOKS - 1) as f64)
        .flat_map(|share| [share * last, (last + 1.0).powf(share) - 1.0])
        .map(|t| t.round() as usize)
        .collect();
    let _guard = tch::no_grad_guard();
    timesteps
        .into_iter()
        .map(|index| {
            let t = Tensor::full([count as i64], index as i64, (Kind::Int64, process.device()));
            let noise =
                noise_batch(0, Stream::Bound(index as u64), &positions, &shape[1..]).to_device(process.device());
            let x = process.q_sample(&images.x_start, &t, &noise);
            let inputs = Inputs { x: &x, t: &t, labels: labels.as_ref(), dropout: None };
            let output = model.network.forward(&model.weights, &inputs);
            let mut fractions = floats(&((output.narrow(1, shape[1], shape[1]) + 1.0) / 2.0))?;
            fractions.sort_by(f32::total_cmp);
            let quantile = |share: f64| f64::from(fractions[(share * (fractions.len() - 1) as f64).round() as usize]);
            let mean = fractions.iter().map(|f| f64::from(*f)).sum::<f64>() / fractions.len() as f64;
            Ok(Look { t: index, mean, low: quantile(0.1), high: quantile(0.9) })
        })
        .collect()
}

/// What of `eval nll --json` is drawn.
#[derive(Deserialize)]
struct Likelihood {
    timesteps: usize,
    terms: Terms,
}

/// A column per quantity, an entry per timestep evaluated.
#[derive(Deserialize)]
struct Terms {
    t: Vec<usize>,
    vb: Vec<f64>,
}

/// The bound's terms, as `eval nll --json` told them.
fn terms(path: &Path) -> Result<Picture, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::file(path, e))?;
    let unfit = |what: String| {
        Failure::usage(format!("{}: {what}; give a file that holds what `eval nll --json` printed", path.display()))
    };
    let found: Likelihood = serde_json::from_str(&text).map_err(|e| unfit(e.to_string()))?;
    let last = found.terms.t.iter().max().copied().unwrap_or(0).max(found.timesteps.saturating_sub(1));
    if last > MOST_TIMESTEPS {
        return Err(unfit(format!("timestep {last} is beyond {MOST_TIMESTEPS}")));
    }
    let mut values = vec![None; last + 1];
    found.terms.t.iter().zip(&found.terms.vb).for_each(|(t, vb)| values[*t] = Some(*vb));
    loss_by_timestep(&values).map_err(Failure::internal)
}

/// As many timesteps as a configuration may ask for.
const MOST_TIMESTEPS: usize = 1_000_000;

/// Time's embedding as a U-Net sees it first: the sines, then the cosines.
fn embedding(timesteps: u32, channels: u32) -> Result<Picture, Failure> {
    let t = Tensor::arange(i64::from(timesteps), (Kind::Int64, Device::Cpu));
    let embedded = sinusoidal_embedding(&t, i64::from(channels), false, 0.0).tr();
    let values = floats(&embedded)?;
    let map = HeatMap {
        title: "Sinusoidal embedding of t".into(),
        x_label: "t".into(),
        y_label: "channel: sines, then cosines".into(),
        rows: values.chunks_exact(timesteps as usize).map(<[f32]>::to_vec).collect(),
    };
    map.draw().map_err(Failure::internal)
}
