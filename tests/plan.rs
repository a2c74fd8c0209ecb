//! `plan` predicts the cost of a run from its configuration, with the parameters and the memory of `train --dry-run`.

use crate::common::{mpirun, program, succeed};
use serde_json::Value;

/// What `plan` prints for the smoke preset.
fn plan(words: &str) -> Value {
    let mut command = program();
    command.args(["plan", "--config", "smoke", "--json"]).args(words.split_whitespace());
    serde_json::from_str(&succeed(&mut command).stdout).unwrap()
}

fn number(plan: &Value, key: &str) -> f64 {
    plan[key].as_f64().unwrap_or_else(|| panic!("{key} is not a number: {plan}"))
}

#[test]
fn it_starts_from_the_sizes_of_the_run() {
    let eight = plan("--gpus 8 --gpu h100 --set train.steps=500");
    assert_eq!(
        (&eight["parameters"], &eight["images_per_gpu"], &eight["nodes"]),
        (&42521.into(), &2.into(), &1.into())
    );
    assert_eq!(
        (&eight["algorithm"], &eight["assumed_mfu"], &eight["steps"]),
        (&"tree".into(), &0.3.into(), &500.into())
    );
    // Weights, two moments and one average; in memory also gradients.
    assert!((number(&eight, "checkpoint_mb") - 4.0 * 4e-6 * 42521.0).abs() < 1e-9, "{eight}");
    assert!(number(&eight, "memory_mb") > 1.25 * number(&eight, "checkpoint_mb"), "{eight}");
    let split = plan("--gpus 8 --gpu h100 --gpus-per-node 4 --network-gbit 1");
    assert_eq!(split["nodes"], 2);
    assert!(number(&split, "step_s") > number(&eight, "step_s"));
}

/// Without communication, a step takes as long as the measured speed says, which is that of `bench step`.
#[test]
fn a_rank_computes_at_the_given_speed() {
    let mut bench = mpirun(1);
    bench.args(["bench", "step", "--config", "smoke", "--json", "--steps", "5", "--warmup", "1"]);
    let measured: Value = serde_json::from_str(&succeed(&mut bench).stdout).unwrap();
    let predicted = plan(&format!("--gpus 1 --gpu cpu --jitter 0 --tflops {}", number(&measured, "tflops")));
    let ratio = number(&predicted, "images_per_s") / number(&measured, "images_per_s");
    assert!((ratio - 1.0).abs() < 1e-6, "{predicted} and {measured}");
}

#[test]
fn a_model_that_does_not_fit_gets_advice() {
    let huge = "data.image_size=64 train.global_batch=16384 model.channels=[32,64] model.attention=[false,false]";
    let sets = huge.split(' ').flat_map(|set| ["--set", set]);
    let mut command = program();
    command.args(["plan", "--config", "smoke", "--gpus", "1", "--gpu", "rtx4090", "--images", "512"]).args(sets);
    let outcome = succeed(&mut command);
    assert!(
        outcome.stdout.contains("does not fit into the memory of a rtx4090. Set train.micro_batch"),
        "{}",
        outcome.stdout
    );
}
