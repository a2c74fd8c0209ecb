//! Running out of memory is an error wherever it happens, and the next attempt with enough memory succeeds.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use common::two_levels;
use ddpm_nn::{
    AdamW, Architecture, Averaging, Ema, Gradients, ImageShape, Inputs, Network, NnError, SmallUNetSpec, UNetSpec,
    Weights,
};
use tch::{Device, Kind, TchError, Tensor};
use tch_ext::TorchFailure;

/// What the first attempt has of memory; the n-th one has n * n times as much.
const LEAST: usize = 3 << 20;
/// The variable by which glibc gives freed memory back at once, from so many bytes on; else it keeps some for later.
const GIVE_BACK: &str = "MALLOC_MMAP_THRESHOLD_";
/// The variable by which no thread has a heap of its own: 64 MiB of address space that would be taken before they are used.
const ONE_HEAP: &str = "MALLOC_ARENA_MAX";

/// Runs a test of this file again, in a process that gives freed memory back; whether this is that process.
fn gives_memory_back(test: &str) -> bool {
    if std::env::var_os(GIVE_BACK).is_some() {
        return true;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let output =
        again.args([test, "--exact", "--nocapture"]).env(GIVE_BACK, "131072").env(ONE_HEAP, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// Sets how much address space this process may take. A process of its own does so: one short of memory starts no other.
struct Limiter {
    shell: Child,
    answers: BufReader<ChildStdout>,
}

impl Limiter {
    fn start() -> Self {
        let script = "while read -r bytes; do prlimit --pid $PPID --as=$bytes: && echo done; done";
        let mut bash = Command::new("bash");
        bash.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = bash.spawn().unwrap();
        let answers = BufReader::new(shell.stdout.take().unwrap());
        Self { shell, answers }
    }

    fn set(&mut self, bytes: &str) {
        writeln!(self.shell.stdin.as_ref().unwrap(), "{bytes}").unwrap();
        let mut answer = String::with_capacity(80);
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "prlimit is there, of util-linux");
    }

    /// `work` with so much more address space than is taken already.
    fn within<T>(&mut self, more: usize, work: impl FnOnce() -> T) -> T {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split_whitespace().next().unwrap().parse().unwrap();
        self.set(&(pages * 4096 + more).to_string());
        let done = work();
        self.set("unlimited");
        done
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Does `work` on what `prepare` makes, with more and more memory until there is enough. It must fail before that, and of
/// nothing but memory.
fn with_too_little<P, T>(what: &str, prepare: impl Fn() -> P, work: impl Fn(P) -> Result<T, TchError>) -> T {
    let (mut limiter, mut failures) = (Limiter::start(), 0);
    for more in (1..).map(|attempt| attempt * attempt * LEAST) {
        let prepared = prepare();
        match limiter.within(more, || work(prepared)) {
            Ok(done) => {
                assert!(failures > 0, "{what} needs no memory");
                return done;
            }
            Err(error) => {
                let words = error.to_string();
                assert!(
                    matches!(TorchFailure::of(&words), Some(TorchFailure::OutOfMemory { on_gpu: false, .. })),
                    "{what}: {words}"
                );
                failures += 1;
            }
        }
    }
    unreachable!("there is always more")
}

fn unet() -> Architecture {
    Architecture::UNet(two_levels(64))
}

fn small() -> Architecture {
    Architecture::Small(SmallUNetSpec {
        image: ImageShape::square(1, 64),
        out_channels: 1,
        channels: vec![16, 32],
        time_width: 60,
    })
}

/// Forward and backward, both short of memory, give what they give with plenty.
#[test]
fn a_network_reports_memory_that_runs_out() {
    if !gives_memory_back("a_network_reports_memory_that_runs_out") {
        return;
    }
    tch::set_num_threads(1);
    for (name, architecture, precision, checkpointed) in [
        ("the U-Net", unet(), Kind::Float, false),
        ("the U-Net in bf16", unet(), Kind::BFloat16, false),
        ("the U-Net with checkpoints", unet(), Kind::Float, true),
        ("the small U-Net", small(), Kind::Float, false),
    ] {
        let network = Network::new(architecture).unwrap().computing_in(precision).checkpointing(&[checkpointed; 2]);
        let mut weights = Weights::initialise(network.layout(), 3, Device::Cpu).unwrap();
        let mut gradients = Gradients::attach(network.layout(), &mut weights).unwrap();
        let x = Tensor::ones([12, 1, 64, 64], (Kind::Float, Device::Cpu));
        let t = Tensor::arange(12, (Kind::Int64, Device::Cpu));
        let forward = || {
            let output = network.forward(&weights, &Inputs { x: &x, t: &t, labels: None, dropout: None })?;
            output.f_sub_scalar(1.0)?.f_square()?.f_sum(Kind::Float)
        };
        let loss = forward().unwrap();
        loss.backward();
        let expected = gradients.flat().copy();

        let again = with_too_little(&format!("{name}, forward"), || (), |()| forward());
        assert_eq!(again, loss, "{name}");
        with_too_little(&format!("{name}, backward"), || forward().unwrap(), |loss| loss.f_backward());
        // What failed has added to the gradients before it did.
        gradients.clear().unwrap();
        forward().unwrap().backward();
        assert_eq!(gradients.flat(), &expected, "{name}");
    }
}

/// All that a training holds beside activations: weights, gradients, moments, averages.
#[test]
fn a_state_reports_memory_that_runs_out() {
    if !gives_memory_back("a_state_reports_memory_that_runs_out") {
        return;
    }
    let architecture = || match unet() {
        Architecture::UNet(config) => Architecture::UNet(UNetSpec { channels: vec![128, 256], ..config }),
        other => other,
    };
    let network = Network::new(architecture()).unwrap();
    let of = |error: NnError| match error {
        NnError::Torch(error) => error,
        error => panic!("{error}"),
    };
    let weights = || Weights::initialise(network.layout(), 3, Device::Cpu);
    let all = weights().unwrap();
    with_too_little("weights", || (), |()| weights().map_err(of));
    with_too_little(
        "gradients",
        || weights().unwrap(),
        |mut weights| Gradients::attach(network.layout(), &mut weights).map_err(of),
    );
    with_too_little("moments", || (), |()| AdamW::new(all.flat(), [0.9, 0.99], 0.0, 1e-8).map_err(of));
    with_too_little(
        "an average",
        || (),
        |()| Ema::new(all.flat(), Averaging::Exponential { rate: 0.9, warmup: false }).map_err(of),
    );
}
