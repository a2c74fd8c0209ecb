//! Writers that race on a real moto server, whose conditional PUTs are independent of ours and the rig's.
//!
//! moto checks a condition and then writes without holding a lock, so with threads it sometimes lets two competitors
//! win; here it handles one request at a time, as if it had the lock.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Barrier,
    thread,
};

use super::*;

const SERVE: &str = "
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
server = make_server('127.0.0.1', 0, DomainDispatcherApplication(create_backend_app), threaded=False)
print(server.port, flush=True)
server.serve_forever()
";
const COMPETITORS: usize = 6;

/// A moto server with a bucket, until dropped.
struct Moto {
    child: Child,
    port: String,
}

impl Moto {
    fn start() -> Self {
        let cache = env::var_os("DDPM_CACHE").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/ddpm-dist")));
        let home = cache.expect("neither DDPM_CACHE nor HOME is set").join("moto");
        assert!(home.is_dir(), "moto is not in {}; run scripts/setup.sh --tests", home.display());
        let mut command = Command::new("python3");
        command.args(["-c", SERVE]).env("PYTHONPATH", home).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let moto = Self { child, port: port.trim().into() };
        let mut socket = TcpStream::connect(format!("127.0.0.1:{}", moto.port)).unwrap();
        write!(socket, "PUT /bucket HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "no bucket: {answer}");
        moto
    }

    fn store(&self) -> Store {
        let env = [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", "moto".into()),
            ("AWS_SECRET_ACCESS_KEY", "moto".into()),
        ];
        let env = env.map(|(name, value)| (name.into(), value));
        Store::open_in(&env, "s3://bucket/some/run", StoreOptions::default(), |_| Ok(())).unwrap()
    }

    /// The result of each competitor; all start at once, each with its own client.
    fn race<T: Send>(&self, attempt: impl Fn(usize, &Store, &Barrier) -> T + Sync) -> Vec<T> {
        let barrier = Barrier::new(COMPETITORS);
        thread::scope(|scope| {
            let (attempt, barrier) = (&attempt, &barrier);
            let competitors: Vec<_> =
                (0..COMPETITORS).map(|i| scope.spawn(move || attempt(i, &self.store(), barrier))).collect();
            competitors.into_iter().map(|competitor| competitor.join().unwrap()).collect()
        })
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn on_moto_one_competitor_commits_and_one_holds_the_lease() {
    let moto = Moto::start();
    moto.store().probe().unwrap();
    for round in 1..=3 {
        let outcomes = moto.race(|_, store, barrier| {
            let manifest = write(store, round, 1, &[("weights", values(4, 1))]);
            barrier.wait();
            finish(store.start_commit(manifest.clone(), None)).map(|_| manifest.nonce)
        });
        let winners: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(winners, [&moto.store().read_manifest(round).unwrap().nonce], "{outcomes:?}");
        let fenced = |outcome: &&Result<_, _>| matches!(outcome, Err(CheckpointError::Fenced { .. }));
        assert_eq!(outcomes.iter().filter(fenced).count(), COMPETITORS - 1, "{outcomes:?}");

        let mut leases = moto.race(|i, store, barrier| {
            barrier.wait();
            store.acquire_lease(&i.to_string(), Duration::from_secs(60))
        });
        let held = |outcome: &&Result<_, _>| matches!(outcome, Err(CheckpointError::Held { .. }));
        assert_eq!(leases.iter().filter(held).count(), COMPETITORS - 1, "{leases:?}");
        let winner = leases.remove(leases.iter().position(Result::is_ok).unwrap()).unwrap();
        assert_eq!(winner.holder().generation, round);
        winner.release().unwrap();
    }
}
