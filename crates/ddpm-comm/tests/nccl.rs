//! Ranks with GPUs, under a real mpirun, with the fake NCCL and CUDA library of nccl-rs: their results, their refusals,
//! and that every failure ends the run with a message.

use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../../nccl-rs/tests/fake/mod.rs"]
mod fake;
mod job;

use ddpm_comm::World;
use job::Job;

/// Runs `gpu SCENARIO` (examples/gpu.rs) on two ranks; returns mpirun's code and the lines.
fn run(scenario: &str, variables: &[(&str, &str)]) -> (i32, Vec<String>) {
    run_over(&library(&[]), scenario, variables)
}

fn run_over(library: &Path, scenario: &str, variables: &[(&str, &str)]) -> (i32, Vec<String>) {
    let mut mpirun = Command::new("mpirun");
    mpirun.args(["--quiet", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1", "-np", "2"]);
    mpirun.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    mpirun.envs([("DDPM_NCCL_LIB", library), ("DDPM_CUDART_LIB", library)]);
    let (code, mut lines) = Job::start(mpirun.envs(variables.iter().copied()).arg(example()).arg(scenario)).end();
    lines.retain(|line| !line.starts_with("pid "));
    (code, lines)
}

fn library(options: &[&str]) -> PathBuf {
    fake::library(env!("CARGO_TARGET_TMPDIR"), options)
}

/// Cargo builds examples together with tests, in a folder next to that of the tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let example = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").join("examples/gpu");
    assert!(example.exists(), "build it: cargo build --release -p ddpm-comm --example gpu");
    example
}

/// The only line of output.
fn only(lines: &[String]) -> &str {
    assert_eq!(lines.len(), 1, "{lines:#?}");
    &lines[0]
}

#[test]
fn nccl_agrees_with_mpi_to_the_last_bit() {
    let (code, lines) = run("check", &[]);
    assert_eq!((code, lines.len()), (0, 3), "{lines:#?}");
    let chosen = lines.iter().find(|line| line.starts_with("gradients are averaged by NCCL 2.29.7 ("));
    assert!(chosen.is_some_and(|line| line.ends_with("): each of 2 rank(s) has a GPU")), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| *line == "checked").count(), 2);
}

#[test]
fn auto_chooses_an_available_transport_and_logs_it() {
    let (code, lines) = run("auto", &[]);
    assert!(code == 0 && only(&lines).starts_with("gradients are averaged by NCCL "), "{lines:#?}");
    let (code, lines) = run("auto", &[("FAKE_GPUS", "1")]);
    let by_mpi = "gradients are averaged by MPI: rank 1 cannot use NCCL: it needs GPU 1, but sees 1 GPU(s) on ";
    assert!(code == 0 && only(&lines).starts_with(by_mpi), "{lines:#?}");
    // Each rank sees only its own GPU, as number 0.
    let (code, lines) = run("auto-first", &[("FAKE_GPUS", "3/1")]);
    assert!(code == 0 && only(&lines).starts_with("gradients are averaged by NCCL "), "{lines:#?}");
    // Slices of one GPU, or the same GPU.
    for gpus in ["3.0/3.1", "2"] {
        let (code, lines) = run("auto-first", &[("FAKE_GPUS", gpus)]);
        let by_mpi = "gradients are averaged by MPI: ranks 0 and 1 compute on the same GPU, ";
        assert!(code == 0 && only(&lines).starts_with(by_mpi), "{gpus}: {lines:#?}");
    }
    let (code, lines) = run("auto-cpu", &[]);
    assert_eq!((code, only(&lines)), (0, "gradients are averaged by MPI: the network computes on the CPU"));
}

#[test]
fn unsupported_setups_are_refused_by_all_ranks() {
    let refused = |library: &Path, scenario, variables: &[_], reason: &str| {
        let (code, lines) = run_over(library, scenario, variables);
        let line = only(&lines);
        let start = format!("refused: comm.backend is \"nccl\", but {reason}");
        assert!(code == 0 && line.starts_with(&start), "{line}");
        assert!(line.ends_with("; or set comm.backend to \"mpi\" or \"auto\""), "{line}");
    };
    let whole = &library(&[]);
    refused(whole, "cpu", &[], "the network computes on the CPU, ");
    let host = World::init().expect("tests are not started by mpirun").host().to_owned();
    for (gpus, rank) in [("0", 0), ("1", 1)] {
        let reason = format!(
            "rank {rank} cannot use NCCL: it needs GPU {rank}, but sees {gpus} GPU(s) on {host}. Start at most"
        );
        refused(whole, "steps", &[("FAKE_GPUS", gpus)], &reason);
    }
    let no_driver = [("FAKE_FAIL", "cudaGetDeviceCount:1"), ("FAKE_RANK", "1")];
    refused(
        whole,
        "steps",
        &no_driver,
        "rank 1 cannot use NCCL: cudaGetDeviceCount failed: unknown error (CUDA error 999). ",
    );
    refused(whole, "steps", &[("FAKE_FAIL", "ncclGetUniqueId:1")], "rank 0 cannot use NCCL: ncclGetUniqueId failed: ");
    refused(Path::new("/nowhere/lib.so"), "steps", &[], "rank 0 cannot use NCCL: /nowhere/lib.so cannot be loaded (");
    let old = library(&["-DVERSION=21304"]);
    refused(
        &old,
        "steps",
        &[],
        &format!("rank 0 cannot use NCCL: {} is NCCL 2.13.4, but at least 2.14.0 is required. ", old.display()),
    );
    let incomplete = library(&["-DncclCommGetAsyncError=removed"]);
    let reason = format!("rank 0 cannot use NCCL: {} has no function `ncclCommGetAsyncError`. ", incomplete.display());
    refused(&incomplete, "steps", &[], &reason);
}

/// Asserts that the run ends with `code` and a line of rank 1 (`rank 1 step S: ` if a step had begun) that continues
/// with `message`.
fn ends(variables: &[(&str, &str)], code: i32, message: &str) {
    let (seen, lines) = run("steps", &[variables, &[("FAKE_RANK", "1")]].concat());
    let found = lines.iter().any(|line| line.starts_with("rank 1") && line.contains(&format!(": {message}")));
    assert!(seen == code && found, "{variables:?}, code {seen}: {lines:#?}");
}

#[test]
fn a_failed_nccl_call_ends_the_run() {
    let message = "unhandled system error (failed on purpose). Run again with NCCL_DEBUG=WARN";
    ends(&[("FAKE_FAIL", "ncclCommInitRank:1")], 2, &format!("ncclCommInitRank failed: {message}"));
    for (call, name) in [
        ("ncclAllReduce:3", "ncclAllReduce"),
        ("ncclGroupStart:4", "ncclGroupStart"),
        ("ncclGroupEnd:2", "ncclGroupEnd"),
        ("ncclCommGetAsyncError:1", "ncclCommGetAsyncError"),
        ("ncclCommFinalize:1", "ncclCommFinalize"),
        ("ncclCommDestroy:1", "ncclCommDestroy"),
    ] {
        ends(&[("FAKE_FAIL", call)], 1, &format!("{name} failed: {message}"));
    }
}

#[test]
fn a_failed_cuda_call_ends_the_run() {
    let message = "failed: unknown error (CUDA error 999). See nvidia-smi";
    for call in ["cudaSetDevice", "cudaStreamCreateWithFlags"] {
        ends(&[("FAKE_FAIL", &format!("{call}:1"))], 2, &format!("{call} {message}"));
    }
    for call in ["cudaEventCreateWithFlags", "cudaEventRecord", "cudaStreamWaitEvent", "cudaMalloc", "cudaMemcpyAsync"]
    {
        ends(&[("FAKE_FAIL", &format!("{call}:3"))], 1, &format!("{call} {message}"));
    }
    ends(&[("FAKE_FAIL", "cudaEventQuery:1")], 1, &format!("cudaEventQuery {message}"));
}

#[test]
fn an_asynchronous_error_ends_the_run() {
    let message =
        "an NCCL operation on the GPU failed: remote process exited or there was a network error (a peer is gone";
    ends(&[("FAKE_ASYNC", "ncclAllReduce:3")], 1, message);
}

#[test]
fn mismatched_calls_end_the_run() {
    let (code, lines) = run("uneven", &[]);
    let message = " step 2: an NCCL operation on the GPU failed: invalid usage (the ranks make different calls)";
    assert!(code == 1 && lines.iter().any(|line| line.contains(message)), "{lines:#?}");
}

#[test]
fn the_watchdog_ends_a_run_that_hangs() {
    for (call, place) in [
        ("ncclCommInitRank:1", "NCCL initialization"),
        ("ncclAllReduce:3", "gradient bucket 1 of 2"),
        ("ncclAllReduce:2", "gradient bucket 2 of 2"),
        ("ncclGroupEnd:1", "gradient bucket 1 of 2"),
        ("ncclCommFinalize:1", "finish"),
    ] {
        let (code, lines) = run("steps", &[("FAKE_HANG", call), ("FAKE_RANK", "1")]);
        let message = format!(": waited 1.5 s in {place}: a peer is frozen or the network is down. ");
        assert!(code == 1 && lines.iter().any(|line| line.contains(&message)), "{call}, code {code}: {lines:#?}");
    }
}
