//! The likelihood of images from the command line.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{mpirun, program, root, succeed, train};

/// The output of `eval nll --json` for a model on `ranks` ranks.
fn nll(ranks: usize, model: &Path, more: &[&str]) -> Value {
    let mut command = if ranks == 1 { program() } else { mpirun(ranks) };
    command.args(["eval", "nll", "--json", "--model"]).arg(model).args(more);
    serde_json::from_str(&succeed(&mut command).stdout).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn check_equal(what: &str, ours: &Value, theirs: &Value) {
    for key in ["bits_per_dim", "standard_error", "prior", "decoder", "kl", "loss"] {
        let (ours, theirs) = (number(&ours[key]), number(&theirs[key]));
        assert!((ours - theirs).abs() <= 1e-6 * theirs.abs(), "{what}: {key} is {ours} and not {theirs}");
    }
    for key in ["t", "images", "vb", "mse", "xstart_mse"] {
        let (ours, theirs) = (numbers(&ours["terms"][key]), numbers(&theirs["terms"][key]));
        assert_eq!(ours.len(), theirs.len(), "{what}: {key}");
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
        assert!(ours.iter().zip(&theirs).all(close), "{what}: {key}");
    }
}

/// Trains 10 steps, and evaluates 20 images in batches of 8 on one rank, on two and on three.
fn check_ranks(options: &[&str], more: &[&str]) -> (TempDir, Value) {
    let dir = TempDir::new().unwrap();
    let set: Vec<&str> = options.iter().flat_map(|option| ["--set", option]).collect();
    succeed(&mut train(1, dir.path(), 10, &set));
    let arguments = [&["-n", "20", "--batch", "8"], more].concat();
    let alone = nll(1, dir.path(), &arguments);
    for ranks in [2, 3] {
        check_equal(&format!("{options:?} on {ranks} ranks"), &nll(ranks, dir.path(), &arguments), &alone);
    }
    let batched = nll(1, dir.path(), &[&["-n", "20", "--batch", "64"], more].concat());
    assert!((number(&batched["bits_per_dim"]) - number(&alone["bits_per_dim"])).abs() < 1e-5, "batches of 64");
    (dir, alone)
}

#[test]
fn any_number_of_ranks_computes_the_same_bound_and_an_estimate_agrees_with_it() {
    let (dir, whole) = check_ranks(&["diffusion.timesteps=40", "monitor.sample_every=0"], &[]);
    assert_eq!((whole["images"].as_u64(), whole["split"].as_str()), (Some(20), Some("test")));
    assert_eq!((whole["timesteps"].as_u64(), whole["timesteps_per_image"].as_u64()), (Some(40), Some(40)));
    let vb = numbers(&whole["terms"]["vb"]);
    assert_eq!((vb.len(), numbers(&whole["terms"]["t"])[39]), (40, 39.0));
    let parts: f64 = ["prior", "decoder", "kl"].map(|key| number(&whole[key])).iter().sum();
    assert!((parts - number(&whole["bits_per_dim"])).abs() < 1e-9);
    assert!((vb[0] - number(&whole["decoder"])).abs() < 1e-9);
    assert!((vb.iter().sum::<f64>() - vb[0] - number(&whole["kl"])).abs() < 1e-9);
    assert!((0.0..20.0).contains(&number(&whole["bits_per_dim"])), "{whole}");

    let estimate = nll(1, dir.path(), &["-n", "20", "--timesteps", "10"]);
    assert_eq!((estimate["timesteps"].as_u64(), estimate["timesteps_per_image"].as_u64()), (Some(40), Some(10)));
    let off = (number(&estimate["bits_per_dim"]) - number(&whole["bits_per_dim"])).abs();
    let stated = number(&estimate["standard_error"]);
    assert!(off <= 3.0 * stated && stated < number(&whole["bits_per_dim"]), "off by {off}, stated {stated}");
    check_equal("all timesteps as strata", &nll(1, dir.path(), &["-n", "20", "--timesteps", "40"]), &whole);

    let respaced = nll(1, dir.path(), &["-n", "20", "--respacing", "14"]);
    assert_eq!(numbers(&respaced["terms"]["t"]), (0..14).map(|i| f64::from(3 * i)).collect::<Vec<f64>>());
    assert_eq!(respaced["timesteps"].as_u64(), Some(14));

    let of =
        |more: &[&str]| number(&nll(1, dir.path(), &[&["-n", "4", "--timesteps", "4"], more].concat())["bits_per_dim"]);
    let test = of(&[]);
    assert_ne!(of(&["--split", "train"]), test);
    assert_ne!(of(&["--weights", "raw"]), test);
    assert_ne!(of(&["--seed", "1"]), test);
    assert_eq!(of(&["--data", "smoke"]), test, "the run's own data");
    assert_ne!(of(&["--set", "seed=5"]), test, "other digits");
}

#[test]
fn learned_variances_classes_and_v_are_evaluated_equally_on_any_number_of_ranks() {
    let options = [
        "model.classes=10",
        "diffusion.label_dropout=0.1",
        "diffusion.variance=learned_range",
        "diffusion.loss=hybrid",
        "diffusion.predict=v",
        "monitor.sample_every=0",
    ];
    let (_, found) = check_ranks(&options, &["--timesteps", "6"]);
    assert_eq!(found["timesteps_per_image"].as_u64(), Some(6));
    assert!(number(&found["bits_per_dim"]).is_finite());
}

#[test]
fn a_diffusers_model_is_evaluated_on_given_data_and_printed_as_text() {
    let mut command = program();
    command.args(["eval", "nll", "--timesteps", "2", "-n", "2", "--data", "smoke", "--split", "train"]);
    command.args(["--set", "data.image_size=28", "--model"]).arg(root().join("tests/golden/pipeline-digits"));
    let said = succeed(&mut command).stdout;
    let lines: Vec<&str> = said.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(lines, ["bits/dim", "prior", "decoder", "kl", "mse"], "{said}");
}
