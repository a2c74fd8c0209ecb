//! The location of a run's files: from another working directory, after a move, and where they could be overlooked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ddpm_config::Settings;
use image::{GrayImage, Luma};
use tempfile::TempDir;

use crate::common::{Outcome, program, run, succeed, verified};

/// The program in a folder.
fn within(folder: &Path, line: &str) -> Command {
    let mut command = program();
    command.current_dir(folder).args(line.split_whitespace());
    command
}

/// A short training run with only relative paths, in its own folder.
fn train_in(folder: &Path, more: &str) -> Outcome {
    fs::create_dir_all(folder).unwrap();
    let quiet = "--set train.steps=10 --set monitor.sample_every=0 --set monitor.tensorboard=false";
    run(&mut within(folder, &format!("train --config smoke {quiet} {more}")))
}

/// The samples drawn in `folder` from a model by its path there.
fn drawn(folder: &Path, model: &str) -> Vec<u8> {
    let out = folder.join("drawn.safetensors");
    succeed(&mut within(folder, &format!("sample -n 2 --steps 2 --out {} --model {model}", out.display())));
    fs::read(out).unwrap()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}

/// Two projects with the same names, trained with different seeds.
fn two_projects(more: &str) -> (TempDir, PathBuf, PathBuf) {
    let dir = TempDir::new().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for (project, seed) in [(&one, 1), (&two, 2)] {
        let outcome = train_in(project, &format!("--set run.dir=run --set checkpoint.uri=ck --set seed={seed} {more}"));
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    }
    (dir, one, two)
}

#[test]
fn a_run_is_the_same_from_any_folder() {
    let (dir, one, two) = two_projects("");
    let (ours, theirs) = (drawn(&two, "run"), drawn(&one, "run"));
    assert_ne!(ours, theirs);
    assert_eq!(drawn(&two, "../one/run"), theirs, "another run's weights");
    assert_eq!(drawn(dir.path(), "one/run"), theirs);
    assert_eq!(drawn(&one.join("run"), "."), theirs);
    let listed = succeed(&mut within(&two, "checkpoints list ../one/run"));
    assert!(listed.stdout.contains("step        10"), "{}", listed.stdout);
    // The recorded configuration starts the same run again, from anywhere.
    let again = succeed(&mut within(&two, "train --config ../one/run/config.toml --steps 12"));
    assert!(again.stderr.contains("resuming from step 10"), "{}", again.stderr);
    assert_eq!((verified(&one.join("ck"))[0], verified(&two.join("ck"))[0]), (12, 10));
}

#[test]
fn a_run_of_an_earlier_version_is_found_through_its_own_path() {
    let (dir, one, two) = two_projects("");
    let theirs = drawn(&one, "run");
    // It recorded paths as they were typed.
    let config = one.join("run/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let typed = text.replace(&format!("{}/", one.canonicalize().unwrap().display()), "");
    assert!(typed.contains("uri = \"ck\"") && typed.contains("dir = \"run\""), "{typed}");
    fs::write(&config, &typed).unwrap();
    assert_eq!(drawn(&two, "../one/run"), theirs, "another run's weights");
    // Under another name its working directory is unknown, and a guess could be another run.
    fs::rename(one.join("run"), one.join("renamed")).unwrap();
    let outcome = run(&mut within(&two, "sample --out a.png --model ../one/renamed"));
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("name the folder of the checkpoints instead"), "{}", outcome.stderr);
    assert_eq!(drawn(dir.path(), "one/ck"), theirs);
}

#[test]
fn files_that_move_together_are_found_together() {
    let (dir, one, two) = two_projects("");
    let theirs = drawn(&one, "run");
    let three = dir.path().join("moved/three");
    fs::create_dir(dir.path().join("moved")).unwrap();
    fs::rename(&one, &three).unwrap();
    assert_eq!(drawn(&two, "../moved/three/run"), theirs);
    let outcome = train_in(&three, "--set run.dir=run --set checkpoint.uri=ck --set seed=1 --set train.steps=12");
    assert!(outcome.stderr.contains("resuming from step 10"), "{}", outcome.stderr);
}

#[test]
fn a_renamed_run_opens_its_own_checkpoints_and_does_not_start_over() {
    let dir = TempDir::new().unwrap();
    assert_eq!(train_in(dir.path(), "--set run.dir=runs/a").code, 0);
    let ours = drawn(dir.path(), "runs/a");
    fs::rename(dir.path().join("runs/a"), dir.path().join("runs/b")).unwrap();
    assert_eq!(drawn(dir.path(), "runs/b"), ours);
    let line = "train --config runs/b/config.toml --steps 12";
    let outcome = run(&mut within(dir.path(), line));
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("runs/b/checkpoints holds checkpoints up to step 10"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("--set run.dir=runs/b,"), "{}", outcome.stderr);
    assert!(!dir.path().join("runs/a").exists());
    let outcome = succeed(&mut within(dir.path(), &format!("{line} --set run.dir=runs/b")));
    assert!(outcome.stderr.contains("resuming from step 10"), "{}", outcome.stderr);
    // A different run with the same settings is not affected.
    let outcome = succeed(&mut within(dir.path(), &format!("{line} --set run.dir=runs/c")));
    assert!(outcome.stderr.contains("starting at step 0"), "{}", outcome.stderr);
}

#[test]
fn relative_data_paths_stay_those_of_the_run_on_resume() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for (folder, count) in [(&one, 12), (&two, 5)] {
        fs::create_dir_all(folder.join("images")).unwrap();
        for i in 0..count {
            let image = GrayImage::from_fn(16, 16, |x, y| Luma([(x * y + 7 * i) as u8]));
            image.save(folder.join(format!("images/{i:02}.png"))).unwrap();
        }
    }
    let sets = "--set run.dir=run --set data.kind=folder --set data.path=images --set train.global_batch=4";
    let outcome = train_in(&one, sets);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let nll = "eval nll --json --split train --timesteps 2 --model ../one/run";
    let report: serde_json::Value = serde_json::from_str(&succeed(&mut within(&two, nll)).stdout).unwrap();
    assert_eq!(report["images"].as_u64(), Some(12), "the images of the folder that the command was started in");
    // A path on the command line is relative to the current directory.
    let here: serde_json::Value =
        serde_json::from_str(&succeed(&mut within(&two, &format!("{nll} --set data.path=images"))).stdout).unwrap();
    assert_eq!(here["images"].as_u64(), Some(5));
    // The same path in a copy of the project, the same location under another path, and another location.
    copy(&one, &dir.path().join("copied"));
    let outcome = train_in(&dir.path().join("copied"), &format!("{sets} --set train.steps=12"));
    assert!(outcome.stderr.contains("resuming from step 10"), "{}", outcome.stderr);
    let full = sets.replace("data.path=images", &format!("data.path={}", one.join("images").display()));
    let outcome = train_in(&one, &format!("{full} --set train.steps=12"));
    assert!(outcome.stderr.contains("resuming from step 10"), "{}", outcome.stderr);
    let other = sets.replace("data.path=images", "data.path=../two/images");
    let outcome = train_in(&one, &format!("{other} --set train.steps=14"));
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("data.path (checkpoint "), "{}", outcome.stderr);
}

#[test]
fn a_run_records_absolute_paths() {
    let dir = TempDir::new().unwrap();
    let outcome = train_in(dir.path(), "--set run.dir=runs/x --set checkpoint.uri=ck");
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let config = fs::read_to_string(dir.path().join("runs/x/config.toml")).unwrap();
    let store = ddpm_checkpoint::Store::open_existing(dir.path().join("ck").to_str().unwrap()).unwrap();
    let manifest = store.read_manifest(10).unwrap().config;
    let identity = store.find_run().unwrap().unwrap().config;
    let recorded = [
        Settings::from_toml(&config, "config.toml", &[]).unwrap(),
        serde_json::from_value(manifest).unwrap(),
        serde_json::from_value(identity).unwrap(),
    ];
    for settings in recorded {
        assert!(Path::new(&settings.run.dir).is_absolute(), "{}", settings.run.dir);
        assert!(Path::new(settings.checkpoint.uri.as_ref().unwrap()).is_absolute());
    }
}

#[test]
fn a_run_does_not_start_over_unseen_checkpoints() {
    let dir = TempDir::new().unwrap();
    assert_eq!(train_in(dir.path(), "--set run.dir=runs/a").code, 0);
    succeed(&mut within(dir.path(), "checkpoints copy runs/a --to backup"));
    let copied = |place: &str| {
        fs::create_dir_all(dir.path().join(place).parent().unwrap()).unwrap();
        copy(&dir.path().join("backup"), &dir.path().join(place));
    };
    // In the run's directory itself, in a sub-folder, below its own checkpoints, and in the checkpoints of another run.
    for (run_dir, place, more) in [
        ("runs/b", "runs/b", ""),
        ("runs/c", "runs/c/backup", ""),
        ("runs/d", "runs/d/checkpoints/backup", ""),
        ("runs/e", "runs/e/checkpoints", "--set checkpoint.uri=elsewhere"),
    ] {
        copied(place);
        for resume in ["auto", "never"] {
            let outcome = train_in(dir.path(), &format!("--set run.dir={run_dir} --resume {resume} {more}"));
            assert_eq!(outcome.code, 3, "{place}: {}", outcome.stderr);
            let message = format!("{place} holds checkpoints up to step 10");
            assert!(outcome.stderr.contains(&message), "{place}: {}", outcome.stderr);
        }
        assert!(!dir.path().join(run_dir).join("metrics.jsonl").exists(), "{place}: it has begun");
        // Following the advice.
        let outcome =
            train_in(dir.path(), &format!("--set run.dir={run_dir} --set checkpoint.uri={place} --set train.steps=12"));
        assert!(outcome.stderr.contains("resuming from step 10"), "{place}: {}", outcome.stderr);
    }
}

#[test]
fn a_copy_into_a_runs_directory_is_found_by_the_run() {
    let dir = TempDir::new().unwrap();
    assert_eq!(train_in(dir.path(), "--set run.dir=runs/a").code, 0);
    succeed(&mut within(dir.path(), "checkpoints copy runs/a --to backup"));
    fs::remove_dir_all(dir.path().join("runs/a/checkpoints")).unwrap();
    // The rest is not a run to start over: its log shows that.
    let outcome = train_in(dir.path(), "--set run.dir=runs/a");
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    let outcome = succeed(&mut within(dir.path(), "checkpoints copy backup --to runs/a"));
    assert!(outcome.stdout.contains("copied step 10 to runs/a/checkpoints"), "{}", outcome.stdout);
    let outcome = train_in(dir.path(), "--set run.dir=runs/a --set train.steps=12");
    assert!(outcome.stderr.contains("resuming from step 10"), "{}", outcome.stderr);
}

#[test]
fn a_copied_run_has_checkpoints_of_its_own() {
    let (dir, one, _) = two_projects("");
    copy(&one, &dir.path().join("copied"));
    let dropped = succeed(&mut within(dir.path(), "checkpoints drop copied/run --step 10 --force"));
    assert!(dropped.stdout.contains("copied/ck"), "{}", dropped.stdout);
    for (project, left) in [("one", true), ("copied", false)] {
        let listed = succeed(&mut within(dir.path(), &format!("checkpoints list {project}/run")));
        assert_eq!(listed.stdout.contains("step        10"), left, "{project}: {}", listed.stdout);
    }
}

#[test]
fn a_folder_may_have_a_name_that_a_shell_would_expand() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("cost$HOME");
    let outcome = train_in(&folder, "--set run.dir=run");
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let listed = succeed(&mut within(&folder, "checkpoints list run"));
    assert!(listed.stdout.contains("step        10"), "{}", listed.stdout);
    succeed(&mut within(&folder, "sample -n 2 --steps 2 --out drawn.safetensors --model run"));
}
