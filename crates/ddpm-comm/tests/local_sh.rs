//! launch/local.sh: forwarding of signals to the ranks, and of exit codes and output back.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

mod job;

use job::Job;

/// Starts launch/local.sh with tests/trainer.sh in place of ddpm-dist.
fn local(ranks: &str, args: &[&str]) -> Job {
    let here = env!("CARGO_MANIFEST_DIR");
    let mut script = Command::new(format!("{here}/../../launch/local.sh"));
    script.env("DDPM_DIST", format!("{here}/tests/trainer.sh"));
    script.env_remove("OMP_NUM_THREADS");
    Job::start(script.arg(ranks).args(args))
}

fn count(lines: &[String], start: &str) -> usize {
    lines.iter().filter(|line| line.starts_with(start)).count()
}

#[test]
fn a_signal_lets_the_ranks_save() {
    let mut job = local("2", &["train"]);
    job.wait_for("training", 2);
    job.signal_group("TERM");
    let (code, lines) = job.end();
    assert_eq!((code, count(&lines, "saved with ")), (75, 2), "{lines:#?}");
    assert_eq!(count(&lines, "local.sh: asked the ranks to save and stop"), 1, "{lines:#?}");
    assert_eq!(count(&lines, "-----"), 0, "mpirun's own messages: {lines:#?}");
}

#[test]
fn a_signal_lets_a_single_rank_save() {
    let mut job = local("1", &[]);
    job.wait_for("training", 1);
    job.signal_group("USR1");
    let (code, lines) = job.end();
    assert_eq!((code, count(&lines, "saved with ")), (75, 1), "{lines:#?}");
}

/// Longer than the interval within which a second signal counts as a repetition.
const LATER: Duration = Duration::from_millis(2200);

#[test]
fn a_repeated_request_changes_nothing() {
    for ranks in [1, 2] {
        let mut job = local(&ranks.to_string(), &["slow"]);
        job.wait_for("training", ranks);
        // Twice, as `timeout` does.
        for name in ["TERM", "TERM", "USR1", "HUP"] {
            job.signal_group(name);
        }
        job.wait_for("asked", ranks);
        sleep(LATER);
        for name in ["USR1", "HUP"] {
            job.signal_group(name);
        }
        let (code, lines) = job.end();
        assert_eq!((code, count(&lines, "saved with ")), (75, ranks), "{lines:#?}");
        assert_eq!(count(&lines, "local.sh: "), 1, "{lines:#?}");
    }
}

#[test]
fn a_second_ctrl_c_ends_the_ranks_at_once() {
    for ranks in [1, 2] {
        let mut job = local(&ranks.to_string(), &["stubborn"]);
        job.wait_for("training", ranks);
        job.signal_group("INT");
        job.wait_for("asked", ranks);
        sleep(LATER);
        job.signal_group("TERM");
        let (code, lines) = job.end();
        assert_eq!((code, count(&lines, "saved with ")), (128 + 15, 0), "{lines:#?}");
        // Only the request to stop, and the effect of the second signal.
        assert_eq!(lines.len(), 2 * ranks + 1, "{lines:#?}");
    }
}

#[test]
fn quit_ends_the_ranks_at_once() {
    for ranks in [1, 2] {
        let mut job = local(&ranks.to_string(), &["stubborn"]);
        job.wait_for("training", ranks);
        job.signal_group("QUIT");
        let (code, lines) = job.end();
        assert_eq!((code, count(&lines, "local.sh: ")), (128 + 3, 0), "{lines:#?}");
    }
}

#[test]
fn a_symlink_to_the_script_finds_the_program() {
    let (here, checkout) = (env!("CARGO_MANIFEST_DIR"), Path::new(env!("CARGO_TARGET_TMPDIR")).join("a checkout"));
    let _ = fs::remove_dir_all(&checkout);
    for folder in ["launch", "target/release", "bin"] {
        fs::create_dir_all(checkout.join(folder)).unwrap();
    }
    for script in ["launch/local.sh", "launch/ranks.sh"] {
        fs::copy(format!("{here}/../../{script}"), checkout.join(script)).unwrap();
    }
    symlink(format!("{here}/tests/trainer.sh"), checkout.join("target/release/ddpm-dist")).unwrap();
    symlink("../launch/local.sh", checkout.join("bin/train")).unwrap();
    symlink("train", checkout.join("bin/again")).unwrap();
    for (program, folder) in [("bin/train", "."), ("./again", "bin"), ("../bin/again", "launch")] {
        let mut script = Command::new("bash");
        script.current_dir(checkout.join(folder)).env_remove("DDPM_DIST").env_remove("CARGO_TARGET_DIR");
        // With CDPATH, cd prints the folder that it finds.
        script.env("CDPATH", ".:..").args(["-c", &format!("exec {program} 1 3")]);
        let (code, lines) = Job::start(&mut script).end();
        assert_eq!(code, 3, "{program} in {folder}: {lines:#?}");
    }
}

#[test]
fn the_exit_code_is_that_of_the_ranks() {
    for ranks in ["1", "2"] {
        for code in [0, 3] {
            let (seen, lines) = local(ranks, &[&code.to_string()]).end();
            assert_eq!((seen, lines.len()), (code, 0), "{lines:#?}");
        }
    }
}

#[test]
fn a_killed_rank_is_reported() {
    let (code, lines) = local("2", &["killed"]).end();
    assert_eq!(code, 128 + 9, "{lines:#?}");
    assert_eq!(count(&lines, "local.sh: a rank was killed by signal KILL"), 1, "{lines:#?}");
}

#[test]
fn bad_usage_is_refused() {
    for ranks in ["", "0", "two", "--help"] {
        let (code, lines) = local(ranks, &[]).end();
        assert_eq!((code, lines.len()), (2, 1), "{lines:#?}");
    }
    let mut nowhere = Command::new(format!("{}/../../launch/local.sh", env!("CARGO_MANIFEST_DIR")));
    nowhere.arg("2").env("DDPM_DIST", "/bin/true").env("TMPDIR", "/nowhere");
    let (code, lines) = Job::start(&mut nowhere).end();
    // A full disk may have room again when it is started the next time.
    assert_eq!((code, lines.len()), (1, 1), "{lines:#?}");
    assert!(lines[0].starts_with("local.sh: /nowhere cannot be written. Free space there"), "{lines:#?}");
}
