//! The events of supervision, one line of JSON each.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::decide::Reason;
use crate::ending::Ending;
use crate::hosts::Host;

/// What happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// The job was started.
    Started {
        /// Counts the starts, from 1.
        attempt: usize,
        /// The number of ranks, if it was chosen.
        ranks: Option<usize>,
        hosts: &'a [Host],
        pid: u32,
    },
    /// The job ended.
    Exited {
        attempt: usize,
        exit_code: i32,
        ending: Ending,
        /// The last step that is known.
        step: u64,
        /// The step of the failure.
        failed_step: Option<u64>,
        message: Option<&'a str>,
        seconds: f64,
    },
    /// The job is asked to save and end.
    Stopping { reason: Reason },
    /// A host does not answer.
    HostDropped { host: &'a str, reason: &'a str },
    /// It answers again.
    HostReturned { host: &'a str },
    /// Nothing happens for so long at most.
    Waiting { reason: &'static str, seconds: f64 },
    /// The last event.
    Summary(Summary),
}

/// What supervision came to. Seconds add up: `wall_s` is the sum of `trained_s`, `lost_s`, `waiting_s` and `other_s`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub outcome: &'static str,
    /// The exit code of the last job.
    pub exit_code: Option<i32>,
    pub step: u64,
    pub starts: usize,
    pub restarts: usize,
    pub wall_s: f64,
    /// In steps that count.
    pub trained_s: f64,
    pub trained_steps: u64,
    /// In steps that were computed again.
    pub lost_s: f64,
    pub lost_steps: u64,
    /// Without a job.
    pub waiting_s: f64,
    /// Starting, loading, saving, drawing samples, and steps that were not logged.
    pub other_s: f64,
    /// `trained_s` / `wall_s`.
    pub goodput: f64,
}

/// Where events go.
pub(crate) struct Events<'a> {
    out: Box<dyn Write + 'a>,
    begun: Instant,
    lost: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since 1970.
    unix_s: f64,
    /// Seconds since supervision began.
    elapsed_s: f64,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

impl<'a> Events<'a> {
    /// Writes to `out`, with times since `begun`.
    pub fn new(out: Box<dyn Write + 'a>, begun: Instant) -> Self {
        Self { out, begun, lost: false }
    }

    /// Writes an event. One that cannot be written is lost, and the job goes on.
    pub fn emit(&mut self, event: &Event<'_>) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = Line { unix_s: rounded(unix), elapsed_s: rounded(self.begun.elapsed()), event };
        let line = serde_json::to_string(&line).expect("events have nothing that JSON cannot express");
        let written = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
        if let Err(error) = written
            && !self.lost
        {
            self.lost = true;
            tracing::warn!("events cannot be written: {error}; the job goes on without them");
        }
    }
}

/// Seconds, to the millisecond.
pub(crate) fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object() {
        let mut bytes = Vec::new();
        let mut events = Events::new(Box::new(&mut bytes), Instant::now());
        let hosts = [Host { name: "a".into(), slots: 2 }];
        events.emit(&Event::Started { attempt: 1, ranks: Some(2), hosts: &hosts, pid: 7 });
        events.emit(&Event::HostDropped { host: "b", reason: "two\nlines" });
        drop(events);
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["event"], &lines[0]["ranks"]), (&"started".into(), &2.into()));
        assert_eq!(lines[0]["hosts"][0]["slots"], 2);
        assert_eq!((&lines[1]["event"], &lines[1]["host"]), (&"host_dropped".into(), &"b".into()));
        assert!(lines.iter().all(|line| line["unix_s"].is_f64() && line["elapsed_s"].is_f64()));
    }

    #[test]
    fn lost_events_do_not_stop_anything() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut events = Events::new(Box::new(full), Instant::now());
        events.emit(&Event::Stopping { reason: Reason::Grow });
        events.emit(&Event::Stopping { reason: Reason::Asked });
        assert!(events.lost);
    }
}
