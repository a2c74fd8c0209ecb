//! Training on GPUs, as far as it can be tested without one: with the fake NCCL and CUDA library, which treats host
//! memory as GPU memory. Everything else is real, except that libtorch computes on the CPU.

use std::path::{Path, PathBuf};
use std::process::Command;

use ddpm_config::Settings;
use ddpm_nn::{Network, Weights};
use tch::Device;
use tempfile::TempDir;

use crate::common::{Outcome, buffers, check_same_bits, losses, metrics, program, run, succeed, train};
use crate::fake;

fn library(options: &[&str]) -> PathBuf {
    fake::library(env!("CARGO_TARGET_TMPDIR"), &[&["-DHOST_MEMORY"], options].concat())
}

/// Gives a command the GPUs of the fake library.
fn with_gpus<'a>(command: &'a mut Command, library: &Path) -> &'a mut Command {
    command.envs([("DDPM_NCCL_LIB", library), ("DDPM_CUDART_LIB", library)])
}

/// `train` on two ranks, each step of two micro-batches, gradients in eleven buckets.
fn two_ranks(dir: &Path, steps: u64, options: &[&str]) -> Command {
    let common = ["train.global_batch=12", "train.micro_batch=3", "comm.bucket_mb=0.02", "monitor.sample_every=0"];
    let all: Vec<&str> = common.iter().chain(options).flat_map(|option| ["--set", option]).collect();
    train(2, dir, steps, &all)
}

fn check_same_run(what: &str, ours: &Path, theirs: &Path) {
    check_same_until(8, what, ours, theirs);
}

fn check_same_until(step: u64, what: &str, ours: &Path, theirs: &Path) {
    check_same_bits(what, &buffers(ours, step), &buffers(theirs, step));
    assert_eq!(losses(ours), losses(theirs), "{what}");
    // It comes from the norms of each rank's own gradient, which a GPU computes in single precision; one rank has none.
    let noise = |dir: &Path| metrics(dir)[&step]["grad_variance"].as_f64().unwrap_or(1.0);
    let (ours, theirs) = (noise(ours), noise(theirs));
    assert!((ours / theirs - 1.0).abs() < 1e-3, "{what}: {ours} and {theirs}");
}

#[test]
fn gradients_averaged_by_nccl_equal_those_of_mpi_bit_for_bit() {
    let by_mpi = TempDir::new().unwrap();
    let outcome = succeed(&mut two_ranks(by_mpi.path(), 8, &["train.device=cpu"]));
    assert!(outcome.stderr.contains("gradients are averaged by MPI"), "{}", outcome.stderr);

    for overlap in ["comm.overlap=true", "comm.overlap=false"] {
        let by_nccl = TempDir::new().unwrap();
        let outcome = succeed(with_gpus(&mut two_ranks(by_nccl.path(), 8, &[overlap]), &library(&[])));
        assert!(outcome.stderr.contains("computing on GPU 0 of the 8 that this rank sees on "), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("gradients are averaged by NCCL 2.29.7 ("), "{}", outcome.stderr);
        check_same_run(overlap, by_nccl.path(), by_mpi.path());
    }

    // From GPU memory through host memory, and after a resume, whose state is there.
    let through_host = TempDir::new().unwrap();
    let options = ["train.device=cuda", "comm.backend=mpi"];
    for steps in [4, 8] {
        let outcome = succeed(with_gpus(&mut two_ranks(through_host.path(), steps, &options), &library(&[])));
        assert!(outcome.stderr.contains("gradients are averaged by MPI: as configured"), "{}", outcome.stderr);
    }
    check_same_run("through the host", through_host.path(), by_mpi.path());
}

/// What is said when passes are replayed.
const REPLAYED: &str = "passes are replayed as a CUDA graph from here on; its gradient differs by 0e0 of its norm";

/// The library's GPU runs a pass again instead of replaying it, with its inputs in the memory that was recorded: if a pass
/// read anything else that changes, the bits would differ.
#[test]
fn a_recorded_pass_changes_no_bit() {
    let arithmetic = ["train.micro_batch=3", "train.precision=bf16", "model.checkpoint_activations=[true,true]"];
    let model = [
        "model.dropout=0.1",
        "model.classes=10",
        "diffusion.label_dropout=0.1",
        "diffusion.variance=learned_range",
        "diffusion.loss=hybrid",
        "diffusion.timestep_sampler=loss_second_moment",
    ];
    let cases: [(&str, usize, &[&str]); 5] = [
        ("two passes of one rank", 1, &["train.micro_batch=6"]),
        ("three passes of two ranks", 2, &["train.micro_batch=2"]),
        ("one pass of two ranks", 2, &["train.micro_batch=6", "comm.overlap=false"]),
        ("bf16, computed again", 1, &arithmetic),
        ("classes, dropout, a learned variance", 1, &model),
    ];
    for (what, ranks, options) in cases {
        let common = ["train.global_batch=12", "comm.bucket_mb=0.02", "monitor.sample_every=0"];
        let train = |more: &[&str]| {
            let dir = TempDir::new().unwrap();
            let all = [&common[..], options, more].concat();
            let all: Vec<&str> = all.iter().flat_map(|option| ["--set", option]).collect();
            let outcome = succeed(with_gpus(&mut train(ranks, dir.path(), 8, &all), &library(&[])));
            (dir, outcome.stderr)
        };
        let (on_cpu, said) = train(&["train.device=cpu"]);
        assert!(!said.contains("CUDA graph"), "{what}: {said}");
        let (eager, said) = train(&["train.cuda_graphs=off"]);
        assert!(!said.contains("CUDA graph"), "{what}: {said}");
        let (replayed, said) = train(&[]);
        assert!(said.contains(REPLAYED), "{what}: {said}");
        check_same_run(what, eager.path(), on_cpu.path());
        check_same_run(what, replayed.path(), on_cpu.path());
    }
}

#[test]
fn passes_are_recorded_again_after_a_resume() {
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    succeed(&mut two_ranks(dirs[0].path(), 12, &["train.device=cpu"]));
    for (steps, graphs) in [(6, "auto"), (12, "off"), (12, "auto"), (18, "auto")] {
        let option = format!("train.cuda_graphs={graphs}");
        let said = succeed(with_gpus(&mut two_ranks(dirs[1].path(), steps, &[&option]), &library(&[]))).stderr;
        assert_eq!(said.contains(REPLAYED), graphs == "auto" && steps != 12, "to {steps}, {graphs}: {said}");
        if steps == 12 {
            check_same_until(12, "resumed", dirs[1].path(), dirs[0].path());
        }
    }
    succeed(&mut two_ranks(dirs[0].path(), 18, &["train.device=cpu"]));
    check_same_until(18, "resumed again", dirs[1].path(), dirs[0].path());
}

#[test]
fn a_pass_that_cannot_be_recorded_is_not_replayed() {
    let by_mpi = TempDir::new().unwrap();
    succeed(&mut two_ranks(by_mpi.path(), 8, &["train.device=cpu"]));
    for (call, why) in [
        ("cudaStreamBeginCapture", "unknown error (CUDA error 999). "),
        ("cudaStreamEndCapture", "operation failed due to a previous error during capture (CUDA error 901). "),
    ] {
        let dir = TempDir::new().unwrap();
        let mut command = two_ranks(dir.path(), 8, &[]);
        let said = succeed(with_gpus(&mut command, &library(&[])).env("FAKE_FAIL", format!("{call}:1"))).stderr;
        let refused = said.lines().find(|line| line.contains("passes are not recorded as a CUDA graph: "));
        let refused = refused.unwrap_or_else(|| panic!("{said}"));
        assert!(refused.contains(&format!("{call} failed: {why}")), "{refused}");
        assert!(!said.contains(REPLAYED), "{said}");
        check_same_run(call, dir.path(), by_mpi.path());
    }
    // Hooks of the only pass average gradients, and would not run in a replay.
    let dir = TempDir::new().unwrap();
    let said = succeed(with_gpus(&mut two_ranks(dir.path(), 8, &["train.micro_batch=6"]), &library(&[]))).stderr;
    let reason = "passes are not recorded as a CUDA graph: gradients are averaged during the only pass of each step";
    assert!(said.contains(reason), "{said}");
}

/// Each rank sees different GPUs, as with Slurm's `--gpus-per-task`.
#[test]
fn gpus_are_distinguished_whatever_each_rank_sees() {
    let by_mpi = TempDir::new().unwrap();
    succeed(&mut two_ranks(by_mpi.path(), 8, &["train.device=cpu"]));
    let (each, slices, overlapping) = ("3/1", "2.0/2.1", "0,1/1,2");
    for (gpus, by) in
        [(each, "NCCL 2.29.7 ("), ("5,0/0,5", "NCCL 2.29.7 ("), (slices, "MPI: ranks 0 and 1 compute on the same GPU")]
    {
        let dir = TempDir::new().unwrap();
        let outcome = succeed(with_gpus(&mut two_ranks(dir.path(), 8, &[]), &library(&[])).env("FAKE_GPUS", gpus));
        assert!(outcome.stderr.contains("computing on GPU 0 of the "), "{gpus}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(&format!("gradients are averaged by {by}")), "{gpus}: {}", outcome.stderr);
        check_same_run(gpus, dir.path(), by_mpi.path());
    }
    let refused = |gpus: &str, option: &str| {
        let dir = TempDir::new().unwrap();
        let mut command = two_ranks(dir.path(), 1, &[option]);
        let message = refusal(&run(with_gpus(&mut command, &library(&[])).env("FAKE_GPUS", gpus))).to_owned();
        assert!(!dir.path().join("metrics.jsonl").exists(), "{message}");
        message
    };
    let message = refused(overlapping, "train.device=auto");
    assert!(message.starts_with("error: ranks 0 and 1 on ") && message.contains("--gpus-per-task"), "{message}");
    let message = refused(slices, "comm.backend=nccl");
    assert!(message.contains("\"nccl\", but ranks 0 and 1 compute on the same GPU, "), "{message}");
}

#[test]
fn a_nondeterministic_cublas_is_refused() {
    let dir = TempDir::new().unwrap();
    let train = |option: &str| {
        let mut command = two_ranks(dir.path(), 1, &[option]);
        run(with_gpus(&mut command, &library(&[])).env("CUBLAS_WORKSPACE_CONFIG", ":4096:2"))
    };
    let refused = train("train.deterministic=true");
    let message = refusal(&refused);
    assert!(message.contains("CUBLAS_WORKSPACE_CONFIG = \":4096:2\" lets cuBLAS give different bits"), "{message}");
    let allowed = train("train.deterministic=false");
    assert_eq!(allowed.code, 0, "{}", allowed.stderr);
}

#[test]
fn a_dry_run_says_which_memory_it_estimates() {
    let dir = TempDir::new().unwrap();
    for (device, whose) in [("cpu", "of the machine's memory"), ("cuda", "of the GPU's memory, in tensors")] {
        let ask = |more: &[&str]| {
            let mut command = train(1, dir.path(), 1, &["--dry-run", "--set", &format!("train.device={device}")]);
            succeed(with_gpus(command.args(more), &library(&[]))).stdout
        };
        assert!(ask(&[]).contains(whose), "{}", ask(&[]));
        let json: serde_json::Value = serde_json::from_str(&ask(&["--json"])).unwrap();
        assert_eq!(json["memory_mb_per_rank"]["device"], device);
    }
}

/// FLOP/s follow from the network and the speed; the rest is what NVML measures.
#[test]
fn the_use_of_a_gpu_is_in_the_metrics() {
    let settings = Settings::load("smoke", &[]).unwrap();
    let network = Network::new(settings.architecture()).unwrap();
    let weights = Weights::initialise(network.layout(), 0, Device::Cpu).unwrap();
    let flops = network.flops(&weights).unwrap();
    assert!(flops > 1e6, "{flops}");
    for (ranks, more) in [(1, "monitor.peak_tflops=0.5"), (2, "monitor.log_every=1")] {
        let dir = TempDir::new().unwrap();
        let mut command = train(ranks, dir.path(), 2, &["--set", "monitor.sample_every=0", "--set", more]);
        let library = library(&[]);
        // Rank 0 has the GPU number 3.
        let command = with_gpus(&mut command, &library).env("DDPM_NVML_LIB", &library).env("FAKE_GPUS", "3/5");
        if ranks == 2 {
            command.env("FAKE_FAIL", "nvmlDeviceGetPowerUsage:1");
        }
        succeed(command);
        let all = metrics(dir.path());
        // The call that failed.
        assert!(ranks == 1 || all[&1]["gpu_power_w"].is_null(), "{}", all[&1]);
        let found = &all[&2];
        let number = |name: &str| found[name].as_f64();
        let expected = 3.0 * flops * number("images_per_s").unwrap() / ranks as f64 / 1e12;
        assert!((number("tflops").unwrap() / expected - 1.0).abs() < 1e-9, "{found}");
        let mfu = (ranks == 1).then(|| expected / 0.5);
        assert!(number("mfu").zip(mfu).is_none_or(|(found, mfu)| (found / mfu - 1.0).abs() < 1e-9), "{found}");
        assert_eq!((number("mfu").is_some(), number("gpu_power_w")), (ranks == 1, Some(103.0)), "{found}");
        assert_eq!((number("gpu_utilisation"), number("gpu_used_mb")), (Some(83.0), Some(4000.0)), "{found}");
    }
    // Without NVML, and on the CPU.
    let dir = TempDir::new().unwrap();
    let mut command = train(1, dir.path(), 2, &["--set", "monitor.sample_every=0"]);
    succeed(with_gpus(&mut command, &library(&[])).env("DDPM_NVML_LIB", "/nowhere/libnvidia-ml.so.1"));
    let found = metrics(dir.path()).remove(&2).unwrap();
    assert!(found["tflops"].is_f64() && found["gpu_power_w"].is_null() && found["gpu_used_mb"].is_null(), "{found}");
    let dir = TempDir::new().unwrap();
    succeed(&mut train(1, dir.path(), 2, &["--set", "monitor.sample_every=0", "--set", "train.device=cpu"]));
    assert!(metrics(dir.path())[&2].get("tflops").is_none());
}

#[test]
fn one_rank_does_not_need_nccl() {
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    for (dir, device) in dirs.iter().zip(["cpu", "cuda"]) {
        let device = format!("train.device={device}");
        let mut command = train(1, dir.path(), 8, &["--set", &device, "--set", "monitor.sample_every=0"]);
        // A version that is refused wherever it is used.
        succeed(with_gpus(&mut command, &library(&["-DVERSION=21304"])));
    }
    check_same_run("one rank", dirs[1].path(), dirs[0].path());
}

/// The single line of a refusal, with exit code 2.
fn refusal(outcome: &Outcome) -> &str {
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{}", outcome.stderr);
    lines[0]
}

#[test]
fn missing_gpus_are_refused() {
    let dir = TempDir::new().unwrap();
    let asked = run(&mut train(1, dir.path(), 1, &["--set", "train.device=cuda"]));
    let message = refusal(&asked);
    assert!(message.starts_with("error: train.device is \"cuda\", but rank 0 on "), "{message}");
    assert!(message.contains(" has no GPU: ") && message.ends_with("set train.device to \"cpu\""), "{message}");
    let drawing = ["sample", "--model", dir.path().to_str().unwrap(), "--device", "cuda", "--out", "none.png"];
    let asked = run(program().args(drawing));
    assert!(refusal(&asked).starts_with("error: --device is \"cuda\", but rank 0 on "), "{}", asked.stderr);
    let comparing = ["eval", "fid", "--samples", "none.png", "--data", "smoke", "--device", "cuda"];
    let asked = run(program().args(comparing));
    assert!(refusal(&asked).starts_with("error: --device is \"cuda\", but rank 0 on "), "{}", asked.stderr);

    // Two ranks share it if asked to, and then the host averages.
    let shared = TempDir::new().unwrap();
    let mut command = two_ranks(shared.path(), 1, &[]);
    let both = succeed(with_gpus(&mut command, &library(&[])).envs([("FAKE_GPUS", "1"), ("DDPM_SHARE_GPU", "1")]));
    assert!(both.stderr.contains("averaged by MPI: ranks 0 and 1 compute on the same GPU"), "{}", both.stderr);

    let few = run(with_gpus(&mut two_ranks(dir.path(), 1, &[]), &library(&[])).env("FAKE_GPUS", "1"));
    let message = refusal(&few);
    assert!(message.starts_with("error: 2 rank(s) on ") && message.contains(" see the same 1 GPU(s), "), "{message}");
}

/// With a driver, but without the libraries that libtorch's CUDA backend needs: an empty library replaces the driver's.
#[test]
fn a_cuda_backend_that_does_not_load_is_reported() {
    let (dir, libraries) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let source = libraries.path().join("driver.c");
    std::fs::write(&source, "typedef int nothing;\n").unwrap();
    fake::compile(&libraries.path().join("libcuda.so.1"), &["-shared", "-fPIC"], &[source]);
    let train_on_one = |device: &str| train(1, dir.path(), 1, &["--set", &format!("train.device={device}")]);
    let train = |device: &str| {
        let mut command = train_on_one(device);
        run(command.env("LD_LIBRARY_PATH", libraries.path()).env_remove("CUDA_VISIBLE_DEVICES"))
    };
    let asked = train("cuda");
    assert!(refusal(&asked).contains(" has no GPU: libtorch"), "{}", asked.stderr);
    let auto = train("auto");
    assert_eq!(auto.code, 0, "{}", auto.stderr);
    let warning = auto.stderr.lines().find(|line| line.contains("there is an NVIDIA driver on ")).unwrap_or_default();
    assert!(
        warning.starts_with("warning: ") && warning.contains(" but the network computes on the CPU: libtorch"),
        "{warning}"
    );
    assert!(warning.ends_with("or set train.device to \"cpu\" if that is intended"), "{}", auto.stderr);
    // No warning if the GPUs are hidden on purpose.
    let mut command = train_on_one("auto");
    let hidden = run(command.env("LD_LIBRARY_PATH", libraries.path()).env("CUDA_VISIBLE_DEVICES", ""));
    assert!(hidden.stderr.contains("computing on the CPU: libtorch"), "{}", hidden.stderr);
    assert!(!hidden.stderr.contains("there is an NVIDIA driver"), "{}", hidden.stderr);
}

#[test]
fn an_unusable_nccl_is_refused_or_replaced_by_mpi() {
    let refused = |library: &Path, reason: &str| {
        let dir = TempDir::new().unwrap();
        let nccl = run(with_gpus(&mut two_ranks(dir.path(), 2, &["comm.backend=nccl"]), library));
        let message = refusal(&nccl);
        assert!(message.starts_with("error: comm.backend is \"nccl\", but rank 0 cannot use NCCL: "), "{message}");
        assert!(message.contains(reason), "{message}");
    };
    let old = library(&["-DVERSION=21304"]);
    refused(&old, " is NCCL 2.13.4, but at least 2.14.0 is required. ");
    refused(&library(&["-DncclAllReduce=removed"]), " has no function `ncclAllReduce`. ");
    let dir = TempDir::new().unwrap();
    let auto = succeed(with_gpus(&mut two_ranks(dir.path(), 2, &[]), &old));
    let said = "gradients are averaged by MPI: rank 0 cannot use NCCL: ";
    assert!(auto.stderr.contains(said), "{}", auto.stderr);
}

#[test]
fn failures_of_nccl_and_cuda_end_the_training() {
    for (variable, call, message) in [
        ("FAKE_FAIL", "ncclAllReduce:14", "ncclAllReduce failed: unhandled system error (failed on purpose). "),
        ("FAKE_FAIL", "ncclGroupEnd:14", "ncclGroupEnd failed: unhandled system error"),
        ("FAKE_FAIL", "cudaEventRecord:14", "cudaEventRecord failed: unknown error (CUDA error 999). "),
        ("FAKE_FAIL", "cudaStreamWaitEvent:12", "cudaStreamWaitEvent failed: unknown error"),
        ("FAKE_ASYNC", "ncclAllReduce:14", "an NCCL operation on the GPU failed: remote process exited"),
        ("FAKE_HANG", "ncclAllReduce:14", ": waited 2 s in gradient bucket "),
    ] {
        let dir = TempDir::new().unwrap();
        let mut command = two_ranks(dir.path(), 1000, &["comm.timeout_s=2"]);
        let outcome = run(with_gpus(&mut command, &library(&[])).envs([(variable, call), ("FAKE_RANK", "1")]));
        assert_eq!(outcome.code, 1, "{variable}={call}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(message), "{variable}={call}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{variable}={call}: {}", outcome.stderr);
    }
}
