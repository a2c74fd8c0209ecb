//! `plot`: pictures of the process.

use ddpm_config::Settings;
use ddpm_data::Split;
use ddpm_diffusion::{BetaSchedule, Diffusion};
use tch::Device;

use crate::assemble;
use crate::cli::PlotCommand;
use crate::failure::Failure;
use crate::pictures;
use crate::telemetry::{Chart, Series, panel};

/// Draws what is asked for.
pub fn run(command: &PlotCommand) -> Result<(), Failure> {
    let (picture, out) = match command {
        PlotCommand::Schedule { config, timesteps, out } => (schedules(config.as_deref(), *timesteps)?, out),
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

/// beta, abar and the signal-to-noise ratio of the well-known schedules, and of a configuration's own, against t/T.
fn schedules(config: Option<&str>, timesteps: u32) -> Result<crate::telemetry::Picture, Failure> {
    if timesteps == 0 {
        return Err(Failure::usage("--timesteps is 0; a schedule has at least 1"));
    }
    let count = timesteps as usize;
    let scale = 1000.0 / f64::from(timesteps);
    let (start, end) = (1e-4 * scale, 0.02 * scale);
    let mut named = vec![
        ("linear".to_owned(), BetaSchedule::Linear { start, end }, count),
        ("quadratic".to_owned(), BetaSchedule::Quadratic { start, end }, count),
        ("cosine".to_owned(), BetaSchedule::Cosine, count),
        ("sigmoid".to_owned(), BetaSchedule::Sigmoid { start, end }, count),
    ];
    if let Some(config) = config {
        let settings = Settings::load(config, &[])?;
        let own = settings.diffusion.timesteps as usize;
        named.push((settings.run.name.clone(), assemble::beta_schedule(&settings), own));
    }
    let mut charts = [("beta", true), ("alphas_cumprod", false), ("signal-to-noise ratio", true)].map(|(title, log_y)| Chart {
        title: title.into(),
        x_label: "t / T".into(),
        log_y,
        ..Chart::default()
    });
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
