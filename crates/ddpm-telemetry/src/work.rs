//! How far a command that takes long is: a bar on a terminal, a line every ten seconds elsewhere.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::progress::{Eta, SCREEN};

/// Work that is done by then shows nothing.
const DELAY: Duration = Duration::from_millis(500);
/// Time between two states of the bar, and between two lines where there is no terminal.
const FRAME: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(10);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown as MB.
    Bytes,
    /// Things of this name.
    Of(&'static str),
}

/// Work that takes long, and how much of it there is.
#[derive(Clone, Debug)]
pub struct Work {
    /// What is being done: `verifying step 5`.
    pub name: String,
    /// How much there is to do, if that is known.
    pub total: Option<u64>,
    /// What is counted.
    pub unit: Unit,
}

impl Work {
    /// Does the work, and meanwhile shows how much is `done` on stderr.
    pub fn show<T>(&self, done: impl Fn() -> u64 + Sync, work: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            let (end, ended) = channel();
            let done = &done;
            scope.spawn(move || self.watch(done, &ended));
            let result = work();
            drop(end);
            result
        })
    }

    /// Shows `done` until the other end of the channel is gone.
    fn watch(&self, done: &dyn Fn() -> u64, ended: &Receiver<()>) {
        let continues = |time| ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
        if !continues(DELAY) {
            return;
        }
        let bar = self.bar(io::stderr().is_terminal());
        let mut line = Instant::now() + LINE;
        while continues(FRAME) {
            let done = done();
            bar.set_position(done);
            bar.set_message(self.figures(done));
            if bar.is_hidden() && Instant::now() >= line {
                tracing::info!("{}: {}{}", self.name, self.figures(done), Eta(bar.eta()));
                line += LINE;
            }
        }
        bar.finish_and_clear();
    }

    fn bar(&self, is_terminal: bool) -> ProgressBar {
        let template = if self.total.is_some() { "{prefix} {wide_bar} {msg}" } else { "{prefix} {spinner} {msg}" };
        let style = ProgressStyle::with_template(template).expect("a valid template");
        let bar = ProgressBar::with_draw_target(self.total, ProgressDrawTarget::hidden())
            .with_style(style)
            .with_prefix(self.name.clone());
        if is_terminal { SCREEN.add(bar) } else { bar }
    }

    /// How much is done, and of how much.
    fn figures(&self, done: u64) -> String {
        let count = |number: u64| match self.unit {
            Unit::Bytes => format!("{:.1}", number as f64 / 1e6),
            Unit::Of(_) => number.to_string(),
        };
        let unit = match self.unit {
            Unit::Bytes => "MB",
            Unit::Of(things) => things,
        };
        match self.total {
            Some(total) => format!("{} of {} {unit}", count(done), count(total)),
            None => format!("{} {unit}", count(done)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn work_is_done_once_and_its_result_returned() {
        let done = AtomicU64::new(0);
        let work = Work { name: "packing".into(), total: Some(2), unit: Unit::Of("images") };
        let result = work.show(|| done.load(Ordering::Relaxed), || done.fetch_add(2, Ordering::Relaxed) + 5);
        assert_eq!((result, done.into_inner()), (5, 2));
    }

    #[test]
    fn figures_tell_how_much_there_is_if_that_is_known() {
        let work = |total, unit| Work { name: String::new(), total, unit };
        assert_eq!(work(Some(3_000_000), Unit::Bytes).figures(1_250_000), "1.2 of 3.0 MB");
        assert_eq!(work(None, Unit::Bytes).figures(1_250_000), "1.2 MB");
        assert_eq!(work(Some(12), Unit::Of("images")).figures(7), "7 of 12 images");
        assert_eq!(work(None, Unit::Of("files deleted")).figures(7), "7 files deleted");
    }
}
