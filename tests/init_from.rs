//! `train --init-from`: a run that starts from the weights of a trained model.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use ddpm_config::Settings;
use ddpm_nn::Network;
use tempfile::TempDir;

use crate::common::golden::largest_distance;
use crate::common::{Outcome, buffers, mpirun, program, root, run, succeed, train_on};

/// One step that changes no bit of a weight.
const STILL: [&str; 6] =
    ["--set", "train.lr=1e-30", "--set", "monitor.sample_every=0", "--set", "monitor.tensorboard=false"];

/// A run of the smoke preset whose weights stay those that it starts from.
fn start(dir: &Path, ranks: Option<usize>, more: &[&str]) -> Outcome {
    run(&mut train_on(ranks, dir, 1, &[&STILL[..], more].concat()))
}

fn begun(dir: &Path, ranks: Option<usize>, more: &[&str]) -> Outcome {
    let outcome = start(dir, ranks, more);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome
}

fn settings(dir: &Path) -> Settings {
    let text = fs::read_to_string(dir.join("config.toml")).unwrap();
    Settings::from_toml(&text, "config.toml", &[]).unwrap()
}

/// The places of a run's tensors in its buffers, by name.
fn places(dir: &Path) -> BTreeMap<String, Range<usize>> {
    let network = Network::new(settings(dir).architecture()).unwrap();
    let place = |offset: i64, len: i64| offset as usize..(offset + len) as usize;
    network.layout().entries().iter().map(|entry| (entry.name.clone(), place(entry.offset, entry.len()))).collect()
}

/// The weights after the step.
fn weights(dir: &Path) -> Vec<f32> {
    buffers(dir, 1)["weights"].iter().map(|bits| f32::from_bits(*bits)).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn weights_are_those_of_the_model_and_the_rest_is_fresh() {
    let dir = TempDir::new().unwrap();
    let [trained, ours] = ["trained", "ours"].map(|name| dir.path().join(name));
    succeed(&mut train_on(None, &trained, 20, &["--set", "monitor.sample_every=0"]));
    let outcome = begun(&ours, Some(2), &["--init-from", text(&trained)]);
    let said = format!("starting from the weights of {} at step 20, ema/0.9", trained.display());
    assert!(outcome.stderr.contains(&said), "{}", outcome.stderr);
    let (theirs, held) = (buffers(&trained, 20), buffers(&ours, 1));
    assert!(held["weights"] == theirs["ema/0.9"] && held["ema/0.9"] == theirs["ema/0.9"]);
    // The second moment after one step is (1 - 0.999) g².
    assert_ne!(held["exp_avg_sq"], theirs["exp_avg_sq"]);

    // A step of the same run, chosen by name.
    let earlier = dir.path().join("earlier");
    begun(&earlier, None, &["--init-from", &format!("{}@10", trained.display())]);
    assert!(buffers(&earlier, 1)["weights"] == buffers(&trained, 10)["ema/0.9"]);
}

/// The same command resumes, without the model; another one is refused.
#[test]
fn a_resume_knows_what_the_run_started_from() {
    let dir = TempDir::new().unwrap();
    let [trained, ours] = ["trained", "ours"].map(|name| dir.path().join(name));
    begun(&trained, None, &[]);
    let from = ["--init-from", text(&trained)];
    begun(&ours, None, &from);
    assert_eq!(settings(&ours).train.init_from.as_deref(), Some(text(&trained)));
    fs::rename(&trained, dir.path().join("elsewhere")).unwrap();
    let resumed = run(&mut train_on(None, &ours, 2, &[&STILL[..], &from].concat()));
    assert!(resumed.code == 0 && resumed.stderr.contains("resuming from step 1"), "{}", resumed.stderr);
    for other in [&[][..], &["--init-from", "elsewhere"]] {
        let refused = run(&mut train_on(None, &ours, 3, &[&STILL[..], other].concat()));
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains("train.init_from (checkpoint \""), "{}", refused.stderr);
    }
}

#[test]
fn tensors_that_do_not_fit_are_named_and_drawn_at_random_only_where_asked() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    begun(&at("trained"), None, &["--set", "model.classes=10", "--set", "seed=1"]);
    let from = ["--init-from", text(&at("trained")).to_owned().leak()];
    let other = ["--set", "model.classes=12", "--set", "data.channels=3"];
    let refused = start(&at("refused"), None, &[&from[..], &other].concat());
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    for said in [
        "conv_in.weight is [8, 1, 3, 3] there and [8, 3, 3, 3] here",
        "nor class_embedding.weight, conv_out.weight, conv_out.bias (3 more)",
        "--init-skip-mismatched",
    ] {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
    assert!(!at("refused").join("checkpoints").exists(), "nothing is written");

    let skipped = begun(&at("ours"), None, &[&from[..], &other, &["--init-skip-mismatched"]].concat());
    let named = |line: &&str| line.contains("not taken from");
    assert_eq!(skipped.stderr.lines().filter(named).count(), 4, "{}", skipped.stderr);
    assert!(settings(&at("ours")).train.init_skip_mismatched);
    // What is skipped is what a run without the model starts with, to what the one step adds to zeros.
    begun(&at("random"), None, &other);
    let [trained, ours, random] = ["trained", "ours", "random"].map(|name| weights(&at(name)));
    let (before, after) = (places(&at("trained")), places(&at("ours")));
    for (name, place) in &after {
        let anew = ["class_embedding.weight", "conv_in.weight", "conv_out.weight", "conv_out.bias"];
        let expected = match anew.contains(&name.as_str()) {
            true => &random[place.clone()],
            false => &trained[before[name].clone()],
        };
        assert!(largest_distance(&ours[place.clone()], expected) < 1e-20, "{name}");
    }
}

/// A diffusers directory, and an imported checkpoint of OpenAI's code with another number of classes.
#[test]
fn models_from_elsewhere() {
    let dir = TempDir::new().unwrap();
    let digits = root().join("tests/golden/pipeline-digits");
    let imported = dir.path().join("imported");
    succeed(program().arg("import").arg(&digits).arg("--out").arg(&imported));
    let mut weights = Vec::new();
    for (name, source) in [("from-diffusers", &digits), ("from-import", &imported)] {
        let ours = dir.path().join(name);
        let file = dir.path().join(format!("{name}.toml"));
        let extends = format!("extends = {:?}\n[data]\nkind = \"synthetic\"\n", text(&imported.join("config.toml")));
        fs::write(&file, extends).unwrap();
        let mut command = mpirun(2);
        command
            .args(["train", "--steps", "1", "--config"])
            .arg(&file)
            .args(STILL)
            .args(["--set", "train.global_batch=4"]);
        command.arg("--set").arg(format!("run.dir={}", ours.display())).arg("--init-from").arg(source);
        succeed(&mut command);
        weights.push(buffers(&ours, 1).remove("weights").unwrap());
    }
    assert!(weights[0] == weights[1] && weights[0] == buffers(&imported, 0)["weights"]);
    // The network must be the model's.
    let refused = start(&dir.path().join("other"), None, &["--init-from", text(&digits)]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("has another network than this run: model."), "{}", refused.stderr);
    assert!(refused.stderr.contains("--set model.channels="), "{}", refused.stderr);
}
