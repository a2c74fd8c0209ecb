//! Spans of time as people write them.

use std::time::Duration;

/// The shortest time between two questions to a host.
const LEAST: Duration = Duration::from_secs(1);

/// Reads a number with a unit: `500ms`, `30s`, `5m`, `1.5h`, `2d`.
///
/// # Errors
/// What to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let unit = match unit {
        "ms" => Some(1e-3),
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        "d" => Some(86_400.0),
        _ => None,
    };
    let seconds = unit.and_then(|unit| Some(number.parse::<f64>().ok()? * unit));
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| "give a number and a unit, such as 500ms, 30s, 5m, 1h or 2d".into())
}

/// Reads a time between two questions to a host.
///
/// # Errors
/// What to write instead.
pub fn interval(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < LEAST { Err("give at least 1s, so that hosts have time to answer".into()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        let ms = Duration::from_millis;
        for (text, time) in [("500ms", ms(500)), ("30s", ms(30_000)), ("0.5h", ms(1_800_000)), ("0s", ms(0))] {
            assert_eq!(duration(text), Ok(time), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1e400s", "5 m", "1h30m", "nans", "1w"] {
            assert!(duration(text).unwrap_err().contains("5m"), "{text}");
        }
    }

    #[test]
    fn hosts_have_time_to_answer() {
        assert_eq!(interval("1s"), Ok(LEAST));
        for text in ["0s", "999ms", "0.5s"] {
            assert!(interval(text).unwrap_err().contains("at least 1s"), "{text}");
        }
        assert!(interval("1").unwrap_err().contains("5m"));
    }
}
