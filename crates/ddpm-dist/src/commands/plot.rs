//! `plot`: pictures of the process.

use std::path::Path;

use ddpm_config::Settings;
use ddpm_data::Split;
use ddpm_diffusion::{BetaSchedule, Diffusion};
use tch::Device;

use crate::assemble;
use crate::cli::PlotCommand;
use crate::failure::Failure;
use crate::pictures;
use crate::telemetry::{Chart, Picture, Series, panel, read_metrics};

/// Draws what is asked for.
pub fn run(command: &PlotCommand) -> Result<(), Failure> {
    let (picture, out) = match command {
        PlotCommand::Schedule { config, timesteps, out } => (schedules(config.as_deref(), *timesteps)?, out),
        PlotCommand::Loss { run, out } => (loss(run)?, out),
        PlotCommand::Forward { config, out } => {
            let settings = Settings::load(&config.config, &config.overrides)?;
            let source = assemble::open_data(&settings, Split::Train)?;
            let diffusion = assemble::diffusion(&settings, Device::Cpu)?;
            (pictures::forward_strip(source.as_ref(), &diffusion, settings.seed)?, out)
        }
    };
    picture.save_png(out).map_err(|e| Failure::file(out, e))?;
    tracing::info!("wrote {}", out.display());
    Ok(())
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
