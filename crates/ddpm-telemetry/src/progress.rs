//! Output to stderr during a run: a progress bar on a terminal or plain lines elsewhere, and log lines that do not
//! break the bar.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::metrics::Metrics;

/// The single owner of the terminal: it draws bars at the bottom and log lines above them.
pub(crate) static SCREEN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// The progress and speed of a run.
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows progress to `total_steps` from `start_step`, the number of steps already done: as a bar on a terminal,
    /// otherwise as one line per report.
    pub fn new(total_steps: u64, start_step: u64, is_terminal: bool) -> Self {
        let style = ProgressStyle::with_template("step {pos}/{len} {wide_bar} {msg}{eta_if_known}")
            .expect("a valid template")
            .with_key("eta_if_known", |state: &ProgressState, out: &mut dyn fmt::Write| {
                // If formatting fails, the line is shown without an ETA.
                let _ = write!(out, "{}", Eta(state.eta()));
            });
        let bar = ProgressBar::with_draw_target(Some(total_steps), ProgressDrawTarget::hidden())
            .with_position(start_step)
            .with_style(style);
        let bar = if is_terminal { SCREEN.add(bar) } else { bar };
        // Steps from before this start must not count towards the ETA.
        bar.tick();
        bar.reset_eta();
        Self(bar)
    }

    /// Sets the number of steps done.
    pub fn advance(&self, step: u64) {
        self.0.set_position(step);
    }

    /// Shows the metrics of a log step.
    pub fn report(&self, metrics: &Metrics) {
        self.0.set_position(metrics.step());
        self.0.set_message(figures(metrics));
        if self.0.is_hidden() {
            tracing::info!("{}{}", self.line(), Eta(self.0.eta()));
        }
    }

    fn line(&self) -> String {
        format!("step {}/{}  {}", self.0.position(), self.0.length().unwrap_or(0), self.0.message())
    }
}

impl Drop for Progress {
    /// Replaces a bar by a line with its last state, however the run ended.
    fn drop(&mut self) {
        if !self.0.is_hidden() {
            let line = self.line();
            self.0.finish_and_clear();
            tracing::info!("{line}");
        }
    }
}

fn figures(metrics: &Metrics) -> String {
    let [loss, images_per_s] = ["loss", "images_per_s"].map(|key| metrics.get(key).unwrap_or(f64::NAN));
    let decimals = if images_per_s < 10.0 { 1 } else { 0 };
    let accuracy = metrics.get("accuracy").map(|share| format!("accuracy {share:.3}  ")).unwrap_or_default();
    format!("loss {loss:.4}  {accuracy}{images_per_s:.decimals$} images/s")
}

/// The remaining time in its two leading units; empty at the end and as long as there is no estimate.
pub(crate) struct Eta(pub Duration);

impl fmt::Display for Eta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0.as_secs();
        match s {
            0 => Ok(()),
            1..60 => write!(f, "  ETA {s}s"),
            60..3600 => write!(f, "  ETA {}m{:02}s", s / 60, s % 60),
            3600..86400 => write!(f, "  ETA {}h{:02}m", s / 3600, s / 60 % 60),
            _ => write!(f, "  ETA {}d{:02}h", s / 86400, s / 3600 % 24),
        }
    }
}

/// Silences a library whose errors we return and report ourselves, so that they are reported only once.
const OUR_ERRORS: &str = "rustls_platform_verifier=off";

/// Sends log lines of `level` and above to stderr, and warnings and errors of other libraries; `RUST_LOG` overrides
/// both. Unless `all_ranks` is set, ranks other than 0 log only errors, and warnings of images that they have
/// skipped, because no other rank knows of these.
pub fn init_logging(level: LevelFilter, rank: usize, all_ranks: bool) {
    let speaks = all_ranks || rank == 0;
    let rust_log = std::env::var("RUST_LOG").ok().filter(|rust_log| !rust_log.is_empty());
    let filter = match rust_log {
        _ if !speaks => EnvFilter::new(format!("error,ddpm_data::skip=warn,{OUR_ERRORS}")),
        Some(rust_log) => EnvFilter::builder().parse_lossy(rust_log),
        None => EnvFilter::new(format!("warn,ddpm={level},{OUR_ERRORS}")),
    };
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // An error means that logging is already set up, so there is nothing left to do.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal() && !no_colour)
        .event_format(Line { rank: (all_ranks || rank != 0).then_some(rank) })
        .with_writer(|| Screen)
        .try_init();
}

/// Formats `[rank 1] warning: message field=value`: with the rank unless only rank 0 logs, and with the level unless
/// it is "info".
struct Line {
    rank: Option<usize>,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if let Some(rank) = self.rank {
            write!(line, "[rank {rank}] ")?;
        }
        let level = *event.metadata().level();
        let (word, colour) = match level {
            Level::ERROR => ("error", 31),
            Level::WARN => ("warning", 33),
            Level::DEBUG => ("debug", 34),
            _ => ("trace", 35),
        };
        if level != Level::INFO {
            if line.has_ansi_escapes() {
                write!(line, "\x1b[1;{colour}m{word}:\x1b[0m ")?;
            } else {
                write!(line, "{word}: ")?;
            }
        }
        context.format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}

/// Writes whole lines to stderr, above the bars if there are any. Errors are ignored: a lost terminal must not stop a
/// run.
struct Screen;

impl Write for Screen {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let _ = if SCREEN.is_hidden() {
            io::stderr().write_all(lines)
        } else {
            SCREEN.println(String::from_utf8_lossy(lines).trim_end())
        };
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Log, logged};

    fn at(step: u64, loss: f64, images_per_s: f64) -> Metrics {
        let mut metrics = Metrics::at(step);
        metrics.real("loss", "loss/total", loss);
        metrics.real("images_per_s", "speed/images_per_s", images_per_s);
        metrics
    }

    #[test]
    fn without_a_terminal_a_report_is_a_line() {
        let lines = logged(|| Progress::new(1000, 119, false).report(&at(120, 0.04321, 812.4)));
        assert!(lines.contains("step 120/1000  loss 0.0432  812 images/s"), "{lines}");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(figures(&at(1, f64::NAN, 3.12)), "loss NaN  3.1 images/s");
        for (seconds, expected) in
            [(0, ""), (45, "  ETA 45s"), (200, "  ETA 3m20s"), (3600, "  ETA 1h00m"), (97_200, "  ETA 1d03h")]
        {
            assert_eq!(Eta(Duration::from_secs(seconds)).to_string(), expected);
        }
    }

    #[test]
    fn log_lines_tell_rank_and_level_only_where_it_matters() {
        let logged = |rank| {
            let log = Log::default();
            let sink = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .event_format(Line { rank })
                .with_writer(move || sink.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("ready");
                tracing::warn!(step = 3, "slow");
            });
            log.text()
        };
        assert_eq!(logged(None), "ready\nwarning: slow step=3\n");
        assert_eq!(logged(Some(1)), "[rank 1] ready\n[rank 1] warning: slow step=3\n");
    }
}
