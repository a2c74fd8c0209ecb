//! Ranks with GPUs, under a real mpirun, over the stand-in for NCCL and CUDA of nccl-rs: what they compute, what they
//! refuse, and that every failure ends the run with a message.

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

/// Cargo builds examples along with tests, in the folder beside the tests' own.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its path");
    let example = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").join("examples/gpu");
    assert!(example.exists(), "build it: cargo build --release -p ddpm-comm --example gpu");
    example
}

/// The only line, without what follows the text.
fn only(lines: &[String]) -> &str {
    assert_eq!(lines.len(), 1, "{lines:#?}");
    &lines[0]
}

#[test]
fn nccl_agrees_with_mpi_to_the_last_bit() {
    let (code, lines) = run("check", &[]);
    assert_eq!((code, lines.len()), (0, 3), "{lines:#?}");
    let picked = lines.iter().find(|line| line.starts_with("gradients are averaged by NCCL 2.29.7 ("));
    assert!(picked.is_some_and(|line| line.ends_with("): each of 2 rank(s) has a GPU")), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| *line == "checked").count(), 2);
}

#[test]
fn auto_picks_what_there_is_and_says_so() {
    let (code, lines) = run("auto", &[]);
    assert!(code == 0 && only(&lines).starts_with("gradients are averaged by NCCL "), "{lines:#?}");
    let (code, lines) = run("auto", &[("FAKE_GPUS", "1")]);
    let by_mpi =
        "gradients are averaged by MPI: rank 1 cannot use NCCL: it is to compute on GPU 1, and sees 1 GPU(s) on ";
    assert!(code == 0 && only(&lines).starts_with(by_mpi), "{lines:#?}");
    // Each rank sees one GPU only, its own: number 0 on both.
    let (code, lines) = run("auto-first", &[("FAKE_GPUS", "3/1")]);
    assert!(code == 0 && only(&lines).starts_with("gradients are averaged by NCCL "), "{lines:#?}");
    // Slices of one GPU, or simply the same one.
    for gpus in ["3.0/3.1", "2"] {
        let (code, lines) = run("auto-first", &[("FAKE_GPUS", gpus)]);
        let by_mpi = "gradients are averaged by MPI: ranks 0 and 1 compute on one GPU, ";
        assert!(code == 0 && only(&lines).starts_with(by_mpi), "{gpus}: {lines:#?}");
    }
    let (code, lines) = run("auto-cpu", &[]);
    assert_eq!((code, only(&lines)), (0, "gradients are averaged by MPI: the network computes on the CPU"));
}

#[test]
fn what_nccl_cannot_serve_is_refused_by_all_ranks() {
    let refused = |library: &Path, scenario, variables: &[_], reason: &str| {
        let (code, lines) = run_over(library, scenario, variables);
        let line = only(&lines);
        let start = format!("refused: comm.backend is \"nccl\", but {reason}");
        assert!(code == 0 && line.starts_with(&start), "{line}");
        assert!(line.ends_with("; or set comm.backend to \"mpi\" or \"auto\""), "{line}");
    };
    let whole = &library(&[]);
    refused(whole, "cpu", &[], "the network computes on the CPU, ");
    let host = World::init().expect("a test is not started by mpirun").host().to_owned();
    for (gpus, rank) in [("0", 0), ("1", 1)] {
        let reason = format!(
            "rank {rank} cannot use NCCL: it is to compute on GPU {rank}, and sees {gpus} GPU(s) on {host}. Start at most"
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
        &format!("rank 0 cannot use NCCL: {} is NCCL 2.13.4, but at least 2.14.0 is needed. ", old.display()),
    );
    let incomplete = library(&["-DncclCommGetAsyncError=removed"]);
    let reason = format!("rank 0 cannot use NCCL: {} has no function `ncclCommGetAsyncError`. ", incomplete.display());
    refused(&incomplete, "steps", &[], &reason);
}

/// The run ends with `code` and a line of rank 1 (`rank 1 step S: ` where a step had begun) that goes on with `message`.
fn ends(variables: &[(&str, &str)], code: i32, message: &str) {
    let (seen, lines) = run("steps", &[variables, &[("FAKE_RANK", "1")]].concat());
    let found = lines.iter().any(|line| line.starts_with("rank 1") && line.contains(&format!(": {message}")));
    assert!(seen == code && found, "{variables:?}, code {seen}: {lines:#?}");
}

#[test]
fn a_call_that_fails_ends_the_run() {
    let words = "unhandled system error (failed on purpose). Run again with NCCL_DEBUG=WARN";
    ends(&[("FAKE_FAIL", "ncclCommInitRank:1")], 2, &format!("ncclCommInitRank failed: {words}"));
    for (call, name) in [
        ("ncclAllReduce:3", "ncclAllReduce"),
        ("ncclBroadcast:2", "ncclBroadcast"),
        ("ncclGroupStart:4", "ncclGroupStart"),
        ("ncclGroupEnd:2", "ncclGroupEnd"),
        ("ncclCommGetAsyncError:1", "ncclCommGetAsyncError"),
        ("ncclCommFinalize:1", "ncclCommFinalize"),
        ("ncclCommDestroy:1", "ncclCommDestroy"),
    ] {
        ends(&[("FAKE_FAIL", call)], 1, &format!("{name} failed: {words}"));
    }
}

#[test]
fn a_call_of_cuda_that_fails_ends_the_run() {
    let words = "failed: unknown error (CUDA error 999). See nvidia-smi";
    for call in ["cudaSetDevice", "cudaStreamCreateWithFlags"] {
        ends(&[("FAKE_FAIL", &format!("{call}:1"))], 2, &format!("{call} {words}"));
    }
    for call in ["cudaEventCreateWithFlags", "cudaEventRecord", "cudaStreamWaitEvent", "cudaMalloc", "cudaMemcpyAsync"]
    {
        ends(&[("FAKE_FAIL", &format!("{call}:3"))], 1, &format!("{call} {words}"));
    }
    ends(&[("FAKE_FAIL", "cudaEventQuery:1")], 1, &format!("cudaEventQuery {words}"));
}

#[test]
fn an_asynchronous_error_ends_the_run() {
    let message =
        "an NCCL operation on the GPU failed: remote process exited or there was a network error (a peer is gone";
    ends(&[("FAKE_ASYNC", "ncclAllReduce:3")], 1, message);
}

#[test]
fn ranks_that_call_differently_end_the_run() {
    let (code, lines) = run("uneven", &[]);
    let message = " step 2: an NCCL operation on the GPU failed: invalid usage (the ranks make different calls)";
    assert!(code == 1 && lines.iter().any(|line| line.contains(message)), "{lines:#?}");
}

#[test]
fn what_hangs_ends_with_the_watchdog() {
    for (call, place) in [
        ("ncclCommInitRank:1", "NCCL's start"),
        ("ncclAllReduce:3", "all_reduce on the GPU"),
        ("ncclBroadcast:1", "broadcast on the GPU"),
        ("ncclGroupEnd:1", "all_reduce on the GPU"),
        ("ncclCommFinalize:1", "finish"),
    ] {
        let (code, lines) = run("steps", &[("FAKE_HANG", call), ("FAKE_RANK", "1")]);
        let message = format!(": waited 1.5 s in {place}: a peer is frozen or the network is down. ");
        assert!(code == 1 && lines.iter().any(|line| line.contains(&message)), "{call}, code {code}: {lines:#?}");
    }
}
