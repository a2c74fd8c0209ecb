//! Evaluations during training: the same figures on any number of ranks, after a resume, and from the command line.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::common;
use crate::common::tensorboard::{event_files, events};
use crate::common::{metrics, mpirun, program, succeed, train};

const KEYS: [&str; 3] = ["eval_loss", "eval_bits_per_dim", "fid"];

/// Trains to `steps` with evaluations every 4 steps; returns their figures by step.
fn evaluated(ranks: usize, dir: &Path, steps: u64) -> BTreeMap<u64, [f64; 3]> {
    let options = [
        "model.classes=10",
        "diffusion.variance=learned_range",
        "diffusion.loss=hybrid",
        "monitor.sample_every=0",
        "monitor.sample_steps=5",
        "monitor.log_every=2",
        "monitor.eval_every=4",
        "monitor.eval_count=21",
        "monitor.eval_timesteps=6",
        "monitor.fid_every=4",
        "monitor.fid_count=19",
        "checkpoint.every=4",
    ];
    let options: Vec<&str> = options.into_iter().flat_map(|option| ["--set", option]).collect();
    succeed(&mut train(ranks, dir, steps, &options));
    let mut found = BTreeMap::new();
    for (step, line) in metrics(dir) {
        let figures = KEYS.map(|key| line[key].as_f64());
        assert_eq!(line["fid_features"], "pixels");
        assert_eq!(figures.iter().all(Option::is_some), step % 4 == 0, "step {step}: {figures:?}");
        if let [Some(loss), Some(bits), Some(fid)] = figures {
            found.insert(step, [loss, bits, fid]);
        }
    }
    found
}

/// What `eval` prints as JSON.
fn eval(ranks: usize, arguments: &str) -> Value {
    let mut command = if ranks == 1 { program() } else { mpirun(ranks) };
    serde_json::from_str(&succeed(command.args(["eval", "--json"]).args(arguments.split_whitespace())).stdout).unwrap()
}

#[test]
fn figures_are_those_of_any_number_of_ranks_of_a_resumed_run_and_of_the_command_line() {
    let [one, two, resumed] = [(); 3].map(|()| TempDir::new().unwrap());
    let alone = evaluated(1, one.path(), 8);
    assert!(alone.keys().copied().eq([4, 8]), "{alone:?}");
    let shared = evaluated(2, two.path(), 8);
    for (step, ours) in &shared {
        for ((key, ours), theirs) in KEYS.iter().zip(ours).zip(alone[step]) {
            assert!(
                (ours - theirs).abs() <= 1e-4 * theirs.abs(),
                "{key} at step {step}: {ours} on 2 ranks, not {theirs}"
            );
        }
    }
    // Stopped at step 4, whose figures are then those of the last step, and resumed.
    evaluated(2, resumed.path(), 4);
    assert_eq!(evaluated(2, resumed.path(), 8), shared, "to the last bit");

    // The same weights, evaluated from the command line on another number of ranks.
    for (step, [loss, bits, fid]) in &shared {
        let model = format!("{}@{step}", two.path().display());
        let bound = eval(3, &format!("nll --model {model} -n 21 --timesteps 6"));
        let samples = eval(1, &format!("fid --model {model} -n 19 --steps 5"));
        for (what, ours, theirs) in [
            ("loss", loss, &bound["loss"]),
            ("bound", bits, &bound["bits_per_dim"]),
            ("fid", fid, &samples["frechet_distance"]),
        ] {
            let theirs = theirs.as_f64().unwrap();
            assert!((ours - theirs).abs() <= 1e-4 * theirs.abs(), "{what} at step {step}: {ours}, {theirs} from eval");
        }
    }

    let mut shown = Vec::new();
    for file in event_files(one.path()) {
        for event in events(&std::fs::read(file).unwrap()) {
            let values = event.get_summary().get_value().iter();
            shown.extend(values.filter(|value| value.get_tag().starts_with("eval/")).map(|value| {
                (value.get_tag().to_owned(), event.get_step() as u64, f64::from(value.get_simple_value()))
            }));
        }
    }
    assert_eq!(shown.len(), 6, "{shown:?}");
    for (tag, step, value) in shown {
        let place = ["eval/loss", "eval/bits_per_dim", "eval/fid/pixels"].iter().position(|known| *known == tag);
        let logged = alone[&step][place.unwrap()];
        assert!((value - logged).abs() <= 1e-6 * logged.abs(), "{tag} at step {step}: {value}, not {logged}");
    }
}

/// With the statistics of the training images in a file, distances are those from the images themselves.
#[test]
fn a_reference_in_a_file_gives_the_same_distances_as_the_images() {
    let dir = TempDir::new().unwrap();
    let [images, file, stats] = ["images", "file", "stats.npz"].map(|name| dir.path().join(name));
    let fid = |run: &Path, more: &[&str]| {
        let common = ["monitor.sample_every=0", "monitor.sample_steps=3", "monitor.fid_every=2", "monitor.fid_count=9"];
        let sets: Vec<&str> = common.iter().chain(more).flat_map(|set| ["--set", set]).collect();
        succeed(&mut train(2, run, 4, &sets));
        [2, 4].map(|step| metrics(run)[&step]["fid"].as_f64().unwrap())
    };
    let expected = fid(&images, &[]);
    let evaluated = eval(1, &format!("fid --model {} -n 9 --write-reference {}", images.display(), stats.display()));
    assert_eq!(evaluated["images"].as_u64(), Some(512), "{evaluated}");
    let found = fid(&file, &[&format!("monitor.fid_reference={}", stats.display())]);
    for (found, expected) in found.into_iter().zip(expected) {
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} from the file, {expected} from the images");
    }
}

#[test]
fn evaluations_do_not_change_what_is_learned() {
    let [plain, evaluated_often] = [(); 2].map(|()| TempDir::new().unwrap());
    let quiet = ["--set", "monitor.sample_every=0", "--set", "monitor.sample_steps=2"];
    let often = ["--set", "monitor.eval_every=1", "--set", "monitor.fid_every=2", "--set", "monitor.fid_count=4"];
    succeed(&mut train(2, plain.path(), 4, &quiet));
    succeed(&mut train(2, evaluated_often.path(), 4, &[&quiet[..], &often].concat()));
    common::check_same_bits(
        "evaluated",
        &common::buffers(evaluated_often.path(), 4),
        &common::buffers(plain.path(), 4),
    );
}
