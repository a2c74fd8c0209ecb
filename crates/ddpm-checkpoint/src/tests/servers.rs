//! Third-party servers, each a process: moto for S3, Azurite for Azure. Both are independent of our code and the rig's.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use super::{NAMED_STORE, rig::s3_env};

/// A server that says where it listens, until dropped.
struct Process {
    child: Child,
    address: String,
}

/// moto, with a bucket.
pub struct Moto(Process);

/// Azurite, with a container.
pub struct Azurite(Process);

const MOTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/moto_server.py");
/// The account that every Azurite has.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// A signature of that account for anything until 2099, made once: `scripts/stores.sh` has it too.
pub const SIGNATURE: &str = "sv=2021-12-02&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&spr=https%2Chttp\
                             &sig=jlSI%2B5DohmjtlB2oCr2Vhd9u7l%2F%2FvB9E8D7vhfmKGX4%3D";

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| Some(line.split_once("listens on ")?.1.to_owned()));
        thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("the server ended without saying where it listens") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `scripts/setup.sh --tests` has installed as `name`.
fn installed(name: &str) -> PathBuf {
    let cache = env::var_os("DDPM_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/ddpm-dist")));
    let home = cache.expect("neither DDPM_CACHE nor HOME is set").join(name);
    assert!(home.is_dir(), "{} does not exist; run scripts/setup.sh --tests", home.display());
    home
}

/// Runs the tests of these modules, also those for a named server, on stores in `folder`, for which `variables` has the
/// credentials. They run in a process of their own, which has these in its environment.
pub fn run_tests_on(folder: &str, variables: &[(String, String)], modules: &[&str]) {
    let outcome = Command::new(env::current_exe().unwrap())
        .args(modules.iter().map(|name| format!("tests::{name}::")))
        .args(["--skip", "on_moto", "--include-ignored", "--test-threads", "4"])
        .env(NAMED_STORE, folder)
        .envs(variables.iter().cloned())
        .output()
        .unwrap();
    let [stdout, stderr] = [outcome.stdout, outcome.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(outcome.status.success(), "{stdout}{stderr}");
    assert!(!stdout.contains(" 0 passed"), "no test ran: {stdout}");
}

impl Moto {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Over TLS.
    pub fn with_certificate(certificate: &Path, key: &Path) -> Self {
        Self::start_with(&[certificate, key])
    }

    fn start_with(certificate: &[&Path]) -> Self {
        let mut command = Command::new("python3");
        command.arg(MOTO).args(certificate).env("PYTHONPATH", installed("moto"));
        Self(Process::start(&mut command))
    }

    pub fn env(&self) -> Vec<(String, String)> {
        s3_env(&self.0.address)
    }
}

impl Azurite {
    pub fn start() -> Self {
        let program = installed("azurite").join("node_modules/azurite/dist/src/blob/main.js");
        let mut command = Command::new("node");
        let options = ["--blobPort", "0", "--inMemoryPersistence", "--silent", "--disableTelemetry"];
        let process = Process::start(command.arg(program).args(options));
        let mut socket = TcpStream::connect(process.address.strip_prefix("http://").unwrap()).unwrap();
        let end = "HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        write!(socket, "PUT /{ACCOUNT}/bucket?restype=container&{SIGNATURE} {end}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 201 "), "no container: {answer}");
        Self(process)
    }

    pub fn env(&self) -> Vec<(String, String)> {
        let endpoint = format!("{}/{ACCOUNT}", self.0.address);
        let variables = [
            ("AZURE_STORAGE_ENDPOINT", endpoint.as_str()),
            ("AZURE_ALLOW_HTTP", "true"),
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
            ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY),
        ];
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }
}
