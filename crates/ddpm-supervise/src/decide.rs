//! The decisions: what to do next, given how jobs ended, which hosts answer, and what time it is. Nothing here starts a
//! process, waits, or reads a clock: times are those since supervision began.

use std::time::Duration;

use serde::Serialize;

use crate::account::{Failure, Origin};
use crate::ending::Ending;
use crate::fleet::{Change, Fleet, Layout};
use crate::restarts::{Backoff, Restarts};
use crate::verdict::Verdict;

/// The limits within which a job is restarted.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The most restarts within `window`.
    pub max_restarts: usize,
    /// The time in which restarts are counted, and for which hosts are waited for.
    pub window: Duration,
    /// The delays of restarts.
    pub backoff: Backoff,
    /// How long the answer of a host is relied on.
    pub probe_every: Duration,
    /// How long a host must have answered without a break, and the job must have run, before the job is stopped to use
    /// that host too.
    pub settle: Duration,
}

/// The end of a job.
#[derive(Clone, Debug)]
pub(crate) struct Exit {
    /// How it ended.
    pub ending: Ending,
    /// The last step that is known.
    pub reached: u64,
    /// Why it failed, if it said so.
    pub failure: Option<Failure>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask these hosts whether they answer, and report each result by [`Decider::answered`].
    Probe(Vec<String>),
    /// Start the job, on these hosts if it has a choice, and report its end by [`Decider::exited`].
    Start(Option<Layout>),
    /// Ask the job to save and end.
    Stop(Reason),
    /// Nothing, for now.
    Wait(Pause),
    /// End.
    End(Verdict),
}

/// Why the job is asked to save and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// The user wants it.
    Asked,
    /// More ranks have become possible.
    Grow,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// The end of the job.
    Job,
    /// The answers of hosts.
    Probes,
    /// A restart, delayed until then.
    Backoff(Duration),
    /// Hosts, until then, because those that answer have no room for the job.
    Hosts(Duration),
}

/// Decides what to do next.
#[derive(Clone, Debug)]
pub(crate) struct Decider {
    policy: Policy,
    fleet: Option<Fleet>,
    restarts: Restarts,
    /// Those that the job is to blame for.
    failures: Vec<Failure>,
    reached: u64,
    /// Ends in a row by which the job had not come further; at least 1 after the first.
    fruitless: u32,
    asked: bool,
    begun: bool,
    phase: Phase,
}

#[derive(Clone, Debug)]
enum Phase {
    Down(Down),
    Up(Up),
    Over(Verdict),
}

/// No job is running.
#[derive(Clone, Debug)]
struct Down {
    since: Duration,
    /// The next start is not before this.
    ready: Duration,
    /// Whether hosts were asked since the last look at the answers: however soon these count as old, each round of
    /// questions is followed by a decision.
    asked: bool,
    suspect: Option<Suspect>,
}

/// A failure that the job is to blame for, unless one of these hosts has gone.
#[derive(Clone, Debug)]
struct Suspect {
    failure: Failure,
    hosts: Vec<String>,
}

/// A job is running.
#[derive(Clone, Debug)]
struct Up {
    since: Duration,
    layout: Option<Layout>,
    stopping: bool,
}

impl Decider {
    /// Before the first start of a job that has done `reached` steps; `fleet` are its hosts, if there is a choice.
    pub fn new(policy: Policy, fleet: Option<Fleet>, reached: u64) -> Self {
        let start = Down { since: Duration::ZERO, ready: Duration::ZERO, asked: false, suspect: None };
        Self {
            policy,
            fleet,
            restarts: Restarts::new(policy.max_restarts, policy.window),
            failures: Vec::new(),
            reached,
            fruitless: 0,
            asked: false,
            begun: false,
            phase: Phase::Down(start),
        }
    }

    /// The user asks the job to save and end.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// A host was asked, and did or did not answer.
    pub fn answered(&mut self, now: Duration, host: &str, answers: bool) -> Option<Change> {
        self.fleet.as_mut()?.answered(now, host, answers)
    }

    /// The job has ended. `jitter`, from 0 to 1, is drawn at random.
    pub fn exited(&mut self, now: Duration, exit: Exit, jitter: f64) {
        let Phase::Up(up) = &self.phase else { return };
        // Only answers after the end can tell whether a host was the cause.
        self.fleet.iter_mut().for_each(Fleet::forget_answers);
        self.fruitless = if exit.reached > self.reached { 1 } else { self.fruitless + 1 };
        self.reached = self.reached.max(exit.reached);
        let down = |pause, suspect| Phase::Down(Down { since: now, ready: now + pause, asked: false, suspect });
        let pause = self.policy.backoff.pause(self.fruitless, jitter);
        self.phase = match exit.ending {
            Ending::Done => Phase::Over(Verdict::Done),
            Ending::BadUsage => Phase::Over(Verdict::BadUsage),
            Ending::Stopped if self.asked => Phase::Over(Verdict::Stopped),
            Ending::Failed if self.asked => Phase::Over(Verdict::Unsaved),
            // As it was asked to, in order to grow.
            Ending::Stopped if up.stopping => down(Duration::ZERO, None),
            Ending::Stopped => down(pause, None),
            Ending::Failed => {
                let hosts = up.layout.iter().flat_map(|layout| &layout.hosts).map(|host| host.name.clone()).collect();
                let blamed = exit.failure.filter(|failure| failure.origin == Origin::Run);
                down(pause, blamed.map(|failure| Suspect { failure, hosts }))
            }
        };
    }

    /// What to do now. It is to be asked again after each action, and every moment while it is [`Action::Wait`].
    pub fn next(&mut self, now: Duration) -> Action {
        match self.phase.clone() {
            Phase::Over(verdict) => Action::End(verdict),
            Phase::Up(up) => self.while_up(now, up),
            Phase::Down(down) => self.while_down(now, down),
        }
    }

    fn while_up(&mut self, now: Duration, up: Up) -> Action {
        if up.stopping {
            return Action::Wait(Pause::Job);
        }
        if self.asked {
            return self.stop(up, Reason::Asked);
        }
        let (Some(fleet), Some(layout)) = (&mut self.fleet, &up.layout) else { return Action::Wait(Pause::Job) };
        if layout.ranks == fleet.most() {
            return Action::Wait(Pause::Job);
        }
        // A job under way shows by itself whether its hosts are up.
        let due = fleet.take_due(now.saturating_sub(self.policy.probe_every), |host| !layout.uses(host));
        if !due.is_empty() {
            return Action::Probe(due);
        }
        // One more restart stays in reserve.
        if now >= up.since + self.policy.settle && self.restarts.left(now) >= 2 {
            let stable = fleet.layout(|since| since + self.policy.settle <= now);
            if stable.is_some_and(|stable| stable.ranks > layout.ranks) {
                return self.stop(up, Reason::Grow);
            }
        }
        Action::Wait(Pause::Job)
    }

    fn while_down(&mut self, now: Duration, down: Down) -> Action {
        if self.asked {
            return self.end(Verdict::Stopped);
        }
        if let Some(fleet) = &mut self.fleet {
            if fleet.is_waiting() {
                return Action::Wait(Pause::Probes);
            }
            let fresh = now.saturating_sub(self.policy.probe_every);
            let due = if down.asked { Vec::new() } else { fleet.take_due(fresh, |_| true) };
            if !due.is_empty() {
                self.phase = Phase::Down(Down { asked: true, ..down });
                return Action::Probe(due);
            }
        }
        let (since, ready) = (down.since, down.ready);
        self.phase = Phase::Down(Down { since, ready, asked: false, suspect: None });
        if let Some(Suspect { failure, hosts }) = down.suspect {
            let has_lost = |fleet: &Fleet| hosts.iter().any(|host| fleet.is_silent(host));
            if !self.fleet.as_ref().is_some_and(has_lost) {
                if self.failures.iter().any(|earlier| earlier.is_like(&failure)) {
                    return self.end(Verdict::Repeated(failure));
                }
                self.failures.push(failure);
            }
        }
        if self.begun && self.restarts.left(now) == 0 {
            return self.end(Verdict::Exhausted);
        }
        if now < ready {
            return Action::Wait(Pause::Backoff(ready));
        }
        let Some(fleet) = &self.fleet else { return self.start(now, None) };
        let patience = since + self.policy.window;
        match fleet.layout(|_| true) {
            Some(layout) => self.start(now, Some(layout)),
            None if now < patience => Action::Wait(Pause::Hosts(patience)),
            None => self.end(Verdict::NoHosts),
        }
    }

    fn start(&mut self, now: Duration, layout: Option<Layout>) -> Action {
        if self.begun {
            self.restarts.record(now);
        }
        self.begun = true;
        self.phase = Phase::Up(Up { since: now, layout: layout.clone(), stopping: false });
        Action::Start(layout)
    }

    fn stop(&mut self, up: Up, reason: Reason) -> Action {
        self.phase = Phase::Up(Up { stopping: true, ..up });
        Action::Stop(reason)
    }

    fn end(&mut self, verdict: Verdict) -> Action {
        self.phase = Phase::Over(verdict.clone());
        Action::End(verdict)
    }
}
