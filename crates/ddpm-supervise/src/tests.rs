//! The decisions, on histories made up and drawn at random.

use std::time::Duration;

use proptest::prelude::*;

use crate::account::{Failure, Origin};
use crate::decide::{Action, Decider, Exit, Pause, Policy, Reason};
use crate::ending::Ending;
use crate::fleet::{Change, Fleet, Layout};
use crate::hosts::Host;
use crate::restarts::Backoff;
use crate::verdict::Verdict;

const S: fn(u64) -> Duration = Duration::from_secs;

const POLICY: Policy = Policy {
    max_restarts: 3,
    window: Duration::from_secs(3600),
    backoff: Backoff { first: Duration::from_secs(10), most: Duration::from_secs(60) },
    probe_every: Duration::from_secs(30),
    settle: Duration::from_secs(300),
};

fn failure(step: u64, message: &str) -> Failure {
    Failure { step, message: message.into(), origin: Origin::of(message) }
}

/// One decider, its clock, and the hosts as they are.
struct Story {
    decider: Decider,
    now: Duration,
    /// Which hosts are up, by number.
    up: Vec<bool>,
    starts: Vec<(Duration, Option<Layout>)>,
}

impl Story {
    /// Hosts h0, h1, ... with these slots, all up; none: no choice of hosts.
    fn new(policy: Policy, slots: &[usize], batch: usize) -> Self {
        let host = |(index, &slots): (usize, &usize)| Host { name: format!("h{index}"), slots };
        let hosts: Vec<Host> = slots.iter().enumerate().map(host).collect();
        let fleet = || Fleet::new(hosts, 1, batch, |ranks| batch.is_multiple_of(ranks)).unwrap();
        let fleet = (!slots.is_empty()).then(fleet);
        let decider = Decider::new(policy, fleet, 0);
        Self { decider, now: Duration::ZERO, up: vec![true; slots.len()], starts: Vec::new() }
    }

    fn is_up(&self, host: &str) -> bool {
        self.up[host[1..].parse::<usize>().unwrap()]
    }

    /// Answers probes and counts starts until there is something else to do; returns that.
    fn next(&mut self) -> Action {
        loop {
            match self.decider.next(self.now) {
                Action::Probe(hosts) => {
                    for host in hosts {
                        let answers = self.is_up(&host);
                        self.decider.answered(self.now, &host, answers);
                    }
                }
                Action::Start(layout) => self.starts.push((self.now, layout)),
                action => return action,
            }
        }
    }

    /// The action after `passed`, looked at every second in between.
    fn after(&mut self, passed: Duration) -> Action {
        let end = self.now + passed;
        loop {
            let action = self.next();
            if self.now >= end || !matches!(action, Action::Wait(_)) {
                return action;
            }
            self.now = (self.now + S(1)).min(end);
        }
    }

    fn exits(&mut self, ending: Ending, reached: u64, message: Option<&str>) -> Action {
        let failure = message.map(|message| failure(reached, message));
        self.decider.exited(self.now, Exit { ending, reached, failure }, 0.0);
        self.next()
    }

    fn fails(&mut self, reached: u64, message: &str) -> Action {
        self.exits(Ending::Failed, reached, Some(message))
    }

    /// The ranks of the last start.
    fn ranks(&self) -> usize {
        self.starts.last().unwrap().1.as_ref().unwrap().ranks
    }
}

const RUNS: Action = Action::Wait(Pause::Job);

#[test]
fn a_failure_is_followed_by_a_delayed_restart() {
    let mut story = Story::new(POLICY, &[], 8);
    assert_eq!(story.next(), RUNS);
    assert_eq!(story.starts, [(S(0), None)]);
    story.now = S(100);
    assert_eq!(story.fails(50, "broken"), Action::Wait(Pause::Backoff(S(110))));
    assert_eq!(story.after(S(9)), Action::Wait(Pause::Backoff(S(110))));
    assert_eq!(story.after(S(1)), RUNS);
    // No step further than before: the delay doubles.
    assert_eq!(story.fails(40, "otherwise"), Action::Wait(Pause::Backoff(S(130))));
    assert_eq!(story.after(S(20)), RUNS);
    assert_eq!(story.fails(60, "again otherwise"), Action::Wait(Pause::Backoff(S(140))));
    assert_eq!(story.after(S(10)), RUNS);
    assert_eq!(story.starts.len(), 4);
    assert_eq!(story.fails(70, "once too often"), Action::End(Verdict::Exhausted));
}

#[test]
fn the_same_failure_at_the_same_step_ends_it() {
    let mut story = Story::new(POLICY, &[2, 2], 8);
    story.next();
    story.fails(50, "image 7 is damaged");
    assert_eq!(story.after(S(60)), RUNS);
    story.fails(45, "a rank was lost");
    assert_eq!(story.after(S(60)), RUNS);
    let Action::End(Verdict::Repeated(failure)) = story.fails(50, "image 7 is damaged") else { panic!("goes on") };
    assert_eq!(failure.step, 50);
    assert_eq!(story.starts.len(), 3);
}

#[test]
fn a_failure_by_a_lost_host_an_outage_or_a_kill_may_repeat() {
    // Delays so long that hosts are asked again before the restart.
    let backoff = Backoff { first: S(40), most: S(40) };
    let mut story = Story::new(Policy { max_restarts: 10, backoff, ..POLICY }, &[2, 2], 8);
    story.next();
    for _ in 0..2 {
        story.up[1] = false;
        story.fails(50, "the connection was lost");
        story.up[1] = true;
        assert_eq!(story.after(S(60)), RUNS);
        assert_eq!(story.ranks(), 4);
    }
    for _ in 0..2 {
        for outage in [
            "no connection to store:9000 (refused). Check the server",
            "waited 5 s in heartbeat: a peer is frozen or the network is down. Check it",
        ] {
            story.fails(50, outage);
            assert_eq!(story.after(S(60)), RUNS);
        }
        story.exits(Ending::Failed, 50, None);
        assert_eq!(story.after(S(60)), RUNS);
    }
    // This host answers, so it is the job's own.
    story.fails(50, "the connection was lost");
    assert_eq!(story.after(S(60)), RUNS);
    assert!(matches!(story.fails(50, "the connection was lost"), Action::End(Verdict::Repeated(_))));
}

#[test]
fn exit_codes_decide() {
    for (ending, verdict) in [(Ending::Done, Verdict::Done), (Ending::BadUsage, Verdict::BadUsage)] {
        let mut story = Story::new(POLICY, &[2], 8);
        story.next();
        assert_eq!(story.exits(ending, 5, None), Action::End(verdict));
    }
    // Preempted: it goes on, within the same limit.
    let mut story = Story::new(POLICY, &[2], 8);
    story.next();
    for reached in 1..=3 {
        assert!(matches!(story.exits(Ending::Stopped, reached, None), Action::Wait(Pause::Backoff(_))));
        assert_eq!(story.after(S(60)), RUNS);
    }
    assert_eq!(story.exits(Ending::Stopped, 4, None), Action::End(Verdict::Exhausted));
}

#[test]
fn a_request_stops_the_job_and_starts_no_other() {
    for (ending, verdict) in
        [(Ending::Stopped, Verdict::Stopped), (Ending::Failed, Verdict::Unsaved), (Ending::Done, Verdict::Done)]
    {
        let mut story = Story::new(POLICY, &[2], 8);
        story.next();
        story.decider.ask();
        assert_eq!(story.next(), Action::Stop(Reason::Asked));
        assert_eq!(story.next(), RUNS);
        assert_eq!(story.exits(ending, 5, None), Action::End(verdict));
    }
    let mut waiting = Story::new(POLICY, &[2], 8);
    waiting.next();
    waiting.fails(5, "broken");
    waiting.decider.ask();
    assert_eq!(waiting.next(), Action::End(Verdict::Stopped));
}

#[test]
fn hosts_that_do_not_answer_are_dropped_and_waited_for() {
    let mut story = Story::new(POLICY, &[2, 2], 8);
    story.up = vec![true, false];
    assert_eq!(story.next(), RUNS);
    assert_eq!(story.ranks(), 2);
    story.up = vec![false, false];
    story.now = S(10);
    assert_eq!(story.exits(Ending::Failed, 9, None), Action::Wait(Pause::Backoff(S(20))));
    assert_eq!(story.after(S(600)), Action::Wait(Pause::Hosts(S(10 + 3600))));
    story.up = vec![true, true];
    assert_eq!(story.after(S(40)), RUNS);
    assert_eq!((story.starts.len(), story.ranks()), (2, 4));
    story.up = vec![false, false];
    story.exits(Ending::Failed, 10, None);
    assert_eq!(story.after(S(4000)), Action::End(Verdict::NoHosts));
}

#[test]
fn hosts_that_answer_slowly_or_are_asked_all_the_time_hold_up_no_start() {
    for every in [Duration::ZERO, S(1)] {
        let mut story = Story::new(Policy { probe_every: every, ..POLICY }, &[2, 2], 8);
        // When each host answers that was asked.
        let mut awaited: Vec<(Duration, String)> = Vec::new();
        while story.starts.is_empty() {
            assert!(story.now < S(60), "no start");
            let (come, later) = awaited.into_iter().partition::<Vec<_>, _>(|(time, _)| *time <= story.now);
            awaited = later;
            for (_, host) in come {
                story.decider.answered(story.now, &host, true);
            }
            match story.decider.next(story.now) {
                Action::Probe(hosts) => {
                    let takes = |host: &str| if host == "h0" { S(5) } else { S(15) };
                    awaited.extend(hosts.into_iter().map(|host| (story.now + takes(&host), host)));
                }
                Action::Start(layout) => story.starts.push((story.now, layout)),
                _ => story.now += Duration::from_millis(50),
            }
        }
        assert_eq!(story.ranks(), 4);
    }
}

#[test]
fn a_host_that_is_back_and_stays_is_used_again() {
    let mut story = Story::new(POLICY, &[2, 2], 8);
    story.up = vec![true, false];
    story.next();
    assert_eq!(story.after(S(1000)), RUNS);
    // Back for a while only.
    story.up[1] = true;
    assert_eq!(story.after(S(200)), RUNS);
    story.up[1] = false;
    assert_eq!(story.after(S(200)), RUNS);
    story.up[1] = true;
    assert_eq!(story.after(S(290)), RUNS);
    assert_eq!(story.after(S(60)), Action::Stop(Reason::Grow));
    assert_eq!(story.exits(Ending::Stopped, 99, None), RUNS);
    assert_eq!((story.starts.len(), story.ranks()), (2, 4));
    assert_eq!(story.after(S(1000)), RUNS);
}

#[test]
fn the_last_restart_is_not_spent_on_growing() {
    let mut story = Story::new(Policy { max_restarts: 1, ..POLICY }, &[2, 2], 8);
    story.up = vec![true, false];
    story.next();
    story.up[1] = true;
    assert_eq!(story.after(S(3000)), RUNS);
    assert_eq!(story.ranks(), 2);
}

#[test]
fn more_hosts_than_the_batch_can_use_change_nothing() {
    let mut story = Story::new(POLICY, &[2, 2, 3], 8);
    story.up = vec![true, true, false];
    story.next();
    story.up[2] = true;
    assert_eq!(story.after(S(3000)), RUNS);
    assert_eq!(story.ranks(), 4);
    assert_eq!(story.decider.answered(story.now, "h2", true), Some(Change::Returned));
    assert_eq!(story.decider.answered(story.now, "h2", false), Some(Change::Dropped));
}

/// What happens next in a random history.
#[derive(Clone, Debug)]
enum Turn {
    Pass(u16),
    Exit { ending: Ending, step: u8, message: Option<u8>, jitter: f64 },
    Flip(usize),
    Ask,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let ending = prop_oneof![
        1 => Just(Ending::Done),
        4 => Just(Ending::Stopped),
        1 => Just(Ending::BadUsage),
        30 => Just(Ending::Failed),
    ];
    let exit = (ending, any::<u8>(), proptest::option::of(0u8..20), 0.0..=1.0);
    let turn = prop_oneof![
        30 => (0u16..600).prop_map(Turn::Pass),
        30 => exit.prop_map(|(ending, step, message, jitter)| Turn::Exit { ending, step, message, jitter }),
        20 => (0usize..4).prop_map(Turn::Flip),
        1 => Just(Turn::Ask),
    ];
    proptest::collection::vec(turn, 1..80)
}

proptest! {
    #[test]
    fn no_history_breaks_the_rules(
        turns in turns(), slots in proptest::collection::vec(1usize..5, 0..4), batch in 1usize..40, most in 0usize..8,
    ) {
        let policy = Policy { max_restarts: most, window: S(900), ..POLICY };
        let mut story = Story::new(policy, &slots, batch);
        // The failures so far for which no host can be blamed.
        let mut failures: Vec<(u8, u8)> = Vec::new();
        let mut over = None;
        for turn in turns {
            let before = story.starts.len();
            let action = match turn {
                Turn::Pass(seconds) => story.after(S(seconds.into())),
                Turn::Flip(host) => {
                    if let Some(up) = story.up.get_mut(host) {
                        *up = !*up;
                    }
                    story.next()
                }
                Turn::Ask => {
                    story.decider.ask();
                    story.next()
                }
                Turn::Exit { ending, step, message, jitter } => {
                    if !is_running(&mut story) {
                        continue;
                    }
                    let text = message.map(|message| "x".repeat(message.into()));
                    let layout = story.starts.last().and_then(|(_, layout)| layout.clone());
                    let has_lost = layout.iter().flat_map(|layout| &layout.hosts).any(|host| !story.is_up(&host.name));
                    let failure = text.map(|message| failure(step.into(), &message));
                    story.decider.exited(story.now, Exit { ending, reached: step.into(), failure }, jitter);
                    let action = story.next();
                    if let (Ending::Failed, Some(message), false) = (ending, message, has_lost) {
                        // Asked to stop, it ends in any case.
                        let repeats = failures.contains(&(step, message));
                        let ends = matches!(action, Action::End(Verdict::Repeated(_) | Verdict::Unsaved));
                        prop_assert!(!repeats || ends, "{action:?}");
                        prop_assert!(repeats || !matches!(action, Action::End(Verdict::Repeated(_))));
                        failures.push((step, message));
                    }
                    action
                }
            };
            prop_assert!(over.is_none() || story.starts.len() == before, "started after {over:?}");
            if let Action::End(verdict) = action {
                over = Some(verdict);
            }
            for (_, layout) in &story.starts[before..] {
                let Some(layout) = layout else {
                    prop_assert!(slots.is_empty());
                    continue;
                };
                prop_assert!(batch.is_multiple_of(layout.ranks));
                prop_assert_eq!(layout.ranks, layout.hosts.iter().map(|host| host.slots).sum::<usize>());
                for host in &layout.hosts {
                    prop_assert!(host.slots <= slots[host.name[1..].parse::<usize>().unwrap()]);
                }
            }
        }
        let restarts: Vec<Duration> = story.starts.iter().skip(1).map(|(time, _)| *time).collect();
        for (index, start) in restarts.iter().enumerate() {
            let recent = restarts[..=index].iter().filter(|time| *start - **time < policy.window).count();
            prop_assert!(recent <= most, "{recent} restarts within the window");
        }
    }
}

/// Whether a job is running, or has just been asked to stop.
fn is_running(story: &mut Story) -> bool {
    matches!(story.next(), Action::Wait(Pause::Job) | Action::Stop(_))
}
