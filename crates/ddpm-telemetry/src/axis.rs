//! The axes of a chart: the positions of their ticks and the format of the tick labels.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;

/// A range with its ticks. The range of a logarithmic axis is in logarithms to base 10.
pub(crate) struct Axis {
    range: (f64, f64),
    ticks: Vec<f64>,
    notation: Notation,
}

/// The format of tick labels.
enum Notation {
    Decimals(usize),
    Scientific,
    PowerOfTen,
}

impl Axis {
    /// Five to ten ticks at multiples of 1, 2 or 5 times a power of ten.
    pub(crate) fn linear(range: (f64, f64)) -> Self {
        let (low, high) = range;
        let rough = (high - low) / 10.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0].map(|m| m * power).into_iter().find(|&step| step >= rough).unwrap_or(10.0 * power);
        let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
        let notation = match step.log10().floor() {
            exponent @ -4.0..0.0 => Notation::Decimals(-exponent as usize),
            0.0..6.0 => Notation::Decimals(0),
            _ => Notation::Scientific,
        };
        Self { range, ticks: (first..=last).map(|i| i as f64 * step).collect(), notation }
    }

    /// One tick per power of ten: fewer over a wide range, and with additional ticks at 2 and 5 over a narrow one.
    pub(crate) fn logarithmic(range: (f64, f64)) -> Self {
        let (low, high) = range;
        let (first, last) = (low.floor() as i64, high.ceil() as i64);
        let every = ((last - first) as usize).div_ceil(10).max(1);
        let between: &[f64] = if high - low < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let ticks = (first..=last)
            .step_by(every)
            .flat_map(|power| between.iter().map(move |m| power as f64 + m.log10()))
            .filter(|tick| (low..=high).contains(tick))
            .collect();
        Self { range, ticks, notation: Notation::PowerOfTen }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, pixels: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(value, pixels)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // plotters asks twice, for bold lines with labels and for light lines between them. Only bold lines are
        // drawn.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, tick: &f64) -> String {
        match self.notation {
            Notation::Decimals(decimals) => format!("{tick:.decimals$}"),
            Notation::Scientific => scientific(*tick),
            Notation::PowerOfTen => {
                let value = 10f64.powf(*tick);
                let decimals = (-tick.floor()).max(0.0) as usize;
                if tick.abs() <= 3.0 { format!("{value:.decimals$}") } else { scientific(value) }
            }
        }
    }
}

/// The minimum and maximum of `values`. The result is never an empty range, even for a single value or none.
pub(crate) fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low < high {
        (low, high)
    } else if low == high {
        let apart = 0.5 * low.abs().max(1e-3);
        (low - apart, high + apart)
    } else {
        (0.0, 1.0)
    }
}

/// Up to three significant digits, without trailing zeros: 2e-5, 1.25e6.
fn scientific(value: f64) -> String {
    let text = format!("{value:.2e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|tick| axis.format_ext(tick)).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(&Axis::linear((-0.04, 1.04))), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Axis::linear((0.0, 999.0))).last().unwrap(), "900");
        assert_eq!(
            labels(&Axis::linear((1e-7, 5.2e-7))),
            ["1e-7", "1.5e-7", "2e-7", "2.5e-7", "3e-7", "3.5e-7", "4e-7", "4.5e-7", "5e-7"]
        );
        assert_eq!(labels(&Axis::logarithmic((-1.1, 1.2))), ["0.1", "0.2", "0.5", "1", "2", "5", "10"]);
        assert_eq!(labels(&Axis::logarithmic((-4.1, 0.1))), ["1e-4", "0.001", "0.01", "0.1", "1"]);
    }
}
