//! The fault rig for whole-program tests.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use tempfile::TempDir;

use super::train;

/// An S3 server on a temporary directory, behind a proxy that fails by rule.
pub struct Rig {
    child: Child,
    rules: ChildStdin,
    answers: BufReader<ChildStdout>,
    endpoint: String,
    /// The directory of the server's buckets.
    root: TempDir,
}

impl Rig {
    /// A server that does not fail yet.
    pub fn start() -> Self {
        let root = TempDir::new().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_ddpm-dist")).with_file_name("examples").join("fault_rig");
        assert!(program.is_file(), "{} is not built; run the tests of the whole workspace", program.display());
        let mut child = Command::new(program)
            .args([root.path().to_str().unwrap(), "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut endpoint = String::new();
        answers.read_line(&mut endpoint).unwrap();
        let rules = child.stdin.take().unwrap();
        Self { child, rules, answers, endpoint: endpoint.trim().into(), root }
    }

    /// Makes the server fail by these rules, given as JSON, from now on. The previous ones must have fired.
    pub fn set_rules(&mut self, rules: &str) {
        let idle = self.replace_rules(rules);
        assert_eq!(idle, "[]", "rules that never fired, or invalid new ones");
    }

    /// Replaces the rules; returns the previous ones that never fired, as printed by the server.
    fn replace_rules(&mut self, rules: &str) -> String {
        let mut idle = String::new();
        let line = rules.replace('\n', " ");
        if writeln!(self.rules, "{line}").is_ok() {
            self.answers.read_line(&mut idle).unwrap();
        }
        idle.trim().into()
    }

    /// Points a command at the server.
    pub fn serve<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "rig")
            .env("AWS_SECRET_ACCESS_KEY", "rig-secret")
    }

    /// The folder of the bucket, which contains the same objects as a local store.
    pub fn bucket(&self) -> PathBuf {
        self.root.path().join("bucket")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let idle = self.replace_rules("[]");
        let _ = self.child.kill();
        let _ = self.child.wait();
        assert!(thread::panicking() || idle == "[]", "rules that never fired: {idle}");
    }
}

/// `train` into `dir`, saving every 5 steps to `s3://bucket/run`.
pub fn train_to_s3(rig: &Rig, ranks: usize, dir: &Path, steps: u64, more: &[&str]) -> Command {
    let mut command = train(ranks, dir, steps, &["--set", "checkpoint.uri=s3://bucket/run"]);
    command.args(["--set", "checkpoint.every=5", "--set", "monitor.sample_every=0"]).args(more);
    rig.serve(&mut command);
    command
}
