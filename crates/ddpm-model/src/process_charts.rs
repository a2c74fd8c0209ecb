//! Charts of a diffusion process and of what a network has learned of it, for `plot` and for TensorBoard.

use std::collections::BTreeSet;

use ddpm_config::Settings;
use ddpm_diffusion::{BetaSchedule, Diffusion, DiffusionSpec, Stream, Variance, betas, noise_batch};
use ddpm_nn::{Inputs, Network, Weights, sinusoidal_embedding};
use ddpm_telemetry::{Chart, HeatMap, Picture, Series, panel};
use tch::{Device, Kind, Tensor};

use crate::error::Error;
use crate::finite;
use crate::images::{Images, floats};

/// Minimum number of timesteps: with fewer, the last beta of Ho et al.'s schedule, 0.02 * 1000/T, would reach 1.
pub const MIN_TIMESTEPS: u32 = 21;

/// Charts of beta, `alphas_cumprod` and the signal-to-noise ratio over t/T, for the well-known schedules and for the
/// schedule of the configuration `own`.
pub fn schedules(own: Option<&Settings>, timesteps: u32) -> Result<Picture, Error> {
    if timesteps < MIN_TIMESTEPS {
        return Err(Error::config(format!(
            "{timesteps} timesteps are too few for betas that grow as 1000/T; give at least {MIN_TIMESTEPS}"
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
    if let Some(settings) = own {
        let own = settings.diffusion.timesteps as usize;
        named.push((settings.run.name.clone(), settings.diffusion.beta_schedule(), own));
    }
    let mut charts = [("beta", true), ("alphas_cumprod", false), ("signal-to-noise ratio", true)]
        .map(|(title, log_y)| Chart { title: title.into(), x_label: "t / T".into(), log_y, ..Chart::default() });
    for (name, schedule, count) in named {
        let process = Diffusion::new(betas(&schedule, count)?, SPEC, Device::Cpu)?;
        let snr: Vec<f64> = process.alphas_cumprod.iter().map(|abar| abar / (1.0 - abar)).collect();
        for (chart, values) in charts.iter_mut().zip([&process.betas, &process.alphas_cumprod, &snr]) {
            let points = values.iter().enumerate().map(|(t, value)| (t as f64 / count as f64, *value)).collect();
            chart.series.push(Series { name: name.clone(), points });
        }
    }
    Ok(panel(&charts)?)
}

/// A choice that fits every schedule, whose tables do not depend on any of these.
const SPEC: DiffusionSpec = DiffusionSpec {
    prediction: ddpm_diffusion::Prediction::V,
    variance: ddpm_diffusion::Variance::FixedSmall,
    loss: ddpm_diffusion::Loss::Simple,
    weighting: ddpm_diffusion::Weighting::None,
};

/// The sinusoidal embedding of t that a U-Net receives as input: first the sines, then the cosines.
pub fn embedding(timesteps: u32, channels: u32) -> Result<Picture, Error> {
    let t = Tensor::arange(i64::from(timesteps), (Kind::Int64, Device::Cpu));
    let embedded = sinusoidal_embedding(&t, i64::from(channels), false, 0.0)?.tr();
    let values = floats(&embedded)?;
    let map = HeatMap {
        title: "Sinusoidal embedding of t".into(),
        x_label: "t".into(),
        y_label: "channel: sines, then cosines".into(),
        rows: values.chunks_exact(timesteps as usize).map(<[f32]>::to_vec).collect(),
    };
    Ok(map.draw()?)
}

/// A learned variance is evaluated at this many evenly spaced timesteps, and at as many concentrated near t = 0.
const VARIANCE_TIMESTEPS: usize = 20;

/// A network and the images on which to evaluate it.
pub struct EvaluatedModel<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its weights.
    pub weights: &'a Weights,
    /// The diffusion process that it was trained on.
    pub process: &'a Diffusion,
    /// The images, which are noised to several timesteps for the evaluation.
    pub images: &'a Images,
}

/// Charts beta and the posterior variance over t, as in figure 1 of Nichol & Dhariwal (2021), and marks the one that
/// the model uses, if any.
pub fn fixed_variance(process: &Diffusion) -> Result<Picture, Error> {
    Ok(bounds(process).draw()?)
}

fn bounds(process: &Diffusion) -> Chart {
    let over_t = |values: &[f64]| values.iter().enumerate().map(|(t, value)| (t as f64 + 1.0, *value)).collect();
    let small: Vec<f64> = process.posterior_log_variance_clipped.iter().map(|log| log.exp()).collect();
    let kind = process.spec().variance;
    let name = |fixed, what: &str| if kind == fixed { format!("{what}, this model's") } else { what.to_owned() };
    Chart {
        title: "Variance of a reverse step".into(),
        x_label: "t + 1".into(),
        y_label: "variance".into(),
        log_x: true,
        log_y: true,
        y_covers: None,
        series: vec![
            Series { name: name(Variance::FixedLarge, "beta"), points: over_t(&process.betas) },
            Series { name: name(Variance::FixedSmall, "posterior"), points: over_t(&small) },
        ],
    }
}

/// Like [`fixed_variance`], with the mean of the model's learned variance, and a second chart of where it lies
/// between the two.
pub fn learned_variance(model: &EvaluatedModel) -> Result<Picture, Error> {
    let process = model.process;
    let mut variances = bounds(process);
    let looks = learned_fractions(model)?;
    let between = looks.iter().map(|look| {
        let (low, high) = (process.posterior_log_variance_clipped[look.t], process.betas[look.t].ln());
        (look.t as f64 + 1.0, (low + look.mean * (high - low)).exp())
    });
    variances.series.push(Series { name: "learned, mean".into(), points: between.collect() });
    let line = |name: &str, value: fn(&VariancePosition) -> f64| Series {
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
    Ok(panel(&[variances, fractions])?)
}

/// The position of a learned variance at one t between the posterior variance (0) and beta (1), on a logarithmic
/// scale.
struct VariancePosition {
    t: usize,
    mean: f64,
    low: f64,
    high: f64,
}

/// Evaluates the variance channels on noised images, over t.
fn learned_fractions(model: &EvaluatedModel) -> Result<Vec<VariancePosition>, Error> {
    let EvaluatedModel { network, weights, process, images } = *model;
    let labels = network.classes().map(|_| Tensor::from_slice(&images.labels).to_device(process.device()));
    let shape = images.x_start.size();
    let positions: Vec<u64> = (0..shape[0] as u64).collect();
    let last = (process.timesteps() - 1) as f64;
    let timesteps: BTreeSet<usize> = (0..VARIANCE_TIMESTEPS)
        .map(|i| i as f64 / (VARIANCE_TIMESTEPS - 1) as f64)
        .flat_map(|share| [share * last, (last + 1.0).powf(share) - 1.0])
        .map(|t| t.round() as usize)
        .collect();
    let noise = noise_batch(0, Stream::Picture, &positions, &shape[1..]).to_device(process.device());
    let _guard = tch::no_grad_guard();
    timesteps
        .into_iter()
        .map(|index| {
            let t = process.full_t(index, shape[0]);
            let x = process.q_sample(&images.x_start, &t, &noise);
            let inputs = Inputs { x: &x, t: &t, labels: labels.as_ref(), dropout: None };
            let output = network.forward(weights, &inputs)?;
            let channels = output.narrow(1, shape[1], shape[1]);
            finite::check_images(&channels, 0, &format!("variances that the network chooses at t = {index}"))?;
            let mut fractions = floats(&((channels + 1.0) / 2.0))?;
            fractions.sort_by(f32::total_cmp);
            let quantile = |share: f64| f64::from(fractions[(share * (fractions.len() - 1) as f64).round() as usize]);
            let mean = fractions.iter().map(|f| f64::from(*f)).sum::<f64>() / fractions.len() as f64;
            Ok(VariancePosition { t: index, mean, low: quantile(0.1), high: quantile(0.9) })
        })
        .collect()
}
