//! Invalid paths and addresses, and stores that are misspelt, refuse requests, or do not exist.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use super::runs::train_smoke;
use super::{Case, PLAIN, check, check_each};
use crate::common::rig::Rig;
use crate::common::{program, run};

#[test]
fn addresses_and_paths() {
    let (dir, away) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let here = || {
        let mut command = program();
        command.current_dir(away.path()).env("HOME", "/home/me");
        command
    };
    let cases: [Case; 13] = [
        ("--set checkpoint.uri=s3:/bkt/x", 2, "checkpoint.uri = \"s3:/bkt/x\"", "Write s3://bkt/x"),
        ("--set checkpoint.uri=s3//bkt/x", 2, "checkpoint.uri = \"s3//bkt/x\"", "Write s3://bkt/x"),
        ("--set checkpoint.uri=gs:/b", 2, "checkpoint.uri = \"gs:/b\"", "Write gs://b"),
        ("--set checkpoint.uri=S3://b/x", 2, "checkpoint.uri = \"S3://b/x\"", "Write s3://b/x"),
        ("--set checkpoint.uri=file:/abs", 2, "checkpoint.uri = \"file:/abs\"", "Write /abs"),
        ("--set checkpoint.uri=~/ck", 2, "starts with ~", "Write /home/me/ck"),
        ("--set checkpoint.uri=${HOME}/ck", 2, "has ${HOME} in it", "Write /home/me/ck"),
        ("--set checkpoint.uri=https://b.s3.amazonaws.com/x", 2, "a web address", "Write s3://b/x"),
        ("--set run.dir=~/runs/x", 2, "run.dir = \"~/runs/x\"", "Write /home/me/runs/x"),
        ("--set run.dir=s3://b/x", 2, "run.dir = \"s3://b/x\"", "checkpoint.uri"),
        ("--set data.kind=idx --set data.path=$HOME/m", 2, "data.path = \"$HOME/m\"", "Write /home/me/m"),
        (
            "--set data.kind=idx --set data.path=s3://b/m",
            2,
            "data.path = \"s3://b/m\"",
            "Give the path of a local file",
        ),
        ("--profile ~/trace.json", 2, "'~/trace.json' for '--profile", "Write /home/me/trace.json"),
    ];
    check_each(dir.path(), &format!("train --config smoke --set run.dir=run {PLAIN}"), &cases, here);
    let cases = [
        ("checkpoints list s3:/bkt/x", 2, "'s3:/bkt/x' for '<URI>'", "Write s3://bkt/x"),
        ("checkpoints prune ~/runs/x", 2, "'~/runs/x' for '<URI>'", "Write /home/me/runs/x"),
        ("checkpoints copy runs/x --to s3:bkt", 2, "'s3:bkt' for '--to", "Write s3://bkt"),
        ("checkpoints copy runs/x --to file://backup", 2, "'file://backup' for '--to", "Write backup"),
        ("sample --model gs:/b/run --out a.png", 2, "'gs:/b/run' for '--model", "Write gs://b/run"),
        ("sample --model runs/x --out ~/a.png", 2, "'~/a.png' for '--out", "Write /home/me/a.png"),
        ("sample --model runs/x --out s3://b/a.png", 2, "'s3://b/a.png' for '--out", "Give the path of a local file"),
        ("sample --model runs/x --out a.png --init-noise nas:/n", 2, "'nas:/n' for '--init-noise", "Mount it"),
        ("encode --model runs/x --out $HOME/n.safetensors", 2, "has $HOME in it", "Write /home/me/n.safetensors"),
        ("eval fid --samples ~/s --data smoke", 2, "'~/s' for '--samples", "Write /home/me/s"),
        ("eval fid --samples s --data smoke --features ~/f.pt", 2, "'~/f.pt' for '--features", "Write /home/me/f.pt"),
        ("eval nll --model hdfs://h/run", 2, "the scheme hdfs://", "Give a directory"),
        ("plot loss --run ~/runs/x --out a.png", 2, "'~/runs/x' for '--run", "Write /home/me/runs/x"),
        ("plot schedule --out s3://b/a.png", 2, "'s3://b/a.png' for '--out", "Give the path of a local file"),
        ("bench checkpoint --config smoke --uri s3a://b", 2, "'s3a://b' for '--uri", "Write s3://b"),
        ("train --config ~/mine.toml", 2, "no configuration file or preset `~/mine.toml`", "Write /home/me/mine.toml"),
    ];
    check_each(dir.path(), "", &cases, here);
    // The table above cannot express a space.
    let outcome = run(here().args(["checkpoints", "list", " s3://bkt/x"]));
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("starts or ends with a space") && outcome.stderr.contains("Write s3://bkt/x"));
    assert_eq!(fs::read_dir(away.path()).unwrap().count(), 0, "a refused address became a folder");
}

/// The program with environment variables for a store.
fn with<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn() -> Command + 'a {
    let plain = [
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "rig"),
        ("AWS_SECRET_ACCESS_KEY", "rig-secret"),
    ];
    move || {
        let mut command = program();
        command.envs(plain).envs(variables.iter().copied());
        command
    }
}

#[test]
fn servers() {
    let dir = TempDir::new().unwrap();
    let rig = Rig::start();
    let mut probe = program();
    rig.serve(&mut probe);
    let variable =
        |name: &str| probe.get_envs().find(|(n, _)| *n == name).unwrap().1.unwrap().to_str().unwrap().to_owned();
    let endpoint = variable("AWS_ENDPOINT_URL");
    let bare = endpoint.strip_prefix("http://").unwrap();
    let bound = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://{bound}");
    let list = "checkpoints list s3://bucket/run";

    let remedy = format!("write AWS_ENDPOINT_URL=http://{bare}");
    check_each(dir.path(), "", &[(list, 2, "is not a URL", leak(remedy))], with(&[("AWS_ENDPOINT_URL", bare)]));
    let hosted = [("AWS_ENDPOINT_URL", endpoint.as_str()), ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")];
    let remedy = format!("set AWS_ENDPOINT_URL=http://bucket.{bare}");
    check_each(dir.path(), "", &[(list, 2, "does not begin with it", leak(remedy))], with(&hosted));
    let plain = [("AWS_ENDPOINT_URL", endpoint.as_str())];
    check_each(
        dir.path(),
        "",
        &[("checkpoints list s3://nowhere/x", 4, "has no such bucket", "Create it")],
        with(&plain),
    );
    let wrong = [plain[0], ("AWS_SECRET_ACCESS_KEY", "wrong")];
    check_each(dir.path(), "", &[(list, 4, "SignatureDoesNotMatch", "Check AWS_ACCESS_KEY_ID")], with(&wrong));
    let none = [
        plain[0],
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_METADATA_ENDPOINT", closed.as_str()),
    ];
    check_each(dir.path(), "", &[(list, 4, "no credentials: ", "Set AWS_ACCESS_KEY_ID")], with(&none));

    // Nothing listens: the program reports that it retries, and for how long; then the cause.
    let train = format!("train --config smoke --set run.dir=DIR/run --set checkpoint.uri=s3://bucket/run {PLAIN}");
    let refused = [("AWS_ENDPOINT_URL", closed.as_str())];
    let case = ("--set checkpoint.retry_s=3", 4, "Connection refused", "Check AWS_ENDPOINT_URL");
    check_each(dir.path(), &train, &[case], with(&refused));
    let line = format!("{train} --set checkpoint.retry_s=3").replace("DIR", dir.path().to_str().unwrap());
    let outcome = run(with(&refused)().args(line.split_whitespace()));
    let message = format!("s3://bucket/run: no connection to {bound}");
    assert!(
        outcome.stderr.contains(&message) && outcome.stderr.contains("retrying for up to 3s"),
        "{}",
        outcome.stderr
    );
    assert!(!dir.path().join("run").exists());
}

#[test]
fn commands_that_somebody_waits_for_report_an_unreachable_store_and_give_up() {
    let dir = TempDir::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("no connection to {closed}");
    let refused = refused.as_str();
    let cases = [
        (closed, "checkpoints list s3://bucket/run", "10s", refused, "Connection refused"),
        (closed, "checkpoints list s3://bucket/run --retry-for 1", "1s", refused, "Connection refused"),
        (closed, "checkpoints verify s3://bucket/run --retry-for 1", "1s", refused, "Connection refused"),
        (closed, "checkpoints prune s3://bucket/run --retry-for 1", "1s", refused, "Connection refused"),
        (closed, "sample --model s3://bucket/run --out DIR/a.png --retry-for 1", "1s", refused, "Connection refused"),
        (closed, "export s3://bucket/run --out DIR/out --retry-for 1", "1s", refused, "Connection refused"),
        (closed, "eval nll --model s3://bucket/run --retry-for 1", "1s", refused, "Connection refused"),
        // It accepts connections and never responds.
        (silent, "checkpoints list s3://bucket/run --retry-for 1", "1s", "no response from ", "no response within"),
    ];
    let check_case = |(address, line, time, what, cause): (SocketAddr, &str, &str, &str, &str)| {
        let endpoint = format!("http://{address}");
        let words = line.replace("DIR", dir.path().to_str().unwrap());
        let outcome = run(with(&[("AWS_ENDPOINT_URL", endpoint.as_str())])().args(words.split_whitespace()));
        assert_eq!(outcome.code, 4, "{line}: {}", outcome.stderr);
        let (warning, error) = outcome.stderr.split_once("error: ").unwrap();
        assert_eq!(warning.matches("retrying for up to").count(), 1, "{line}: {warning}");
        assert!(warning.contains(&format!("s3://bucket/run: {what}")), "{line}: {warning}");
        assert!(warning.contains(&format!("retrying for up to {time}")), "{line}: {warning}");
        assert!(error.contains(cause) && error.contains("Check AWS_ENDPOINT_URL"), "{line}: {error}");
    };
    // They wait, and so need not wait for each other.
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || check_case(case));
        }
    });
    let cases = [
        ("train --config smoke --retry-for 5", 2, "--retry-for is for other commands", "--set checkpoint.retry_s=5"),
        ("checkpoints list runs/x --retry-for 4000", 2, "'4000' for '--retry-for", "--help"),
    ];
    check(dir.path(), "", &cases);
}

/// The cases need text with static lifetime.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

#[test]
fn forbidden_operations_on_checkpoints() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    train_smoke(&at("run"), "");
    train_smoke(&at("other"), "--set seed=1");
    fs::write(at("other/checkpoints/lease.json"), "garbage").unwrap();
    let cases = [
        ("copy DIR/run --to DIR/other", 4, "lease.json", "checkpoints unlock --force"),
        ("unlock DIR/other", 4, "lease.json", "checkpoints unlock --force"),
        ("unlock DIR/absent", 4, "there is no directory", "Give the path of a run"),
        ("drop DIR/run --step 7", 4, "a checkpoint of step 7 is not in", "Name one that is there"),
        ("drop DIR/run", 2, "not provided", "--step <STEP>"),
    ];
    check(dir.path(), "checkpoints", &cases);
    assert_eq!(run(program().args(["checkpoints", "unlock", "--force"]).arg(at("other"))).code, 0);
    let cases = [
        ("copy DIR/run --to DIR/other", 3, "another run than the checkpoints in", "copy it to a folder of its own"),
        ("copy DIR/run --to DIR/other --step 10", 3, "seed: 1 there, 0 here", "copy it to a folder of its own"),
    ];
    check(dir.path(), "checkpoints", &cases);
    assert_eq!(run(program().args(["checkpoints", "drop", "--step", "10"]).arg(at("run"))).code, 0);
    let cases = [("drop DIR/run --step 20", 2, "is the only valid checkpoint", "--force drops it anyway")];
    check(dir.path(), "checkpoints", &cases);
}
