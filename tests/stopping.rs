//! Requests to stop: honoured from the start of a run to its end, whether or not its output is read, and however often
//! they are repeated.

use std::fs::{self, File};
use std::io::{Write, pipe};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::kill::{alive, listens, ranks_below, suspended, tree};
use crate::common::{
    finish, in_bash, last_logged, mpirun, newest_manifest, program, signal, start, succeed, train_on, wait, wait_for,
    wait_for_step,
};

/// The program by itself, and by the launcher on one rank and on two.
const STARTS: [Option<usize>; 3] = [None, Some(1), Some(2)];

/// Saves at the end only.
const UNSAVED: &[&str] =
    &["--set", "checkpoint.every=1000000", "--set", "monitor.sample_every=0", "--set", "monitor.tensorboard=false"];

/// Longer than the interval within which a second Ctrl-C counts as a repetition.
const LATER: Duration = Duration::from_millis(2200);

/// Asserts that the run that ended with `code` has done all its steps, or has stopped and saved all its progress.
fn check_stopped(what: &str, code: i32, dir: &Path, steps: u64) {
    let (reached, saved) = (last_logged(dir), newest_manifest(&dir.join("checkpoints")));
    match code {
        0 => assert_eq!((reached, saved), (steps, steps), "{what}: finished without its last step"),
        75 => assert_eq!(saved, reached, "{what}: stopped at step {reached} with step {saved} saved"),
        _ => panic!("{what}: exit code {code} at step {reached}, with step {saved} saved"),
    }
}

#[test]
fn a_signal_at_any_time_is_honoured() {
    const STEPS: u64 = 40;
    const TIMES: u32 = 4;
    for (shift, ranks) in STARTS.into_iter().enumerate() {
        let (dir, begun) = (TempDir::new().unwrap(), Instant::now());
        succeed(&mut train_on(ranks, dir.path(), STEPS, UNSAVED));
        let whole = begun.elapsed();
        for time in 0..=TIMES {
            let name = ["USR1", "TERM", "INT", "HUP"][(time as usize + shift) % 4];
            let (dir, after) = (TempDir::new().unwrap(), whole * time / TIMES);
            let child = start(&mut train_on(ranks, dir.path(), STEPS, UNSAVED));
            // Before that it just ends, because nothing has started.
            wait_for(|| listens(child.id()) || !alive(child.id()));
            sleep(after);
            signal(name, child.id());
            let outcome = finish(child);
            let what = format!("{ranks:?} ranks, {name} after {} ms: {}", after.as_millis(), outcome.stderr);
            check_stopped(&what, outcome.code, dir.path(), STEPS);
            assert!(!outcome.stderr.contains("killed"), "{what}");
        }
    }
}

#[test]
fn a_request_is_honoured_even_if_the_output_is_not_read() {
    for ranks in STARTS {
        for gone in ["a closed pipe", "a full disk"] {
            let dir = TempDir::new().unwrap();
            let mut command = train_on(ranks, dir.path(), 1_000_000, UNSAVED);
            let (reader, writer) = pipe().unwrap();
            let child = if gone == "a full disk" {
                let full = || File::options().write(true).open("/dev/full").unwrap();
                command.stdout(full()).stderr(full()).spawn().unwrap()
            } else {
                command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap()
            };
            drop(command);
            wait_for_step(dir.path(), 5);
            drop(reader);
            // mpirun itself would end a run if so many lines are lost.
            wait_for_step(dir.path(), last_logged(dir.path()) + 30);
            assert!(signal("INT", child.id()));
            let what = format!("{ranks:?} ranks, {gone}");
            let code = wait(child);
            assert_eq!(code, 75, "{what}");
            check_stopped(&what, code, dir.path(), 1_000_000);
        }
    }
}

#[test]
fn a_terminal_hangup_is_a_request() {
    for ranks in STARTS {
        let dir = TempDir::new().unwrap();
        let training = train_on(ranks, dir.path(), 1_000_000, UNSAVED);
        let words = [training.get_program()].into_iter().chain(training.get_args());
        let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let line = format!("exec {}", line.join(" "));
        // `script` provides the terminal.
        let mut terminal = in_bash(r#"exec script -qec "$LINE" /dev/null"#, &training);
        terminal.env("LINE", line).env("SHELL", "/bin/sh");
        let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_step(dir.path(), 5);
        let run = tree(terminal.id()).split_off(1);
        assert!(!run.is_empty());
        assert!(signal("KILL", terminal.id()));
        terminal.wait().unwrap();
        wait_for(|| !run.iter().any(|&pid| alive(pid)));
        assert!(last_logged(dir.path()) >= 5);
        check_stopped(&format!("{ranks:?} ranks"), 75, dir.path(), 1_000_000);
    }
}

/// Checks all cases at once: each waits for most of its time.
fn at_once<T: Send>(cases: [T; 3], check: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            let check = &check;
            scope.spawn(move || check(case));
        }
    });
}

/// Starts the program on a configuration that is sent by calling the returned function, so that it is busy until then.
fn busy(dir: &Path) -> (std::process::Child, impl FnOnce(&str)) {
    let config = dir.join("config");
    assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
    let child = start(program().args(["train", "--config"]).arg(&config));
    wait_for(|| listens(child.id()));
    (child, move |text| File::options().write(true).open(config).unwrap().write_all(text.as_bytes()).unwrap())
}

#[test]
fn a_repeated_request_counts_once() {
    let dir = TempDir::new().unwrap();
    let run = dir.path().join("run");
    let (child, send) = busy(dir.path());
    // Twice, as `timeout` does.
    for name in ["TERM", "TERM", "USR1", "HUP"] {
        assert!(signal(name, child.id()));
    }
    sleep(LATER);
    for name in ["USR1", "HUP", "HUP"] {
        assert!(signal(name, child.id()));
    }
    send(&format!("extends = 'smoke'\n[run]\ndir = '{}'", run.display()));
    let outcome = finish(child);
    assert_eq!(outcome.code, 75, "{}", outcome.stderr);
    let last = outcome.stderr.lines().last();
    assert_eq!(last, Some("stopped on request before the first step; the same command starts again"));
    assert!(!run.exists(), "a run has begun");
}

#[test]
fn a_second_ctrl_c_ends_the_program_at_once() {
    let check = |(first, second, code): (&str, &str, i32)| {
        let dir = TempDir::new().unwrap();
        let (child, _) = busy(dir.path());
        // Other signals before it do not count.
        for name in ["HUP", "USR1", first] {
            assert!(signal(name, child.id()));
            sleep(LATER / 4);
        }
        sleep(LATER);
        assert!(alive(child.id()));
        assert!(signal(second, child.id()));
        let outcome = finish(child);
        assert_eq!(outcome.code, code, "{first}, {second}: {}", outcome.stderr);
    };
    at_once([("TERM", "TERM", 143), ("INT", "TERM", 143), ("TERM", "INT", 130)], check);
}

#[test]
fn a_request_ends_the_wait_for_a_lease() {
    let dir = TempDir::new().unwrap();
    let options = [UNSAVED, &["--set", "checkpoint.lease_s=3600"]].concat();
    let mut killed = start(&mut train_on(None, dir.path(), 1_000_000, &options));
    wait_for_step(dir.path(), 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    for ranks in STARTS {
        let said = dir.path().join("said");
        let mut waiting = train_on(ranks, &dir.path().join("again"), 10, &options);
        waiting.arg("--set").arg(format!("checkpoint.uri={}", dir.path().join("checkpoints").display()));
        let child = waiting.stdout(Stdio::null()).stderr(File::create(&said).unwrap()).spawn().unwrap();
        let said = || fs::read_to_string(&said).unwrap();
        wait_for(|| said().contains("waiting up to"));
        assert!(signal("USR1", child.id()));
        assert_eq!(wait(child), 75, "{}", said());
        assert!(said().contains("stopped on request before the first step"), "{}", said());
        assert!(!said().contains("error"), "{}", said());
    }
}

#[test]
fn nohup_ignores_hangups_but_not_other_requests() {
    at_once(STARTS, |ranks| {
        let dir = TempDir::new().unwrap();
        let training = train_on(ranks, dir.path(), 1_000_000, UNSAVED);
        let child = start(&mut in_bash(r#"exec nohup "$@""#, &training));
        wait_for_step(dir.path(), 3);
        assert!(signal("HUP", child.id()));
        sleep(LATER);
        wait_for_step(dir.path(), last_logged(dir.path()) + 3);
        assert!(signal("TERM", child.id()));
        let outcome = finish(child);
        assert_eq!(outcome.code, 75, "{}", outcome.stderr);
        check_stopped(&outcome.stderr, 75, dir.path(), 1_000_000);
    });
}

#[test]
fn ctrl_z_suspends_the_ranks() {
    for ranks in [1, 2] {
        let dir = TempDir::new().unwrap();
        let child = start(&mut train_on(Some(ranks), dir.path(), 1_000_000, UNSAVED));
        wait_for_step(dir.path(), 3);
        let all = ranks_below(child.id());
        assert_eq!(all.len(), ranks);
        assert!(signal("TSTP", child.id()));
        wait_for(|| all.iter().all(|&rank| suspended(rank)) && suspended(child.id()));
        let reached = last_logged(dir.path());
        assert!(signal("CONT", child.id()));
        wait_for_step(dir.path(), reached + 3);
        assert!(signal("INT", child.id()));
        let outcome = finish(child);
        assert_eq!(outcome.code, 75, "{}", outcome.stderr);
        check_stopped(&outcome.stderr, 75, dir.path(), 1_000_000);
    }
}

#[test]
fn what_has_nothing_to_save_ends_on_request() {
    for (ranks, (name, code)) in
        STARTS.into_iter().flat_map(|ranks| [("INT", 130), ("TERM", 75), ("USR1", 75)].map(|signal| (ranks, signal)))
    {
        let dir = TempDir::new().unwrap();
        let config = dir.path().join("config");
        assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
        let child = start(ranks.map_or_else(program, mpirun).args(["data", "info", "--config"]).arg(&config));
        wait_for(|| listens(child.id()));
        assert!(signal(name, child.id()));
        let outcome = finish(child);
        assert_eq!(outcome.code, code, "{ranks:?} ranks, {name}: {}", outcome.stderr);
        let said = &outcome.stderr;
        match ranks {
            Some(_) => assert!(said.contains("asked the ranks to stop;") && !said.contains("save"), "{said}"),
            None => assert_eq!(said, "", "{name}"),
        }
    }
}

#[test]
fn a_benchmark_ends_between_steps_and_saves_nothing() {
    for ranks in STARTS {
        let mut command = ranks.map_or_else(program, mpirun);
        let child = start(command.args(["bench", "step", "--config", "smoke", "--steps", "1000000", "--json"]));
        wait_for(|| listens(child.id()));
        assert!(signal("INT", child.id()));
        let outcome = finish(child);
        assert_eq!(outcome.code, 75, "{ranks:?} ranks: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{ranks:?} ranks");
        assert!(!outcome.stderr.contains("save and stop"), "{}", outcome.stderr);
    }
}
