//! Training from the command line: the same curve on any number of ranks, reproducible bits, stopping and resuming.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::common::tensorboard::event_files;
use crate::common::{
    buffers, check_same_bits, finish, losses, metrics, run, signal, start, succeed, train, wait_for_step,
};

fn check_close(what: &str, ours: &[(u64, f64)], theirs: &[(u64, f64)], relative: f64) {
    assert_eq!(ours.len(), theirs.len(), "{what}: another number of log steps");
    for ((step, a), (other, b)) in ours.iter().zip(theirs) {
        assert_eq!(step, other, "{what}: other log steps");
        assert!((a - b).abs() <= relative * b.abs(), "{what}: loss {a} at step {step}, not {b}");
    }
}

#[test]
fn the_curve_does_not_depend_on_the_number_of_ranks() {
    let dirs = [1usize, 2, 4].map(|ranks| {
        let dir = TempDir::new().unwrap();
        succeed(&mut train(ranks, dir.path(), 50, &["--set", "data.flip=true", "--set", "model.dropout=0.1"]));
        dir
    });
    let one = losses(dirs[0].path());
    assert_eq!(one.len(), 50);
    assert!(one[49].1 < 0.7 * one[0].1, "50 steps bring the loss from {} to {} only", one[0].1, one[49].1);
    check_close("2 ranks", &losses(dirs[1].path()), &one, 1e-4);
    check_close("4 ranks", &losses(dirs[2].path()), &one, 1e-4);
}

#[test]
fn importance_sampled_bounds_do_not_depend_on_the_number_of_ranks() {
    let hybrid = [
        "--set",
        "diffusion.timesteps=8",
        "--set",
        "monitor.sample_steps=8",
        "--set",
        "diffusion.variance=learned_range",
        "--set",
        "diffusion.loss=vlb",
        "--set",
        "diffusion.timestep_sampler=loss_second_moment",
        "--set",
        "train.micro_batch=4",
    ];
    let dirs = [1usize, 2].map(|ranks| {
        let dir = TempDir::new().unwrap();
        succeed(&mut train(ranks, dir.path(), 30, &hybrid));
        dir
    });
    let one = losses(dirs[0].path());
    check_close("2 ranks", &losses(dirs[1].path()), &one, 1e-3);
    let last = &metrics(dirs[0].path())[&30];
    assert!(last["vb"].as_f64().unwrap() > 0.0, "{last}");
    let smoothed = |dir: &TempDir| metrics(dir.path())[&30]["vlb_smoothed"].as_f64().unwrap();
    let (ours, theirs) = (smoothed(&dirs[1]), smoothed(&dirs[0]));
    assert!((ours - theirs).abs() <= 1e-3 * theirs, "smoothed: {ours} bits per dimension on 2 ranks, {theirs} on 1");
    let quarters: f64 = (0..4).map(|q| last[format!("vlb_smoothed_q{q}")].as_f64().unwrap()).sum();
    assert!((quarters - theirs).abs() <= 1e-9 * theirs, "{last}");
}

#[test]
fn the_same_command_gives_the_same_bits() {
    let twice = [(); 2].map(|()| {
        let dir = TempDir::new().unwrap();
        succeed(&mut train(2, dir.path(), 30, &[]));
        buffers(dir.path(), 30)
    });
    check_same_bits("the second run", &twice[1], &twice[0]);
}

#[test]
fn checkpointed_activations_do_not_change_a_bit_before_or_after_a_resume() {
    let options = |levels: &str| {
        let levels = format!("model.checkpoint_activations={levels}");
        ["model.dropout=0.1", "train.micro_batch=4", "comm.bucket_mb=0.02", &levels].map(str::to_owned)
    };
    let train = |dir: &Path, steps: u64, levels: &str| {
        let options = options(levels);
        let options: Vec<&str> = options.iter().flat_map(|option| ["--set", option.as_str()]).collect();
        succeed(&mut train(2, dir, steps, &options))
    };
    let (plain, ours) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    train(plain.path(), 20, "[]");
    train(ours.path(), 10, "[true,true]");
    check_same_bits("the first half", &buffers(ours.path(), 10), &buffers(plain.path(), 10));
    let resumed = train(ours.path(), 15, "[]");
    assert!(resumed.stderr.contains("model.checkpoint_activations"), "the change is logged: {}", resumed.stderr);
    train(ours.path(), 20, "[false,true]");
    check_same_bits("the second half", &buffers(ours.path(), 20), &buffers(plain.path(), 20));
}

#[test]
fn bf16_follows_the_curve_of_fp32() {
    let curves = ["fp32", "bf16"].map(|precision| {
        let dir = TempDir::new().unwrap();
        succeed(&mut train(2, dir.path(), 40, &["--set", &format!("train.precision={precision}")]));
        losses(dir.path())
    });
    assert_ne!(curves[0], curves[1], "bf16 computed in fp32");
    check_close("bf16", &curves[1], &curves[0], 0.03);
}

#[test]
fn a_resumed_run_equals_an_undisturbed_one() {
    let options = [
        "--set",
        "diffusion.timestep_sampler=loss_second_moment",
        "--set",
        "diffusion.timesteps=4",
        "--set",
        "monitor.sample_steps=4",
    ];
    let (straight, resumed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    succeed(&mut train(2, straight.path(), 40, &options));
    succeed(&mut train(2, resumed.path(), 20, &options));
    let outcome = succeed(&mut train(2, resumed.path(), 40, &options));
    assert!(outcome.stderr.contains("resuming from step 20"), "{}", outcome.stderr);
    check_same_bits("after 20 + 20 steps", &buffers(resumed.path(), 40), &buffers(straight.path(), 40));
    assert_eq!(losses(resumed.path()), losses(straight.path()));
    // Averages over steps continue as well.
    let last = [&resumed, &straight].map(|dir| metrics(dir.path())[&40].clone());
    for key in ["vlb_smoothed", "grad_variance"] {
        assert!(last[0][key].is_f64(), "{key} in {}", last[0]);
        assert_eq!(last[0][key], last[1][key], "{key}");
    }
}

#[test]
fn a_checkpoint_of_two_ranks_continues_on_one_and_three() {
    let dir = TempDir::new().unwrap();
    let batch = ["--set", "train.global_batch=12"];
    succeed(&mut train(2, dir.path(), 10, &batch));
    let saved = buffers(dir.path(), 10);
    for ranks in [1usize, 3] {
        let copy = TempDir::new().unwrap();
        let status = Command::new("cp").arg("-r").arg(format!("{}/.", dir.path().display())).arg(copy.path()).status();
        assert!(status.unwrap().success());
        succeed(&mut train(ranks, copy.path(), 14, &batch));
        check_same_bits("what was saved", &buffers(copy.path(), 10), &saved);
        let undisturbed = TempDir::new().unwrap();
        succeed(&mut train(2, undisturbed.path(), 14, &batch));
        check_close("the continued run", &losses(copy.path()), &losses(undisturbed.path()), 1e-4);
    }
}

#[test]
fn a_request_to_stop_saves_and_the_run_resumes_from_there() {
    for ranks in [1usize, 2] {
        let dir = TempDir::new().unwrap();
        let quiet = ["--set", "checkpoint.every=100000", "--set", "monitor.sample_every=0"];
        let child = start(&mut train(ranks, dir.path(), 100_000, &quiet));
        wait_for_step(dir.path(), 5);
        // To the launcher, like Ctrl-C in a terminal or a batch system.
        assert!(signal("INT", child.id()));
        let outcome = finish(child);
        assert_eq!(outcome.code, 75, "{}", outcome.stderr);
        let stopped = *metrics(dir.path()).last_key_value().unwrap().0;
        assert_eq!(stopped_at(dir.path()), stopped, "the last logged step is not the saved one");
        let outcome = succeed(&mut train(ranks, dir.path(), stopped + 3, &quiet));
        assert!(outcome.stderr.contains(&format!("resuming from step {stopped}")), "{}", outcome.stderr);
        assert!(metrics(dir.path()).keys().copied().eq(1..=stopped + 3), "steps are missing");
    }
}

fn stopped_at(dir: &Path) -> u64 {
    let store = ddpm_checkpoint::Store::open_existing(dir.join("checkpoints").to_str().unwrap()).unwrap();
    store.list().unwrap()[0]
}

#[test]
fn divergence_ends_the_run_and_is_never_saved() {
    let dir = TempDir::new().unwrap();
    let options = ["--set", "train.lr=1e30", "--set", "train.grad_clip=0", "--set", "train.skip_nonfinite=3"];
    let outcome = run(&mut train(2, dir.path(), 100, &options));
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("not finite 3 times in a row"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("error: ").count(), 1, "{}", outcome.stderr);
    let store = ddpm_checkpoint::Store::open_existing(dir.path().join("checkpoints").to_str().unwrap()).unwrap();
    assert_eq!(store.list().unwrap(), [0u64; 0]);
}

#[test]
fn a_run_writes_the_documented_files() {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(2, dir.path(), 20, &["--set", "model.classes=10"]));
    let config = std::fs::read_to_string(dir.path().join("config.toml")).unwrap();
    assert!(config.starts_with("# Resolved by ddpm-dist") && config.contains("global_batch = 16"), "{config}");
    for step in [10, 20] {
        let path = dir.path().join(format!("samples/step-{step:09}.png"));
        let grid = image::open(&path).unwrap().into_luma8();
        // 16 images of 16x16, enlarged four times: 10 columns, one per class, in 2 rows.
        assert_eq!(grid.dimensions(), (10 * 66 - 2, 2 * 66 - 2));
    }
    assert_eq!(event_files(dir.path()).len(), 1, "one event file per start");
    let again = succeed(&mut train(2, dir.path(), 20, &["--set", "model.classes=10"]));
    assert!(again.stderr.contains("all 20 steps are done already"), "{}", again.stderr);
}

#[test]
fn grids_of_repeated_steps_come_from_the_new_run() {
    let dir = TempDir::new().unwrap();
    let grids = || {
        let entries = std::fs::read_dir(dir.path().join("samples")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let every = ["monitor.sample_every=4", "checkpoint.every=8", "checkpoint.keep_last=5"];
    let every: Vec<&str> = every.into_iter().flat_map(|option| ["--set", option]).collect();
    succeed(&mut train(1, dir.path(), 20, &every));
    assert_eq!(grids().len(), 5);
    for own in ["step-best.png", "step-20.png", "000000020.png"] {
        std::fs::write(dir.path().join("samples").join(own), "the user's").unwrap();
    }
    succeed(&mut train(2, dir.path(), 10, &[&every[..], &["--resume", "8"]].concat()));
    let kept = ["step-000000004.png", "step-000000008.png", "step-000000010.png"];
    let own = ["000000020.png", "step-20.png", "step-best.png"];
    assert_eq!(grids(), [&own[..1], &kept, &own[1..]].concat());
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let run_dir = dir.path().join("run");
    let outcome = succeed(train(2, &run_dir, 20, &["--dry-run", "--json"]).env("RUST_LOG", "warn"));
    let plan: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((plan["ranks"].as_u64(), plan["images_per_rank"].as_u64()), (Some(2), Some(8)));
    assert_eq!(plan["parameters"].as_u64(), Some(42_521));
    assert_eq!(plan["steps_per_epoch"].as_f64(), Some(32.0));
    assert!(!run_dir.exists());
}
