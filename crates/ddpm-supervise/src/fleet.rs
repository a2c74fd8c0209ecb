//! The hosts of a job: which of them answer, since when, and how many ranks fit on those that do.

use std::time::Duration;

use crate::error::Error;
use crate::hosts::Host;

/// The hosts, in the order in which they are used.
#[derive(Clone, Debug)]
pub struct Fleet {
    members: Vec<Member>,
    /// The numbers of ranks on which the job can run, in rising order; at least one, and none above the sum of slots.
    sizes: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Member {
    host: Host,
    state: State,
    /// When it was last asked and answered, or was found not to.
    checked: Option<Duration>,
    /// Whether an answer is awaited.
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    /// It has answered every time since then.
    Answering(Duration),
    Silent,
}

/// A change in what is known about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It does not answer any more, or did not from the start.
    Dropped,
    /// It answers again.
    Returned,
}

/// The ranks of one start of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Their number.
    pub ranks: usize,
    /// The hosts that they are on, each with its share.
    pub hosts: Vec<Host>,
}

impl Layout {
    /// Whether a rank is on this host.
    pub(crate) fn uses(&self, name: &str) -> bool {
        self.hosts.iter().any(|host| host.name == name)
    }
}

impl Fleet {
    /// Hosts about which nothing is known yet; `fits` says whether the job can run on a number of ranks. `batch` is for
    /// the message only.
    ///
    /// # Errors
    /// It can run on none from `least` up to the sum of slots.
    pub fn new(hosts: Vec<Host>, least: usize, batch: usize, fits: impl Fn(usize) -> bool) -> Result<Self, Error> {
        let slots: usize = hosts.iter().map(|host| host.slots).sum();
        let sizes: Vec<usize> = (least.max(1)..=slots).filter(|&ranks| fits(ranks)).collect();
        if sizes.is_empty() {
            return Err(Error::NoSize { least, slots, batch });
        }
        let unknown = |host| Member { host, state: State::Unknown, checked: None, asked: false };
        Ok(Self { members: hosts.into_iter().map(unknown).collect(), sizes })
    }

    /// The number of ranks if all hosts answer.
    pub(crate) fn most(&self) -> usize {
        self.sizes.last().copied().unwrap_or_default()
    }

    /// The hosts among `which` that were last asked before `fresh`; from now on their answers are awaited.
    pub(crate) fn take_due(&mut self, fresh: Duration, which: impl Fn(&str) -> bool) -> Vec<String> {
        let due = |member: &&mut Member| {
            !member.asked && member.checked.is_none_or(|checked| checked < fresh) && which(&member.host.name)
        };
        let ask = |member: &mut Member| {
            member.asked = true;
            member.host.name.clone()
        };
        self.members.iter_mut().filter(due).map(ask).collect()
    }

    /// All hosts are to be asked again.
    pub(crate) fn forget_answers(&mut self) {
        self.members.iter_mut().for_each(|member| member.checked = None);
    }

    /// Whether answers are awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        self.members.iter().any(|member| member.asked)
    }

    /// Records whether a host answered.
    pub(crate) fn answered(&mut self, now: Duration, name: &str, answers: bool) -> Option<Change> {
        let member = self.members.iter_mut().find(|member| member.host.name == name)?;
        member.asked = false;
        member.checked = Some(now);
        let (state, change) = match (member.state, answers) {
            (State::Unknown, true) => (State::Answering(now), None),
            (State::Silent, true) => (State::Answering(now), Some(Change::Returned)),
            (State::Unknown | State::Answering(_), false) => (State::Silent, Some(Change::Dropped)),
            (same, _) => (same, None),
        };
        member.state = state;
        change
    }

    /// Whether a host did not answer when it was last asked.
    pub(crate) fn is_silent(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.host.name == name && member.state == State::Silent)
    }

    /// The largest number of ranks that fits on the hosts that answer, if any does; `counts` gets the time since which
    /// a host has answered. The first hosts are filled first, so that as few as possible can fail.
    pub(crate) fn layout(&self, counts: impl Fn(Duration) -> bool) -> Option<Layout> {
        let answering = |member: &&Member| matches!(member.state, State::Answering(since) if counts(since));
        let answering: Vec<&Host> = self.members.iter().filter(answering).map(|member| &member.host).collect();
        let slots: usize = answering.iter().map(|host| host.slots).sum();
        let ranks = self.sizes.iter().copied().rfind(|&ranks| ranks <= slots)?;
        let mut left = ranks;
        let mut hosts = Vec::new();
        for host in answering {
            let share = host.slots.min(left);
            if share > 0 {
                hosts.push(Host { name: host.name.clone(), slots: share });
            }
            left -= share;
        }
        Some(Layout { ranks, hosts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn fleet(slots: &[usize], batch: usize) -> Fleet {
        let host = |(index, &slots): (usize, &usize)| Host { name: format!("h{index}"), slots };
        let hosts = slots.iter().enumerate().map(host).collect();
        Fleet::new(hosts, 1, batch, |ranks| batch.is_multiple_of(ranks)).unwrap()
    }

    #[test]
    fn the_first_hosts_that_answer_are_filled_with_a_divisor_of_the_batch() {
        let mut fleet = fleet(&[2, 2, 3], 8);
        assert_eq!(fleet.layout(|_| true), None);
        for name in ["h0", "h1", "h2"] {
            assert_eq!(fleet.answered(S(1), name, true), None);
        }
        let shares = |layout: Option<Layout>| {
            let layout = layout.unwrap();
            assert_eq!(layout.ranks, layout.hosts.iter().map(|host| host.slots).sum::<usize>());
            layout.hosts.into_iter().map(|host| (host.name, host.slots)).collect::<Vec<_>>()
        };
        let share = |name: &str, slots| (name.to_owned(), slots);
        assert_eq!(shares(fleet.layout(|_| true)), [share("h0", 2), share("h1", 2)]);
        assert_eq!(fleet.answered(S(2), "h0", false), Some(Change::Dropped));
        assert_eq!(fleet.answered(S(3), "h0", false), None);
        assert_eq!(shares(fleet.layout(|_| true)), [share("h1", 2), share("h2", 2)]);
        assert_eq!(fleet.answered(S(4), "h1", false), Some(Change::Dropped));
        assert_eq!(shares(fleet.layout(|_| true)), [share("h2", 2)]);
        assert_eq!(fleet.answered(S(5), "h1", true), Some(Change::Returned));
        assert_eq!(shares(fleet.layout(|since| since < S(5))), [share("h2", 2)]);
    }

    #[test]
    fn hosts_are_asked_once_until_they_answer() {
        let mut fleet = fleet(&[1, 1], 2);
        assert_eq!(fleet.take_due(S(0), |_| true), ["h0", "h1"]);
        assert!(fleet.take_due(S(9), |_| true).is_empty());
        fleet.answered(S(1), "h1", true);
        assert!(fleet.is_waiting());
        assert!(fleet.take_due(S(1), |_| true).is_empty());
        assert_eq!(fleet.take_due(S(2), |_| true), ["h1"]);
    }

    #[test]
    fn a_batch_that_no_number_of_ranks_divides_is_refused() {
        let hosts = vec![Host { name: "a".into(), slots: 3 }];
        let message = Fleet::new(hosts, 2, 7, |ranks| 7usize.is_multiple_of(ranks)).unwrap_err().to_string();
        assert!(message.starts_with("no number of ranks from 2 to 3"), "{message}");
    }
}
