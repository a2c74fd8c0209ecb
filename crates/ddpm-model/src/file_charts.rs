//! Charts of what files hold: a run's metrics, points, and the terms of the variational bound.

use std::path::{Path, PathBuf};

use ddpm_telemetry::{Chart, Picture, Series, loss_by_timestep, read_metrics};
use serde::Deserialize;

use crate::Error;

/// Weight of a new value in the averaged curve.
const AVERAGING: f64 = 0.15;

/// On a linear axis, numbers that differ by more than this factor would leave the small ones in one place.
const FAR: f64 = 20.0;

/// Metrics that are not averaged, because they are computed from the same images and noise each time.
const EVALUATIONS: [&str; 3] = ["eval_loss", "eval_bits_per_dim", "fid"];

/// A metric at each log step and its bias-corrected exponential average; for several runs, the averages.
///
/// # Errors
/// A run has no `metrics.jsonl` that can be read, or too few values of this metric.
pub fn metric_over_steps(runs: &[PathBuf], metric: &str) -> Result<Picture, Error> {
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
///
/// # Errors
/// A file cannot be read, or a line is not two numbers.
pub fn points(files: &[PathBuf], x_label: &str, y_label: &str) -> Result<Picture, Error> {
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
    let all = || series.iter().flat_map(|series| &series.points);
    let (log_x, log_y) = (far_apart(all().map(|point| point.0)), far_apart(all().map(|point| point.1)));
    let (x_label, y_label) = (x_label.into(), y_label.into());
    let title = format!("{y_label} against {x_label}");
    Ok(Chart { title, x_label, y_label, log_x, log_y, series, ..Chart::default() }.draw()?)
}

/// Whether numbers are positive and the largest is more than [`FAR`] times the smallest.
fn far_apart(numbers: impl Iterator<Item = f64>) -> bool {
    let (least, most) =
        numbers.fold((f64::INFINITY, 0.0), |(least, most), number| (number.min(least), number.max(most)));
    least > 0.0 && most > FAR * least
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

/// The bound's terms in bits/dim over timesteps t = 0..T-1, as `eval nll --json` printed them.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn bound_terms(path: &Path) -> Result<Picture, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_is_logarithmic_if_its_numbers_are_positive_and_far_apart() {
        for (numbers, logarithmic) in [
            (vec![10.0, 1000.0, 100.0], true),
            (vec![0.05, 0.25], false),
            (vec![0.0, 1.0, 1000.0], false),
            (vec![-1000.0, -1.0], false),
            (Vec::new(), false),
        ] {
            assert_eq!(far_apart(numbers.iter().copied()), logarithmic, "{numbers:?}");
        }
    }
}
