//! How far a command that takes long is: a bar on a terminal, a line every ten seconds elsewhere.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Parts of an image that are counted: images take many steps, all of a batch together.
const PARTS: u64 = 1000;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown as MB.
    Bytes,
    /// Things of this name.
    Of(&'static str),
    /// Thousandths of images, shown as images and images per second.
    Images,
}

/// Whether work shows how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Showing {
    /// If it takes long.
    Progress,
    /// Not at all.
    Nothing,
}

impl Showing {
    /// For work that all ranks do together: rank 0 shows progress, the others do not.
    pub fn on(rank: usize) -> Self {
        if rank == 0 { Self::Progress } else { Self::Nothing }
    }
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
    /// Does work on `count` images of all ranks, of which this one's share is like the others': `work` gets a function for
    /// what is (done, to be done) of that share.
    pub fn on_images<T>(
        name: &str,
        count: usize,
        showing: Showing,
        work: impl FnOnce(&dyn Fn(usize, usize)) -> T,
    ) -> T {
        let (done, all) = (AtomicU64::new(0), count as u64 * PARTS);
        let report = |part: usize, share: usize| {
            let parts = u128::from(all) * part as u128 / share.max(1) as u128;
            done.store(parts as u64, Ordering::Relaxed);
        };
        match showing {
            Showing::Nothing => work(&report),
            Showing::Progress => Self { name: name.into(), total: Some(all), unit: Unit::Images }
                .show(|| done.load(Ordering::Relaxed), || work(&report)),
        }
    }

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
        let began = Instant::now();
        let continues = |time| ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
        if !continues(DELAY) {
            return;
        }
        let bar = self.bar(io::stderr().is_terminal());
        let mut line = Instant::now() + LINE;
        while continues(FRAME) {
            let done = done();
            bar.set_position(done);
            let figures = format!("{}{}{}", self.figures(done), self.rate(done, began.elapsed()), Eta(bar.eta()));
            bar.set_message(figures.clone());
            if bar.is_hidden() && Instant::now() >= line {
                tracing::info!("{}: {figures}", self.name);
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
            Unit::Images => (number / PARTS).to_string(),
        };
        let unit = match self.unit {
            Unit::Bytes => "MB",
            Unit::Of(things) => things,
            Unit::Images => "images",
        };
        match self.total {
            Some(total) => format!("{} of {} {unit}", count(done), count(total)),
            None => format!("{} {unit}", count(done)),
        }
    }

    /// How fast it is, as a suffix; empty for what is not counted in images, and before anything is done.
    fn rate(&self, done: u64, elapsed: Duration) -> String {
        if self.unit != Unit::Images || done == 0 {
            return String::new();
        }
        let per_second = done as f64 / PARTS as f64 / elapsed.as_secs_f64();
        let decimals = if per_second < 10.0 { 2 } else { 0 };
        format!("  {per_second:.decimals$} images/s")
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
    fn images_are_counted_by_the_share_of_one_rank() {
        for showing in [Showing::Progress, Showing::Nothing] {
            let done = Work::on_images("drawing", 10, showing, |report| {
                report(30, 100);
                report(0, 0);
                "drawn"
            });
            assert_eq!(done, "drawn");
        }
        let work = Work { name: String::new(), total: Some(10 * PARTS), unit: Unit::Images };
        assert_eq!(work.figures(2999), "2 of 10 images");
        assert_eq!(work.rate(3000, Duration::from_secs(2)), "  1.50 images/s");
        assert_eq!(work.rate(300_000, Duration::from_secs(2)), "  150 images/s");
        assert_eq!(work.rate(0, Duration::from_secs(2)), "");
        assert_eq!(Work { unit: Unit::Bytes, ..work }.rate(3000, Duration::from_secs(2)), "");
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
