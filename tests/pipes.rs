//! Standard streams: closed or full stdout and stderr, streams that are closed from the start, and configurations on
//! stdin.

use std::fs::{self, File};
use std::io::{Write, pipe};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::common::{
    Outcome, finish, in_bash, metrics, mpirun, program, run, start, succeed, train, train_on, verified, wait,
};

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A pipe whose reader has exited.
fn closed() -> Stdio {
    pipe().unwrap().1.into()
}

/// Runs `command` with this stdout; returns its exit status and stderr.
fn with_stdout(command: &mut Command, stdout: impl Into<Stdio>) -> (i32, String) {
    let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let code = wait(child);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    (code, said)
}

#[test]
fn a_closed_pipe_is_not_a_failure_but_a_full_disk_is() {
    let dir = TempDir::new().unwrap();
    let classes = ["--set", "model.classes=10"];
    succeed(&mut train(1, &dir.path().join("run"), 4, &[]));
    let mut classifier = program();
    classifier.args(["train-classifier", "--config", "smoke", "--steps", "2"]).args(classes);
    succeed(classifier.arg("--set").arg(format!("run.dir={}", dir.path().join("classifier").display())));
    for line in [
        "--help",
        "--version",
        "help train",
        "completions bash",
        "data info --config smoke",
        "data info --config smoke --json",
        "train --config smoke --dry-run",
        "train --config smoke --dry-run --json",
        "checkpoints list DIR/run",
        "checkpoints show DIR/run",
        "checkpoints show DIR/run --json",
        "checkpoints verify DIR/run",
        "checkpoints prune DIR/run --dry-run",
        "checkpoints copy DIR/run --to DIR/copy",
        "sample --model DIR/run -n 1 --steps 1 --out DIR/grid.png --json",
        "encode --model DIR/run -n 1 --steps 1 --out DIR/noise.safetensors --json",
        "eval nll --model DIR/run -n 2 --timesteps 2",
        "eval nll --model DIR/run -n 2 --timesteps 2 --json",
        "eval classes --classifier DIR/classifier --split train -n 8",
        "eval classes --classifier DIR/classifier --split train -n 8 --json",
        "bench step --config smoke --steps 1 --warmup 1",
        "bench step --config smoke --steps 1 --warmup 1 --json",
        "doctor",
        "doctor --json",
    ] {
        let line = line.replace("DIR", dir.path().to_str().unwrap());
        let command = || {
            let mut command = program();
            command.args(line.split_whitespace());
            command
        };
        let (code, said) = with_stdout(&mut command(), closed());
        assert_eq!(code, 0, "{line} | true: {said}");
        assert!(!said.contains("stdout") && !said.contains("panicked"), "{line} | true: {said}");
        let (code, said) = with_stdout(&mut command(), full());
        assert_eq!(code, 4, "{line} > /dev/full: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: stdout cannot be written: No space left"), "{line} > /dev/full: {said}");
        assert!(!said.contains("panicked"), "{line} > /dev/full: {said}");
    }
}

#[test]
fn verify_keeps_its_exit_code_if_its_output_is_not_read() {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(1, dir.path(), 2, &[]));
    let shards = dir.path().join("checkpoints/ckpt");
    let shard = fs::read_dir(fs::read_dir(shards).unwrap().next().unwrap().unwrap().path()).unwrap().next();
    fs::write(shard.unwrap().unwrap().path(), b"damaged").unwrap();
    let (code, said) = with_stdout(program().args(["checkpoints", "verify"]).arg(dir.path()), closed());
    assert_eq!(code, 4, "{said}");
    assert!(said.starts_with("error: damaged: step 2"), "{said}");
}

#[test]
fn rows_fit_a_terminal_and_stay_whole_in_a_pipe() {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(1, dir.path(), 2, &[]));
    let mut show = program();
    show.args(["checkpoints", "show"]).arg(dir.path());
    let whole = succeed(&mut show).stdout;
    assert!(whole.lines().any(|row| row.len() > 60) && !whole.contains("\n "), "{whole}");
    let terminal = r#"exec script -qec "stty cols 60 rows 24; $(printf '%q ' "$@")" /dev/null"#;
    let shown = succeed(&mut in_bash(terminal, &show)).stdout.replace("\r\n", "\n");
    for line in shown.lines() {
        assert!(line.len() <= 60 || !line[12..].contains(' '), "{line:?} does not fit: {shown}");
    }
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&shown), words(&whole));
}

#[test]
fn a_launcher_with_a_closed_pipe_ends_like_the_program() {
    // Each image is one line.
    let dir = TempDir::new().unwrap();
    let mut classifier = program();
    classifier.args(["train-classifier", "--config", "smoke", "--steps", "2", "--set", "model.classes=10"]);
    succeed(classifier.arg("--set").arg(format!("run.dir={}", dir.path().display())));
    let mut classes = mpirun(2);
    classes.args(["eval", "classes", "--split", "train", "-n", "400", "--classifier"]).arg(dir.path());
    let (code, said) = with_stdout(&mut classes, closed());
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("SIGPIPE"), "{said}");
}

#[test]
fn lost_results_of_several_ranks_are_a_failure() {
    let mut info = mpirun(2);
    info.args(["data", "info", "--config", "smoke"]);
    let (code, said) = with_stdout(&mut info, closed());
    assert_eq!(code, 0, "{said}");
    let (code, said) = with_stdout(&mut info, full());
    assert_eq!(code, 4, "{said}");
    assert_eq!(said, "local.sh: stdout cannot be written. Free space there, or send the results elsewhere\n");
}

#[test]
fn unread_messages_do_not_change_the_exit_code() {
    for stderr in [closed as fn() -> Stdio, || full().into()] {
        let refused = program().args(["train", "--config", "nowhere"]).stderr(stderr()).spawn().unwrap();
        assert_eq!(wait(refused), 2);
        let mistyped = program().args(["train", "--cofnig", "smoke"]).stderr(stderr()).spawn().unwrap();
        assert_eq!(wait(mistyped), 2);
        let refused = mpirun(2).args(["train", "--config", "nowhere"]).stderr(stderr()).spawn().unwrap();
        assert_eq!(wait(refused), 2);
        let refused = mpirun(0).stderr(stderr()).spawn().unwrap();
        assert_eq!(wait(refused), 2, "usage of local.sh");
        for ranks in [None, Some(2)] {
            let dir = TempDir::new().unwrap();
            let trained = train_on(ranks, dir.path(), 20, &[]).stderr(stderr()).spawn().unwrap();
            assert_eq!(wait(trained), 0);
            assert_eq!(verified(&dir.path().join("checkpoints"))[0], 20);
        }
    }
}

#[test]
fn a_run_started_with_closed_streams_writes_valid_files() {
    for ranks in [None, Some(1), Some(2)] {
        let dir = TempDir::new().unwrap();
        let training = train_on(ranks, dir.path(), 20, &[]);
        let outcome = run(&mut in_bash(r#"exec "$@" <&- >&- 2>&-"#, &training));
        assert_eq!(outcome.code, 0, "{ranks:?} ranks");
        assert_eq!(metrics(dir.path()).len(), 20);
        assert_eq!(verified(&dir.path().join("checkpoints")), [20, 10]);
        let config = fs::read_to_string(dir.path().join("config.toml")).unwrap();
        assert!(config.starts_with("# Resolved by ddpm-dist"), "{config}");
    }
}

/// Runs `command` with `text` on its stdin.
fn with_stdin(command: &mut Command, text: &str) -> Outcome {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    finish(child)
}

fn launched(ranks: Option<usize>) -> Command {
    ranks.map_or_else(program, mpirun)
}

#[test]
fn a_configuration_is_read_from_stdin_or_any_pipe() {
    for ranks in [None, Some(1), Some(2)] {
        let dir = TempDir::new().unwrap();
        let text =
            format!("extends = 'configs/smoke.toml'\n[train]\nsteps = 3\n[run]\ndir = '{}'", dir.path().display());
        let trained = with_stdin(launched(ranks).args(["train", "--config", "-"]), &text);
        assert_eq!(trained.code, 0, "{}", trained.stderr);
        assert_eq!(metrics(dir.path()).len(), 3);

        let text = "extends = 'configs/smoke.toml'\n[data]\ncount = 77";
        let check = |how: &str, outcome: Outcome| {
            let read = outcome.code == 0 && outcome.stdout.contains("images   77 of");
            assert!(read, "{ranks:?} ranks, {how}: {}{}", outcome.stdout, outcome.stderr);
        };
        for given in ["--config=-", "--config=/dev/stdin"] {
            check(given, with_stdin(launched(ranks).args(["data", "info", given]), text));
        }
        for script in [
            r#""$@" --config <(printf %s "$TEXT")"#,
            r#""$@" --config=/dev/fd/7 7< <(printf %s "$TEXT")"#,
            r#"printf %s "$TEXT" >"$FILE"; "$@" --config /dev/fd/7 7<"$FILE""#,
            r#"mkfifo "$FILE"; printf %s "$TEXT" >"$FILE" & "$@" --config "$FILE""#,
        ] {
            let folder = TempDir::new().unwrap();
            let mut piped = in_bash(script, launched(ranks).args(["data", "info"]));
            piped.env("TEXT", text).env("FILE", folder.path().join("config"));
            check(script, finish(start(&mut piped)));
        }
    }
}

#[test]
fn errors_in_a_configuration_on_stdin_name_stdin() {
    for (text, message) in [
        ("", "`data.kind` is not set in stdin."),
        ("seed = ", "stdin is not valid TOML: line 1, column 8"),
        ("extends = 'smoke'\n[train]\nlrr = 1", "unknown key `train.lrr` in stdin"),
        ("extends = '-'", "no configuration file or preset `-`, which stdin extends"),
    ] {
        let outcome = with_stdin(program().args(["train", "--config", "-"]), text);
        assert_eq!(outcome.code, 2, "{text:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(message), "{text:?}: {}", outcome.stderr);
    }
    for ranks in [1, 2] {
        let outcome = run(mpirun(ranks).args(["train", "--config", "/dev/fd/97"]));
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("no configuration file or preset `/dev/fd/97`"), "{}", outcome.stderr);
    }
    // A configuration without a file name does not name the run.
    let piped = with_stdin(program().args(["train", "--config", "-", "--dry-run"]), "extends = 'smoke'");
    assert!(piped.stdout.contains("dir = \"runs/run\""), "{}", piped.stdout);
}
