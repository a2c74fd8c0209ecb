//! All ranks of a run, examined together: what each has found, the links between them, and a verdict.

use std::collections::BTreeSet;

use ddpm_comm::{Link, World, agree};
use ddpm_config::Settings;
use ddpm_model::{Error, ErrorKind, Failure};
use serde_json::{Value, json};

use crate::facts::{Facts, Outcome};
use crate::remarks::{Remark, Severity, remarks};
use crate::store::reach;
use crate::table::table;

/// What was found out about the ranks.
#[derive(Debug)]
pub struct Examination {
    /// What each rank has found, in the order of ranks.
    facts: Vec<Facts>,
    /// The links between the ranks.
    links: Vec<Link>,
    /// What is to be done.
    remarks: Vec<Remark>,
}

/// Examines all ranks, of the program with this name and version; with `settings` also their store and data set. All
/// ranks return the same; collective.
///
/// # Errors
/// If the ranks cannot exchange what they have found: they run different programs.
pub fn examine_ranks(world: &World, program: &str, settings: Option<&Settings>) -> Result<Examination, Failure> {
    let comm = world.collective();
    let mut ours = Facts::here(world, program, settings);
    if let Some(settings) = settings {
        ours.store = reach(comm.as_ref(), settings);
    }
    let facts: Vec<Facts> = agree::exchange(comm.as_ref(), Some(&ours))?.into_iter().flatten().collect();
    let links = world.measure_links();
    let remarks = remarks(&facts, &links);
    Ok(Examination { facts, links, remarks })
}

impl Examination {
    /// The table of ranks, the remarks, and the verdict, as lines for readers.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = table(&self.facts, &self.links);
        lines.extend(self.remarks.iter().map(|remark| format!("{}: {}", word(remark.severity), remark.text)));
        lines.push(format!("verdict: {}", self.verdict()));
        lines
    }

    /// The same for programs: an object for each rank, for each remark, and for the verdict.
    pub fn values(&self) -> Vec<Value> {
        let mut values: Vec<Value> = self.facts.iter().map(|facts| self.rank(facts)).collect();
        let remark = |remark: &Remark| json!({ "severity": word(remark.severity), "detail": remark.text });
        values.extend(self.remarks.iter().map(remark));
        let warnings = self.remarks.len() - self.problems();
        values.push(json!({ "verdict": self.verdict(), "problems": self.problems(), "warnings": warnings }));
        values
    }

    /// Fails if there are problems; with the kind of the first.
    ///
    /// # Errors
    /// How many problems there are.
    pub fn outcome(&self) -> Result<(), Error> {
        let kind = |remark: &Remark| match remark.severity {
            Severity::Problem(kind) => Some(kind),
            Severity::Warning => None,
        };
        match self.remarks.iter().find_map(kind) {
            None => Ok(()),
            Some(kind) => Err(self.failure(kind)),
        }
    }

    fn failure(&self, kind: ErrorKind) -> Error {
        Error::new(kind, format!("{}; the lines above say what to do", counted(self.problems(), "problem")))
    }

    fn problems(&self) -> usize {
        self.remarks.iter().filter(|remark| remark.severity != Severity::Warning).count()
    }

    fn verdict(&self) -> String {
        let hosts: BTreeSet<&str> = self.facts.iter().map(|facts| facts.host.as_str()).collect();
        let who = format!("{} on {}", counted(self.facts.len(), "rank"), counted(hosts.len(), "machine"));
        match (self.problems(), self.remarks.len() - self.problems()) {
            (0, 0) => format!("{who}, ready to train"),
            (0, warnings) => format!("{who}, ready to train, with {}", counted(warnings, "warning")),
            (problems, 0) => format!("{who}, not ready: {}", counted(problems, "problem")),
            (problems, warnings) => {
                format!("{who}, not ready: {}, {}", counted(problems, "problem"), counted(warnings, "warning"))
            }
        }
    }

    fn rank(&self, facts: &Facts) -> Value {
        let of_rank = |link: &Link| {
            let (to, skew) = match facts.rank {
                rank if rank == link.from => (link.to, link.skew_s),
                rank if rank == link.to => (link.from, -link.skew_s),
                _ => return None,
            };
            let (latency, speed) = (link.latency_s * 1e6, link.bytes_per_s / 1e6);
            Some(json!({ "to": to, "latency_us": latency, "mb_per_s": speed, "clock_ahead_s": skew }))
        };
        let links: Vec<Value> = self.links.iter().filter_map(of_rank).collect();
        let mut value = json!(facts);
        value["store"] = outcome_json(&facts.store, |()| json!("ok"));
        value["data"] = outcome_json(&facts.data, |data| json!(data));
        value["links"] = json!(links);
        value
    }
}

/// What was found, as JSON; null if nothing was asked, and an object with the failure.
fn outcome_json<T>(outcome: &Outcome<T>, shown: impl Fn(&T) -> Value) -> Value {
    match outcome {
        Outcome::NotAsked => Value::Null,
        Outcome::Fine(found) => shown(found),
        Outcome::Failed(message) => json!({ "failure": message }),
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Problem(_) => "problem",
        Severity::Warning => "warning",
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remarks::tests::{facts, link};

    #[test]
    fn the_verdict_comes_last_and_decides_the_outcome() {
        let examined = |change: fn(&mut Facts)| {
            let mut facts = vec![facts(0, "a"), facts(1, "b")];
            change(&mut facts[1]);
            let links = vec![link(0, 1)];
            Examination { remarks: remarks(&facts, &links), facts, links }
        };
        let verdict = |examined: &Examination| examined.lines().pop().unwrap();
        let ready = examined(|_| {});
        assert_eq!(verdict(&ready), "verdict: 2 ranks on 2 machines, ready to train");
        assert!(ready.outcome().is_ok() && ready.lines().len() == 4);
        let warned = examined(|facts| facts.threads = 1);
        assert_eq!(verdict(&warned), "verdict: 2 ranks on 2 machines, ready to train, with 1 warning");
        assert!(warned.outcome().is_ok());
        let failing = examined(|facts| {
            facts.threads = 1;
            facts.store = Outcome::Failed("gone".into());
        });
        assert_eq!(verdict(&failing), "verdict: 2 ranks on 2 machines, not ready: 1 problem, 1 warning");
        let failure = failing.outcome().unwrap_err();
        assert_eq!((failure.kind(), failure.to_string().starts_with("1 problem; ")), (ErrorKind::Storage, true));
        let values = failing.values();
        assert_eq!(values.len(), 5);
        assert_eq!(values[1]["store"]["failure"], "gone");
        assert_eq!((&values[1]["links"][0]["to"], &values[1]["data"]["images"]), (&json!(0), &json!(512)));
        assert_eq!((&values[4]["problems"], &values[4]["warnings"]), (&json!(1), &json!(1)));
    }

    #[test]
    fn one_rank_is_examined_alone() {
        let examined = examine_ranks(&World::init().unwrap(), "program 1", None).unwrap();
        assert!(examined.facts.len() == 1 && examined.links.is_empty());
        assert!(examined.outcome().is_ok(), "{:?}", examined.remarks);
    }
}
