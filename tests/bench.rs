//! The reports of `bench` are correct on any number of ranks, and it leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{mpirun, succeed, train};

/// The keys that every benchmark reports; null if not measured.
const HEAD: [&str; 14] = [
    "world",
    "device",
    "threads",
    "params",
    "batch_per_rank",
    "images_per_s",
    "tflops",
    "mfu",
    "median_step_s",
    "first_step_s",
    "max_rss_mb",
    "comm_wait_s",
    "data_wait_s",
    "gpu_reserved_mb",
];
/// Parameters of the smoke preset's network, and images of its global batch.
const PARAMS: u64 = 42521;
const BATCH: u64 = 16;

/// Runs a benchmark of the smoke preset on `ranks` ranks, checks that it left nothing behind, and returns its report.
fn bench(ranks: usize, words: &str, keys: &[&str]) -> Value {
    let dir = TempDir::new().unwrap();
    let run = dir.path().join("run");
    let mut command = mpirun(ranks);
    command.arg("bench").args(words.split_whitespace()).args(["--config", "smoke", "--json", "--set"]);
    command.arg(format!("run.dir={}", run.display())).env("TMPDIR", dir.path());
    let outcome = succeed(&mut command);
    assert!(!run.exists(), "the user's run directory was touched");
    let left = |name: &Path| name.file_name().is_some_and(|n| n.to_string_lossy().starts_with("ddpm-dist-bench"));
    assert!(fs::read_dir(dir.path()).unwrap().all(|entry| !left(&entry.unwrap().path())), "something was left behind");
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", outcome.stdout));
    let found: BTreeSet<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, keys.iter().copied().collect(), "keys of {words}");
    assert_eq!(report["world"], ranks);
    report
}

fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().unwrap_or_else(|| panic!("{key} is not a number: {report}"))
}

/// Asserts that all these numbers are positive.
fn check_positive(report: &Value, keys: &[&str]) {
    let other: Vec<&&str> = keys.iter().filter(|key| number(report, key) <= 0.0).collect();
    assert!(other.is_empty(), "{other:?} should be above 0: {report}");
}

#[test]
fn benchmark_steps_match_training() {
    for ranks in [1, 2] {
        let own = [
            "steps",
            "images_per_s",
            "tflops",
            "median_step_s",
            "first_step_s",
            "max_rss_mb",
            "comm_wait_s",
            "data_wait_s",
        ];
        let report = bench(ranks, "step --steps 4 --warmup 1", &[&HEAD[..], &own].concat());
        check_positive(&report, &own);
        assert_eq!((&report["params"], &report["steps"]), (&PARAMS.into(), &4.into()));
        assert_eq!(report["batch_per_rank"], BATCH / ranks as u64);
        assert!(number(&report, "first_step_s") > number(&report, "data_wait_s"), "{report}");
        assert!(number(&report, "max_rss_mb") > 4e-6 * 4.0 * PARAMS as f64, "{report}");
    }
}

/// Asserts that the trace shows five steps with their operators, forward and backward, and their phases.
fn check_trace(path: &Path, phases: &[&str]) {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let trace: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let count = |category: &str, name: &str| {
        let events = trace["traceEvents"].as_array().unwrap().iter();
        events.filter(|event| event["cat"] == category && event["name"] == name && event["ph"] == "X").count()
    };
    for phase in phases {
        assert_eq!(count("user_annotation", phase), 5, "{phase} in {}", path.display());
    }
    let convolutions = count("cpu_op", "aten::conv2d");
    assert!(convolutions > 0 && convolutions.is_multiple_of(5), "{convolutions} convolutions");
    for operator in ["ConvolutionBackward0", "aten::convolution_backward"] {
        assert_eq!(count("cpu_op", operator), convolutions, "{operator} in {}", path.display());
    }
}

#[test]
fn steps_are_traced_on_every_rank() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let phases = ["step", "data wait", "forward", "backward", "gradient average", "clip", "optimizer", "EMA"];
    let mut command = mpirun(2);
    command.args(["bench", "step", "--config", "smoke", "--steps", "1", "--json", "--profile"]);
    let outcome = succeed(command.arg(path("trace.json")).env("TMPDIR", dir.path()));
    for rank in 0..2 {
        check_trace(&path(&format!("trace.rank{rank}.json")), &phases);
    }
    assert!(outcome.stderr.contains("aten::convolution_backward\n"), "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with('{') && outcome.stdout.lines().count() == 1, "{}", outcome.stdout);

    let alone = path("alone.json");
    succeed(&mut train(1, &path("run"), 12, &["--profile", alone.to_str().unwrap()]));
    check_trace(&alone, &phases);
}

/// With a model dominated by activations, the estimate of a dry run matches the memory of a training run.
#[test]
fn a_dry_run_estimates_the_memory_of_training() {
    let sizes = [
        "data.image_size=32",
        "model.channels=[32,64]",
        "model.attention=[false,true]",
        "model.layers_per_block=2",
        "train.global_batch=64",
        "monitor.sample_every=0",
    ];
    let mut activations = Vec::new();
    // Then f32 copies are kept in addition to bf16 tensors.
    let mut emulated = false;
    for other in ["train.precision=fp32", "train.precision=bf16", "model.checkpoint_activations=[true,true]"] {
        let mut ask = |words: &str| {
            let mut command = mpirun(1);
            command.args(words.split_whitespace()).args(["--config", "smoke", "--json"]);
            command.args(sizes.iter().chain([&other]).flat_map(|set| ["--set", set]));
            let outcome = succeed(&mut command);
            emulated |= outcome.stderr.contains("has no bf16 instructions");
            serde_json::from_str::<Value>(&outcome.stdout).unwrap()
        };
        let estimate = &ask("train --dry-run")["memory_mb_per_rank"];
        let measured = number(&ask("bench step --steps 2 --warmup 1"), "max_rss_mb");
        let total = number(estimate, "total");
        let parts: f64 =
            ["process", "state", "activations", "temporaries", "holes"].map(|part| number(estimate, part)).iter().sum();
        assert!((total - parts).abs() < 1e-6 * total, "{estimate}");
        assert!((total - measured).abs() < 0.15 * measured, "{other}: {measured} MB measured, {estimate} estimated");
        activations.push(number(estimate, "activations"));
    }
    let [full, half, checkpointed] = activations[..] else { unreachable!("three runs") };
    let limit = if emulated { 1.0 } else { 0.65 };
    assert!(half < limit * full && checkpointed < 0.5 * full, "{activations:?}");
}

#[test]
fn freed_memory_is_kept_for_the_next_step() {
    // The allocator reports its options and where it found them.
    let outcome = succeed(mpirun(1).arg("--version").env("MALLOC_CONF", "confirm_conf:true"));
    assert!(outcome.stderr.contains("dirty_decay_ms:-1"), "{}", outcome.stderr);
}

#[test]
fn memory_moves_into_huge_pages_once_it_has_grown() {
    let moved = |steps: &str| {
        let mut command = mpirun(1);
        command.args(["bench", "step", "--config", "smoke", "--warmup", "0", "--steps", steps]);
        let outcome = succeed(command.env("RUST_LOG", "debug"));
        let line = outcome.stderr.lines().find(|line| line.ends_with(" huge pages of 2 MiB are in use"))?;
        line.split(' ').rev().nth(8)?.parse::<u64>().ok()
    };
    assert_eq!(moved("1"), None);
    // Several steps, because the amount moved before a step is limited.
    let moved = moved("20").expect("it is logged");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split(['.', '-']).take(2).map(|number| number.parse().unwrap()).collect();
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or("[never]".into());
    assert_eq!(
        moved > 0,
        version >= vec![6, 1] && !setting.contains("[never]"),
        "{moved} in Linux {release}, {setting}"
    );
}

#[test]
fn the_all_reduce_baseline_moves_the_same_number_of_bytes() {
    let own = ["bytes", "buckets", "repeat", "median_s", "plain_median_s", "ratio", "mb_s"];
    let report = bench(2, "allreduce --repeat 3", &[&HEAD[..], &own].concat());
    check_positive(&report, &[&own[..], &["comm_wait_s", "max_rss_mb"]].concat());
    assert_eq!(report["bytes"], 4 * PARAMS);
    let ratio = number(&report, "median_s") / number(&report, "plain_median_s");
    assert!((ratio - number(&report, "ratio")).abs() < 1e-9 * ratio, "{report}");
}

#[test]
fn the_loader_counts_the_images_of_all_ranks() {
    for ranks in [1, 2] {
        let report = bench(
            ranks,
            "loader --steps 8",
            &[&HEAD[..], &["workers", "images", "images_per_cpu_s", "data_requests", "data_mb"]].concat(),
        );
        check_positive(&report, &["workers", "batch_per_rank", "images_per_s", "max_rss_mb", "data_wait_s"]);
        assert!(report["params"].is_null() && report["median_step_s"].is_null(), "{report}");
        assert_eq!(report["images"], 8 * BATCH);
        let rate = 8.0 * BATCH as f64 / number(&report, "data_wait_s");
        assert!((rate - number(&report, "images_per_s")).abs() < 1e-9 * rate, "{report}");
    }
}

#[test]
fn checkpoints_are_saved_and_restored() {
    for ranks in [1, 2] {
        let own = [
            "repeat",
            "state_mb",
            "upload_mb_s",
            "restore_mb_s",
            "stall_s",
            "save_s",
            "restore_s",
            "read_s",
            "peak_above_state_mb",
            "snapshot_mb",
        ];
        let report = bench(ranks, "checkpoint --repeat 2", &[&HEAD[..], &own].concat());
        check_positive(&report, &own);
        // Weights, two moments and one moving average.
        let state = number(&report, "state_mb");
        assert!((state - 4e-6 * 4.0 * PARAMS as f64).abs() < 1e-9, "{report}");
        assert!((number(&report, "snapshot_mb") - state / ranks as f64).abs() < 1e-9, "{report}");
        assert!(number(&report, "stall_s") < number(&report, "save_s"), "{report}");
    }
}

#[test]
fn background_and_foreground_saves_are_both_measured() {
    let own = [
        "steps",
        "every",
        "saves",
        "state_mb",
        "without_s",
        "background_s",
        "background_held_s",
        "background_share",
        "foreground_s",
        "foreground_held_s",
        "foreground_share",
    ];
    let report = bench(2, "checkpoint --steps 4 --every 2 --repeat 2", &[&HEAD[..], &own].concat());
    check_positive(&report, &own);
    assert_eq!((&report["steps"], &report["saves"]), (&8.into(), &4.into()));
    for manner in ["background", "foreground"] {
        let share = number(&report, &format!("{manner}_share"));
        let held = number(&report, &format!("{manner}_held_s")) / number(&report, &format!("{manner}_s"));
        assert!(share < 1.0 && (share - held).abs() < 1e-9, "{manner}: {report}");
    }
}
