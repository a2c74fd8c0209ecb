//! The watchdog: ends the run when a collective does not, and says what the ranks were doing.

use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::abort::{abort_after, current_step, show};
use crate::board::{self, LEAVING};

/// How long the ranks that wait too have to say so, before the run is ended.
const GRACE: Duration = Duration::from_secs(1);

/// What the rank is doing with others; written by the collectives, read by the watchdog.
///
/// Several at once: a collective on the GPU goes on while the host takes part in the next.
#[derive(Default)]
pub(crate) struct Watch(Mutex<Doing>);

#[derive(Default)]
struct Doing {
    /// Numbers the collectives, to tell one call from the next of the same name.
    entered: u64,
    operations: Vec<Operation>,
    /// The one that ended last.
    last: String,
    /// The rank is on its way out: it may be gone any time.
    leaving: bool,
    /// How long one collective may last; `None` while nobody watches.
    timeout: Option<Duration>,
}

struct Operation {
    number: u64,
    name: String,
    /// `None` until the watchdog has first seen it.
    waited: Option<Duration>,
}

impl Doing {
    /// For the watchdogs of the other ranks.
    fn post(&self) {
        board::post(&self.to_string());
    }
}

/// Such as `in gradient bucket 3 of 7 of step 12`.
impl Display for Doing {
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
        let mut doing = self.lock();
        doing.entered += 1;
        let number = doing.entered;
        doing.operations.push(Operation { number, name: operation.to_string(), waited: None });
        doing.post();
        Entered { watch: self, number }
    }

    /// Enters the last collective, after which the process ends.
    pub(crate) fn leave(&self) -> Entered<'_> {
        self.lock().leaving = true;
        self.enter("finish")
    }

    /// Starts the thread that ends the run once a single collective has lasted `timeout`, and that reports ranks of this
    /// machine that died. Started already, it goes by this timeout from now on.
    pub(crate) fn start(self: &Arc<Self>, timeout: Duration) {
        if self.lock().timeout.replace(timeout).is_some() {
            return;
        }
        let watch = Arc::clone(self);
        thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watch.run())
            .expect("the system starts one more thread");
    }

    fn run(&self) -> ! {
        let mut reported = false;
        let mut last = Instant::now();
        loop {
            let timeout = self.lock().timeout.expect("the thread is started with one");
            // The launcher ends a run within a second of a rank's death, which is to be told before.
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

    /// Adds the time that has `passed` to that of every operation; returns one that has lasted `timeout`.
    ///
    /// Time is added up tick by tick rather than read from a clock: after the whole job was suspended and resumed, the
    /// clock would blame the peers for the pause.
    fn overdue(&self, passed: Duration, timeout: Duration) -> Option<String> {
        let mut doing = self.lock();
        for operation in &mut doing.operations {
            let waited = operation.waited.map_or(Duration::ZERO, |waited| waited + passed);
            operation.waited = Some(waited);
            if waited >= timeout {
                return Some(operation.name.clone());
            }
        }
        None
    }

    fn verdict(&self, operation: &str, timeout: Duration) -> String {
        // Those who wait in the same place say so themselves.
        let ours = self.lock().to_string();
        let mut others = board::others();
        others.retain(|(_, notice)| *notice != ours);
        let others: Vec<String> = others.iter().map(|(rank, notice)| format!("rank {rank} is {notice}")).collect();
        let suspects = if others.is_empty() {
            "Look at the ranks that do not report this".to_owned()
        } else {
            format!("On this machine, {}. Look at what holds it there", others.join(", "))
        };
        format!(
            "waited {} s in {operation}: a peer is frozen or the network is down. {suspects}, or raise comm.timeout_s",
            timeout.as_secs_f64()
        )
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tick that came late, on a busy machine, counts for as long as it took; what is longer than four is a suspension, for
/// which the peers are not to blame.
fn counted(elapsed: Duration, tick: Duration) -> Duration {
    elapsed.min(4 * tick)
}

/// Shows which ranks of this machine died, if any did: the launcher sees it too, and ends the run.
fn report_dead() -> bool {
    let dead = board::dead();
    for (rank, notice) in &dead {
        show(&format!("rank {rank} was killed or crashed. Its last sign of life: {notice}"));
    }
    !dead.is_empty()
}

/// Marks the collective as left when it goes out of scope.
pub(crate) struct Entered<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut doing = self.watch.lock();
        if let Some(index) = doing.operations.iter().position(|operation| operation.number == self.number) {
            doing.last = doing.operations.remove(index).name;
        }
        doing.post();
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
