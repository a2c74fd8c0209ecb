//! A classifier of noised images: trained like any model, it guides samples to their class and classifies images.

use std::path::Path;
use std::process::Command;

use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

use crate::common;
use crate::common::{buffers, check_same_bits, metrics, mpirun, program, run, succeed, train};

/// `train-classifier` on the drawn digits: down to 2x2 pixels, where the mean over positions learns fast.
fn train_classifier(ranks: usize, dir: &Path, steps: u64, more: &[&str]) -> Command {
    let mut command = mpirun(ranks);
    command.args(["train-classifier", "--config", "smoke", "--steps", &steps.to_string()]);
    command.arg("--set").arg(format!("run.dir={}", dir.display()));
    for set in [
        "model.classes=10",
        "model.channels=[16,32,32,32]",
        "model.attention=[false,false,false,false]",
        "data.count=4096",
        "train.global_batch=32",
        "train.lr=5e-3",
        "ema.rates=[0.95]",
        "monitor.tensorboard=false",
    ] {
        command.args(["--set", set]);
    }
    command.args(more);
    command
}

/// The output of `eval classes --json`.
fn judge(classifier: &Path, of: &[&str]) -> Value {
    let mut command = program();
    command.args(["eval", "classes", "--json", "--classifier"]).arg(classifier).args(of);
    serde_json::from_str(&succeed(&mut command).stdout).unwrap()
}

fn samples(file: &Path) -> Vec<f32> {
    let bytes = std::fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensor("samples").unwrap().data().as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect()
}

/// Asserts that `command` ends with exit code `code` and reports both what is wrong and how to fix it.
fn check_refused(command: &mut Command, code: i32, wrong: &str, fix: &str) {
    let outcome = run(command);
    let said = &outcome.stderr;
    assert_eq!(outcome.code, code, "{command:?}: {said}");
    assert!(said.contains(wrong) && said.contains(fix), "{command:?} says neither {wrong:?} nor {fix:?}: {said}");
}

#[test]
fn a_classifier_resumes_bit_for_bit_and_learns_equally_on_any_number_of_ranks() {
    let dirs = [1usize, 2, 2].map(|ranks| (ranks, TempDir::new().unwrap()));
    let dropout = ["--set", "model.dropout=0.1", "--set", "checkpoint.every=10"];
    for (i, (ranks, dir)) in dirs.iter().enumerate() {
        if i == 2 {
            succeed(&mut train_classifier(*ranks, dir.path(), 10, &dropout));
        }
        let outcome = succeed(&mut train_classifier(*ranks, dir.path(), 20, &dropout));
        assert_eq!(outcome.stderr.contains("resuming from step 10"), i == 2, "{}", outcome.stderr);
    }
    let [one, two, resumed] = dirs.each_ref().map(|(_, dir)| dir.path());
    check_same_bits("after 10 + 10 steps", &buffers(resumed, 20), &buffers(two, 20));
    let (one, two) = (metrics(one), metrics(two));
    assert_eq!(one.len(), 20);
    for (step, line) in &one {
        let ([a, b], other) = (["loss", "accuracy"].map(|key| line[key].as_f64().unwrap()), &two[step]);
        assert!((a - other["loss"].as_f64().unwrap()).abs() < 1e-4 * a, "{line} on one rank, {other} on two");
        // A tie may be decided either way; one image of 32 is 0.031.
        assert!((b - other["accuracy"].as_f64().unwrap()).abs() < 0.04, "{line} on one rank, {other} on two");
        assert!(line["mse"].is_null() && line.get("accuracy_q0").is_some(), "{line}");
    }
    assert!((one[&1]["loss"].as_f64().unwrap() - 10f64.ln()).abs() < 1e-5, "it starts undecided: {}", one[&1]);
}

#[test]
fn a_trained_classifier_classifies_digits_and_guides_samples() {
    let dir = TempDir::new().unwrap();
    let (classifier, model) = (dir.path().join("classifier"), dir.path().join("model"));
    succeed(&mut train_classifier(2, &classifier, 200, &["--set", "checkpoint.every=200"]));
    let held_out = judge(&classifier, &["--split", "test", "-n", "200"]);
    assert!(held_out["accuracy"].as_f64().unwrap() > 0.7, "{held_out}");
    let accuracy_at = |t: &str| judge(&classifier, &["--split", "test", "-n", "200", "-t", t])["accuracy"].clone();
    let [little, all] = ["5", "99"].map(|t| accuracy_at(t).as_f64().unwrap());
    assert!(little > 0.6 && all < 0.3, "accuracy {little} with little noise, {all} with nothing else");
    let last: Vec<f64> =
        metrics(&classifier).values().rev().take(50).filter_map(|l| l["accuracy_q0"].as_f64()).collect();
    let mean = last.iter().sum::<f64>() / last.len() as f64;
    assert!(mean > 0.6, "accuracy {mean} where there is little noise");

    let plain = ["--set", "monitor.sample_every=0", "--set", "monitor.tensorboard=false", "--set", "train.lr=3e-3"];
    succeed(&mut train(1, &model, 150, &plain));
    let draw = |ranks: usize, sampler: &str, scale: &str| {
        let out = dir.path().join(format!("{sampler}-{scale}-{ranks}.safetensors"));
        let mut command = mpirun(ranks);
        command.args(["sample", "-n", "40", "--steps", "20", "--class", "all", "--sampler", sampler]);
        command.args(["--classifier-scale", scale, "--classifier"]).arg(&classifier).arg("--model").arg(&model);
        succeed(command.arg("--out").arg(&out));
        out
    };
    let unguided = dir.path().join("unguided.safetensors");
    let mut command = program();
    command.args(["sample", "-n", "40", "--steps", "20", "--model"]).arg(&model).arg("--out").arg(&unguided);
    succeed(&mut command);
    assert_eq!(samples(&draw(1, "ddim", "0")), samples(&unguided), "a classifier at scale 0 changes nothing");
    for sampler in ["ddim", "ddpm"] {
        let accuracy = |scale: &str| {
            let found = judge(&classifier, &["--samples", draw(1, sampler, scale).to_str().unwrap()]);
            let asked: Vec<i64> = found["labels"].as_array().unwrap().iter().map(|l| l.as_i64().unwrap()).collect();
            assert_eq!(
                asked,
                (0..40).map(|i| i / 4).collect::<Vec<_>>(),
                "the classes asked for come with the samples"
            );
            found["accuracy"].as_f64().unwrap()
        };
        let (unguided, guided) = (accuracy("0"), accuracy("3"));
        assert!(guided > unguided + 0.3, "{sampler}: {unguided} unguided, {guided} guided");
    }
    let (one, two) = (samples(&dir.path().join("ddpm-3-1.safetensors")), samples(&draw(2, "ddpm", "3")));
    let distance = one.iter().zip(&two).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(one.len() == two.len() && distance < 1e-3, "guided samples on 2 ranks are off by {distance}");

    // Samples in a folder have no labels, but can be classified.
    let folder = format!("{}/images/", dir.path().display());
    succeed(program().args(["sample", "-n", "3", "--steps", "2", "--out", &folder, "--model"]).arg(&model));
    let found = judge(&classifier, &["--samples", &folder]);
    assert!(found["accuracy"].is_null() && found["predicted"].as_array().unwrap().len() == 3, "{found}");
    check_refusals(&classifier, &model);
}

/// The wrong kind of run, and a classifier that does not match the model.
fn check_refusals(classifier: &Path, model: &Path) {
    let sample = |source: &Path, more: &[&str]| {
        let mut command = program();
        command
            .args(["sample", "-n", "10", "--steps", "2", "--out", "/dev/null/x.png", "--model"])
            .arg(source)
            .args(more);
        command
    };
    let (c, m) = (classifier.to_str().unwrap(), model.to_str().unwrap());
    check_refused(&mut sample(classifier, &[]), 2, "holds a classifier", "Name a run of `train`");
    let swapped = ["--class", "1", "--classifier", m];
    check_refused(&mut sample(model, &swapped), 2, "holds a diffusion model", "`train-classifier`");
    check_refused(&mut sample(model, &["--class", "1"]), 2, "has no classes", "--classifier");
    let beyond = ["--class", "10", "--classifier", c];
    check_refused(&mut sample(model, &beyond), 2, "class 10 is out of range", "0 to 9");
    let negative = ["--class", "1", "--classifier", c, "--classifier-scale=-1"];
    check_refused(&mut sample(model, &negative), 2, "-1", "0 or above");
    let pipeline = common::root().join("tests/golden/pipeline-ho");
    let other = ["--class", "1", "--classifier", c];
    check_refused(&mut sample(&pipeline, &other), 2, "the classifier does not fit the model", "train a classifier on");

    let set = format!("run.dir={c}");
    let mut command = program();
    command.args(["train", "--config", "smoke", "--set", &set]);
    check_refused(&mut command, 3, "holds a classifier", "train-classifier");
    check_refused(program().args(["train-classifier", "--config", "smoke"]), 2, "needs model.classes", "such as 10");
    let unet = ["train-classifier", "--config", "smoke", "--set", "model.kind=unet"];
    check_refused(program().args(unet), 2, "this command trains a classifier", "use train");
    let kind = ["train", "--config", "smoke", "--set", "model.kind=classifier", "--set", "model.classes=10"];
    check_refused(program().args(kind), 2, "model.kind describes a classifier", "use train-classifier");
    let missing = ["eval", "classes", "--classifier", c, "--samples", "nowhere.safetensors"];
    check_refused(program().args(missing), 4, "nowhere.safetensors", "");
    let beyond = ["eval", "classes", "--classifier", c, "--split", "test", "-t", "100"];
    check_refused(program().args(beyond), 2, "timestep 100 is out of range", "0 to 99");
    check_refused(program().args(["eval", "classes", "--classifier", c]), 2, "--samples", "Usage");
}
