//! Precedence, `extends`, `--set`, dependent defaults, and comparing two configurations.

use std::fs;

use ddpm_config::{DataKind, DifferenceKind, Labels, ModelKind, Settings, check_key};
use tempfile::TempDir;

fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().expect("inside the folder")).expect("writable");
    fs::write(&path, text).expect("writable");
    path.display().to_string()
}

fn load(config: &str, sets: &[&str]) -> Settings {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    Settings::load(config, &sets).unwrap_or_else(|error| panic!("{config}: {error}"))
}

#[test]
fn later_layers_win_key_by_key() {
    let folder = TempDir::new().unwrap();
    write(&folder, "base.toml", "[data]\nkind = 'synthetic'\n[train]\nlr = 1e-3\nsteps = 7\nwarmup_steps = 2");
    let file = write(&folder, "sub/top.toml", "extends = '../base.toml'\n[train]\nlr = 2e-3\nsteps = 8");
    let train = load(&file, &["train.lr=4e-3", "train.lr=3e-3"]).train;
    assert_eq!((train.lr, train.steps, train.warmup_steps, train.global_batch), (3e-3, 8, 2, 128));
}

#[test]
fn a_file_extends_a_preset_and_names_its_own_run() {
    let folder = TempDir::new().unwrap();
    let file = write(&folder, "faces.toml", "extends = 'configs/mnist.toml'\n[data]\nkind = 'folder'");
    let settings = load(&file, &[]);
    assert_eq!((settings.data.kind, settings.data.path.as_str()), (DataKind::Folder, "data/mnist"));
    assert_eq!(settings.run.dir, "runs/faces");
    assert_eq!(load(&file, &["run.name=two"]).run.dir, "runs/two");
    let elsewhere = load(&file, &["run.dir=/tmp/r"]);
    assert_eq!((elsewhere.run.name.as_str(), elsewhere.checkpoint_uri().as_str()), ("faces", "/tmp/r/checkpoints"));
    assert_eq!(load(&file, &["checkpoint.uri=s3://bucket/run"]).checkpoint_uri(), "s3://bucket/run");
}

#[test]
fn the_folder_of_the_extending_file_comes_first() {
    let folder = TempDir::new().unwrap();
    write(&folder, "configs/mnist.toml", "seed = 5\n[data]\nkind = 'synthetic'");
    let file = write(&folder, "mine.toml", "extends = 'configs/mnist.toml'");
    assert_eq!(load(&file, &[]).seed, 5);
}

#[test]
fn set_reads_toml_and_bare_words() {
    let sets = ["data.kind=idx", "data.path=data/mnist", "model.channels=[32, 64]", "data.flip=true", "ema={rates=[]}"];
    let settings = load("smoke", &sets);
    assert_eq!((settings.data.kind, settings.data.path.as_str()), (DataKind::Idx, "data/mnist"));
    assert_eq!(settings.model.channels, [32, 64]);
    assert!(settings.data.flip && settings.ema.rates.is_empty());
    assert_eq!(load("smoke", &["train.lr=1"]).train.lr, 1.0, "a whole number is a number");
    assert_eq!(load("smoke", &["run.name=\"2026\""]).run.name, "2026");
}

#[test]
fn zero_undoes_an_optional_number() {
    assert_eq!(load("celeba64", &["model.head_dim=0", "data.crop=0"]).model.head_dim, None);
    assert_eq!(load("su-ddpm", &["diffusion.beta_start=0"]).diffusion.beta_start, None);
}

#[test]
fn dependent_defaults_follow_what_is_set() {
    let folder = TempDir::new().unwrap();
    let file = write(&folder, "a.toml", "[data]\nkind = 'synthetic'");
    assert_eq!(load(&file, &[]).model, Default::default());
    assert_eq!(load(&file, &["model.channels=[32,64,96,128]"]).model.attention, [false, false, true, false]);
    assert_eq!(load(&file, &["model.channels=[32]"]).model.attention, [false]);
    let steps = |sets: &[&str]| load(&file, sets).monitor.sample_steps;
    assert_eq!(steps(&["diffusion.timesteps=21"]), 21, "no more steps than timesteps");
    assert_eq!(steps(&["diffusion.timesteps=21", "monitor.sample_steps=7"]), 7);
    assert_eq!([steps(&[]), steps(&["diffusion.timesteps=51"])], [50, 50]);
    let small = load(&file, &["model.kind=small"]).model;
    assert_eq!((small.kind, small.channels.as_slice()), (ModelKind::Small, &[4, 10, 20, 40][..]));
    assert!(!small.attention.contains(&true));
}

#[test]
fn labels_are_one_string() {
    let labels = |kind: &str, labels: &str| {
        load("mnist", &[&format!("data.kind={kind}"), &format!("data.labels={labels}")]).data.labels
    };
    assert_eq!(labels("idx", "auto"), Labels::Auto);
    assert_eq!(labels("idx", "data/train-labels-idx1-ubyte"), Labels::Path("data/train-labels-idx1-ubyte".into()));
    assert_eq!(labels("folder", "attribute:Smiling"), Labels::Attribute("Smiling".into()));
    assert_eq!(labels("folder", "folder"), Labels::Folder);
    assert_eq!(labels("synthetic", "none"), Labels::None);
}

#[test]
fn differences_say_whether_a_resumed_run_may_have_them() {
    let ours = load("smoke", &[]);
    assert!(ours.diff(&ours).is_empty());
    let sets = [
        "train.lr=5e-4",
        "train.global_batch=32",
        "data.workers=2",
        "model.head_dim=4",
        "model.checkpoint_activations=[true,false]",
        "seed=1",
        "monitor.log_every=2",
    ];
    let theirs = load("smoke", &sets);
    let found: Vec<_> = ours.diff(&theirs).into_iter().map(|d| (d.key, d.ours, d.theirs, d.kind)).collect();
    use DifferenceKind::{Free, Learned};
    let expected = [
        ("data.workers", "1", "2", Free),
        ("model.checkpoint_activations", "[]", "[true,false]", Free),
        ("model.head_dim", "null", "4", Learned),
        ("monitor.log_every", "1", "2", Free),
        ("seed", "0", "1", Learned),
        ("train.global_batch", "16", "32", Learned),
        ("train.lr", "0.001", "0.0005", Free),
    ];
    assert_eq!(found, expected.map(|(k, a, b, kind)| (k.to_owned(), a.to_owned(), b.to_owned(), kind)));
    assert_ne!(ours.fingerprint(), theirs.fingerprint());
    assert_eq!(ours.fingerprint().len(), 64);
}

#[test]
fn keys_that_decide_the_result_count_as_learned_in_any_section() {
    let sets = [
        "diffusion.schedule=linear",
        "diffusion.predict=v",
        "diffusion.timestep_sampler=stratified",
        "ema.rates=[0.5]",
        "data.image_size=32",
        "data.image_size=[16, 32]",
        "data.alpha=white",
        "data.fit=pad",
        "data.flip=true",
        "model.dropout=0.1",
        "diffusion.weighting=min_snr",
    ];
    let ours = load("smoke", &[]);
    for set in sets {
        let differences = ours.diff(&load("smoke", &[set]));
        assert!(
            matches!(&differences[..], [d] if d.kind == DifferenceKind::Learned && set.starts_with(&d.key)),
            "{set}"
        );
    }
}

#[test]
fn a_key_can_be_checked_on_its_own() {
    check_key("train.lr", "--allow-change").expect("a key");
    let error = check_key("train.lrr", "--allow-change").expect_err("no key").to_string();
    assert_eq!(error, "unknown key `train.lrr` in --allow-change. Did you mean `train.lr`?");
    assert!(check_key("train", "--allow-change").is_err(), "a section is not a key");
}

#[test]
fn text_resolves_like_a_file_of_its_name() {
    let settings = Settings::from_toml("extends = 'smoke'\nseed = 3", "runs/x/plan.toml", &[]).expect("valid");
    assert_eq!((settings.seed, settings.run.dir.as_str()), (3, "runs/plan"));
}
