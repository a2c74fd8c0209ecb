//! The watchdog: ends the run when a collective hangs, and reports what the ranks were doing.

use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::abort::{abort_after, current_step, report};
use crate::board::{self, LEAVING};

/// The time that other waiting ranks have to report before the run is ended.
const GRACE: Duration = Duration::from_secs(1);

/// The collectives that the rank is in; written by the collectives, read by the watchdog.
///
/// There can be several at once: a collective on the GPU continues while the host takes part in the next.
#[derive(Default)]
pub(crate) struct Watch(Mutex<Activity>);

#[derive(Default)]
struct Activity {
    /// Counts the collectives, to distinguish successive calls with the same name.
    entered: u64,
    operations: Vec<Operation>,
    /// The last one that ended.
    last: String,
    /// The rank is exiting and may disappear at any time.
    leaving: bool,
    /// The time limit of one collective; `None` until the watchdog is started.
    timeout: Option<Duration>,
}

struct Operation {
    number: u64,
    name: String,
    /// `None` until the watchdog has first seen it.
    waited: Option<Duration>,
}

impl Activity {
    /// Publishes the status for the watchdogs of the other ranks.
    fn post(&self) {
        board::post(&self.to_string());
    }
}

/// Such as `in gradient bucket 3 of 7 of step 12`.
impl Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operations.last() {
            _ if self.leaving => return f.write_str(LEAVING),
            Some(operation) => write!(f, "in {}", operation.name)?,
            None => write!(f, "busy after {}", self.last)?,
        }
        current_step().map_or(Ok(()), |step| write!(f, " of step {step}"))
    }
}

impl Watch {
    pub(crate) fn enter(&self, operation: impl Display) -> Entered<'_> {
        let mut activity = self.lock();
        activity.entered += 1;
        let number = activity.entered;
        activity.operations.push(Operation { number, name: operation.to_string(), waited: None });
        activity.post();
        Entered { watch: self, number }
    }

    /// Enters the last collective, after which the process exits.
    pub(crate) fn leave(&self) -> Entered<'_> {
        self.lock().leaving = true;
        self.enter("finish")
    }

    /// Starts the thread that ends the run once a single collective has lasted `timeout`, and that reports ranks of
    /// this machine that died. If it is already running, only the timeout changes.
    pub(crate) fn start(self: &Arc<Self>, timeout: Duration) {
        if self.lock().timeout.replace(timeout).is_some() {
            return;
        }
        let watch = Arc::clone(self);
        thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watch.run())
            .expect("the system can start another thread");
    }

    fn run(&self) -> ! {
        let mut reported = false;
        let mut last = Instant::now();
        loop {
            let timeout = self.lock().timeout.expect("the thread is started with a timeout");
            // The launcher ends a run within a second of a rank's death, which must be reported before that.
            let tick = (timeout / 10).clamp(Duration::from_millis(10), Duration::from_millis(250));
            thread::sleep(tick);
            if !reported && !self.lock().leaving {
                reported = report_dead();
            }
            let passed = counted(last.elapsed(), tick);
            last = Instant::now();
            if let Some(name) = self.overdue(passed, timeout) {
                abort_after(GRACE, 1, &self.verdict(&name, timeout));
            }
        }
    }

    /// Adds the time `passed` to every operation; returns one that has lasted `timeout`.
    ///
    /// Time is accumulated tick by tick rather than read from a clock: after the whole job was suspended and resumed, a
    /// clock would attribute the pause to the peers.
    fn overdue(&self, passed: Duration, timeout: Duration) -> Option<String> {
        let mut activity = self.lock();
        for operation in &mut activity.operations {
            let waited = operation.waited.map_or(Duration::ZERO, |waited| waited + passed);
            operation.waited = Some(waited);
            if waited >= timeout {
                return Some(operation.name.clone());
            }
        }
        None
    }

    fn verdict(&self, operation: &str, timeout: Duration) -> String {
        // Ranks that wait in the same place report themselves.
        let ours = self.lock().to_string();
        let mut others = board::others();
        others.retain(|(_, status)| *status != ours);
        let others: Vec<String> = others.iter().map(|(rank, status)| format!("rank {rank} is {status}")).collect();
        let suspects = if others.is_empty() {
            "Check the ranks that do not report this".to_owned()
        } else {
            format!("On this machine, {}. Check what blocks it there", others.join(", "))
        };
        format!(
            "waited {} s in {operation}: a peer is frozen or the network is down. {suspects}, or raise comm.timeout_s",
            timeout.as_secs_f64()
        )
    }

    fn lock(&self) -> MutexGuard<'_, Activity> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time that a tick counts for: a late tick on a busy machine counts in full; more than four ticks mean that the
/// process was suspended, which is not the peers' fault.
fn counted(elapsed: Duration, tick: Duration) -> Duration {
    elapsed.min(4 * tick)
}

/// Reports which ranks of this machine died, if any; the launcher notices too and ends the run.
fn report_dead() -> bool {
    let dead = board::dead();
    for (rank, status) in &dead {
        report(&format!("rank {rank} was killed or crashed. Its last status: {status}"));
    }
    !dead.is_empty()
}

/// Marks the collective as ended when it goes out of scope.
pub(crate) struct Entered<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut activity = self.watch.lock();
        if let Some(index) = activity.operations.iter().position(|operation| operation.number == self.number) {
            activity.last = activity.operations.remove(index).name;
        }
        activity.post();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_ticks_count_and_suspensions_do_not() {
        let ms = Duration::from_millis;
        assert_eq!([250, 251, 900, 1_000].map(|late| counted(ms(late), ms(250))), [250, 251, 900, 1_000].map(ms));
        assert_eq!(counted(ms(3_600_000), ms(250)), ms(1_000));
    }
}
