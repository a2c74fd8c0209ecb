//! What a job says on its output: how far it came, and why it failed.

use crate::ending::Ending;

/// Signals that a program's own fault raises: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
const FAULTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];

/// What ranks say of an outage between them (ddpm-comm's watch.rs), and NCCL. Whatever is wrong may end by itself.
const LOST_PEERS: [&str; 3] = [
    "was killed or crashed",
    "a peer is frozen or the network is down",
    "remote process exited or there was a network error",
];

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The run itself: the same would happen again.
    Run,
    /// What it depends on: a host, the network, a store, the launcher.
    Environment,
}

impl Origin {
    /// What a message of the ranks is about.
    pub(crate) fn of(message: &str) -> Self {
        let outage = ddpm_store::is_outage(message) || LOST_PEERS.iter().any(|words| message.contains(words));
        if outage { Self::Environment } else { Self::Run }
    }
}

/// A failure of the job: where it happened, and what the job said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step that the job named, else the last one that it logged.
    pub step: u64,
    /// Its first message of failure, without the rank.
    pub message: String,
    /// What failed, by that message.
    pub origin: Origin,
}

impl Failure {
    /// Whether both are at the same step, with messages that differ at most in words with digits: process ids, times,
    /// buckets, names of attempts.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.step == other.step && pattern(&self.message) == pattern(&other.message)
    }
}

/// A message with each word that contains a digit replaced by `#`.
fn pattern(message: &str) -> String {
    let mut pattern = String::new();
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        let length = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len()).max(first.len_utf8());
        let (word, after) = rest.split_at(length);
        pattern.push_str(if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word });
        rest = after;
    }
    pattern
}

/// What one start of the job has said so far.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Whether training has begun or resumed, so that every rank listens for requests.
    begun: bool,
    /// The last step that it logged or resumed from.
    reached: Option<u64>,
    cause: Option<Cause>,
    last: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Cause {
    step: Option<u64>,
    message: String,
    origin: Origin,
}

impl Cause {
    fn new(step: Option<u64>, message: &str) -> Self {
        Self { step, message: message.into(), origin: Origin::of(message) }
    }
}

impl Account {
    /// Takes in a line of output.
    pub fn hear(&mut self, line: &str) {
        let line = untagged(line.trim_end());
        let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok();
        if line.starts_with("starting at step 0 in ") {
            (self.begun, self.reached) = (true, Some(0));
        } else if let Some(step) = line.strip_prefix("resuming from step ").and_then(number) {
            (self.begun, self.reached) = (true, Some(step));
        } else if let Some((step, _)) = line.strip_prefix("step ").and_then(|rest| rest.split_once('/')) {
            self.reached = number(step).or(self.reached);
        }
        // What one rank says of the others may come before what is wrong with these.
        if let Some(found) = cause(line)
            && self
                .cause
                .as_ref()
                .is_none_or(|earlier| (earlier.origin, found.origin) == (Origin::Environment, Origin::Run))
        {
            self.cause = Some(found);
        }
        // Not the frame of mpirun's banners.
        if line.contains(|c: char| c.is_alphanumeric()) {
            self.last = Some(line.into());
        }
    }

    /// Whether training has begun, so that every rank listens for requests.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// The last step that it logged or resumed from.
    pub fn reached(&self) -> Option<u64> {
        self.reached
    }

    /// Why a job failed that exited with `code` after `reached` steps, if anything is known but that it did: a rank
    /// that was killed, or a connection that was lost, says nothing.
    pub fn failure(&self, ending: Ending, code: i32, reached: u64) -> Option<Failure> {
        if ending != Ending::Failed {
            return None;
        }
        let said = self.cause.as_ref().map(|cause| Failure {
            step: cause.step.unwrap_or(reached),
            message: cause.message.clone(),
            origin: cause.origin,
        });
        let signal = code - 128;
        if FAULTS.contains(&signal) && said.as_ref().is_none_or(|said| said.origin != Origin::Run) {
            let message = format!("a rank was ended by signal {signal}");
            return Some(Failure { step: reached, message, origin: Origin::Run });
        }
        // The launcher failed, in words of its own.
        let launcher = self.last.as_ref().filter(|_| code < 128 && self.reached.is_none());
        let launcher =
            launcher.map(|line| Failure { step: reached, message: line.clone(), origin: Origin::Environment });
        said.or(launcher)
    }
}

/// A line without the tags of mpirun's `--tag-output` and of our `--all-ranks`.
fn untagged(line: &str) -> &str {
    let line = match line.split_once(">:") {
        Some((tag, rest)) if tag.starts_with('[') && tag.contains("]<std") => rest,
        _ => line,
    };
    match line.split_once("] ") {
        Some((tag, rest)) if tag.starts_with("[rank ") => rest,
        _ => line,
    }
}

/// What a line says of a failure, `error: MESSAGE`, `rank R: MESSAGE` or `rank R step S: MESSAGE`, if it is one.
fn cause(line: &str) -> Option<Cause> {
    if let Some(message) = line.strip_prefix("error: ") {
        return Some(Cause::new(None, message));
    }
    let (head, message) = line.strip_prefix("rank ")?.split_once(": ")?;
    let (rank, step) = match head.split_once(" step ") {
        Some((rank, step)) => (rank, Some(step.parse().ok()?)),
        None => (head, None),
    };
    rank.parse::<usize>().ok()?;
    Some(Cause::new(step, message.strip_prefix("error: ").unwrap_or(message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Account {
        let mut account = Account::default();
        lines.iter().for_each(|line| account.hear(line));
        account
    }

    fn failure(lines: &[&str], code: i32) -> Option<(u64, String)> {
        let account = heard(lines);
        let reached = account.reached().unwrap_or(7);
        account.failure(Ending::Failed, code, reached).map(|failure| (failure.step, failure.message))
    }

    #[test]
    fn progress_is_read_from_the_log() {
        assert!(!heard(&["model: 5 parameters"]).has_begun());
        let resumed = heard(&["resuming from step 20, saved in runs/a/checkpoints", "warning: slow", "step up"]);
        assert_eq!((resumed.has_begun(), resumed.reached()), (true, Some(20)));
        let tagged = heard(&["[1,0]<stderr>:starting at step 0 in runs/a", "[1,0]<stderr>:step 30/100  loss 0.5"]);
        assert_eq!((tagged.has_begun(), tagged.reached()), (true, Some(30)));
        assert_eq!(heard(&["[rank 0] step 4/5  loss 0.1"]).reached(), Some(4));
    }

    #[test]
    fn the_first_message_of_failure_counts() {
        let at_its_step = ["step 10/20  loss 1", "rank 1 step 12: error: it broke. Fix it.", "rank 0 step 12: lost"];
        assert_eq!(failure(&at_its_step, 4), Some((12, "it broke. Fix it.".into())));
        let agreed = ["step 10/20  loss 1", "error: the data is gone"];
        assert_eq!(failure(&agreed, 4), Some((10, "the data is gone".into())));
        assert_eq!(failure(&["rank 3: panicked (at x.rs:1)"], 101), Some((7, "panicked (at x.rs:1)".into())));
        assert_eq!(failure(&["rank of a matrix: 3"], 137), None);
    }

    #[test]
    fn a_kill_says_nothing_and_a_crash_names_its_signal() {
        let log = ["step 10/20  loss 1", "local.sh: a rank was killed by signal KILL"];
        assert_eq!(failure(&log, 137), None);
        assert_eq!(failure(&log, 139), Some((10, "a rank was ended by signal 11".into())));
        // A lost connection, in the midst of training.
        assert_eq!(failure(&log, 1), None);
        let banner = ["----", "There are not enough slots", "----"];
        assert_eq!(failure(&banner, 1), Some((7, "There are not enough slots".into())));
    }

    #[test]
    fn failures_of_the_environment_are_distinguished_from_the_runs_own() {
        let watchdog = include_str!("../../ddpm-comm/src/watch.rs");
        assert!(LOST_PEERS[..2].iter().all(|words| watchdog.contains(words)), "ddpm-comm has other words by now");
        let frozen = "rank 0 step 12: waited 5 s in heartbeat: a peer is frozen or the network is down. Check it";
        let origin = |lines: &[&str], code| heard(lines).failure(Ending::Failed, code, 7).unwrap().origin;
        assert_eq!(origin(&[frozen], 1), Origin::Environment);
        assert_eq!(origin(&["There are not enough slots"], 1), Origin::Environment);
        let lost = "rank 0 step 12: rank 1 was killed or crashed. Its last status: busy";
        assert_eq!(origin(&[lost], 137), Origin::Environment);
        // A crash is the program's own, and so is what another rank says of itself.
        assert_eq!(origin(&[lost], 139), Origin::Run);
        let both = ["step 10/20  loss 1", frozen, "rank 1 step 12: error: it broke", "rank 2 step 11: late"];
        assert_eq!(failure(&both, 1), Some((12, "it broke".into())));
        assert_eq!(origin(&both, 1), Origin::Run);
    }

    #[test]
    fn messages_that_differ_in_words_with_digits_are_alike() {
        let at = |step, message: &str| Failure { step, message: message.into(), origin: Origin::Run };
        let first = at(12, "store of job 17 (on node3) holds shard-01ARZ3NDEK");
        assert!(first.is_like(&at(12, "store of job 4711 (on node12) holds shard-01BX5ZZKBK")));
        assert!(!first.is_like(&at(13, &first.message)));
        assert!(!first.is_like(&at(12, "store of job x (on node3) holds shard-01ARZ3NDEK")));
        assert_eq!(pattern("é1 über-3.5s, \u{2603}!"), "# über-#.#, \u{2603}!");
    }
}
