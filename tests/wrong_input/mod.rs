//! Invalid input of any kind ends the program with the documented exit code and one message: what is wrong, then how to
//! fix it.

mod commands;
mod comparing;
mod data;
mod exports;
mod imports;
mod models;
mod runs;
mod stores;

use std::path::Path;
use std::process::Command;

use crate::common::{Outcome, program, run};

/// Arguments, where DIR stands for the test's folder; the exit code; what is wrong; how to fix it.
type Case = (&'static str, i32, &'static str, &'static str);

/// Options of short runs without sample grids.
const PLAIN: &str = "--set monitor.tensorboard=false --set monitor.sample_every=0";

fn check(dir: &Path, prefix: &str, cases: &[Case]) {
    check_each(dir, prefix, cases, program);
}

/// Runs `prefix` with each case's arguments and reports all cases that did not end as expected.
fn check_each(dir: &Path, prefix: &str, cases: &[Case], start: impl Fn() -> Command) {
    let faults = cases.iter().filter_map(|(arguments, code, wrong, fix)| {
        let line = format!("{prefix} {arguments}").replace("DIR", dir.to_str().unwrap());
        let outcome = run(start().args(line.split_whitespace()));
        let fault = fault(&outcome, *code, wrong, fix)?;
        Some(format!("{line}\n  {fault}\n  exit code {}, stderr:\n{}", outcome.code, outcome.stderr))
    });
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

/// What is wrong with the way in which a command failed, if anything.
fn fault(outcome: &Outcome, code: i32, wrong: &str, fix: &str) -> Option<String> {
    let said = &outcome.stderr;
    if outcome.code != code {
        return Some(format!("should exit with {code}"));
    }
    if let Some(word) = ["panicked", "backtrace", "RUST_BACKTRACE"].into_iter().find(|word| said.contains(word)) {
        return Some(format!("speaks of {word}"));
    }
    let lines = format!("\n{said}");
    let errors: Vec<&str> = lines.split("\nerror: ").skip(1).collect();
    let [message] = errors.as_slice() else {
        return Some(format!("has {} error lines", errors.len()));
    };
    if message.len() > 600 {
        return Some(format!("is {} bytes long", message.len()));
    }
    match (message.find(wrong), message.rfind(fix)) {
        (None, _) => Some(format!("does not say what is wrong: {wrong}")),
        (_, None) => Some(format!("does not say how to fix it: {fix}")),
        (Some(first), Some(second)) => (first > second).then(|| "starts with the remedy".into()),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
