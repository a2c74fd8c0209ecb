//! Every preset resolves, fits one and two ranks, and says what it is.

use ddpm_config::{ModelKind, PRESETS, Preset, Settings, Variance};

fn load(name: &str) -> Settings {
    Settings::load(name, &[]).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_preset_is_valid_on_one_and_two_ranks() {
    for preset in PRESETS {
        let settings = load(preset.name);
        for world in [1, 2] {
            settings.check_world(world).unwrap_or_else(|error| panic!("{} on {world}: {error}", preset.name));
        }
        assert_eq!(settings.run.name, preset.name);
        assert_eq!(settings.checkpoint_uri(), format!("runs/{}/checkpoints", preset.name));
    }
}

#[test]
fn every_file_in_configs_is_a_preset_with_its_launch_line() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).expect("the repository has configs/") {
        let path = entry.expect("readable").path();
        let name = path.file_stem().expect("a file").to_str().expect("UTF-8").to_owned();
        let preset = Preset::named(&name).unwrap_or_else(|| panic!("{name} is not built in"));
        assert!(preset.text.starts_with("# "), "{name} does not say what it is");
        assert!(preset.text.contains("\n# Data:  "), "{name} does not say where its data come from");
        let command = if load(&name).model.kind == ModelKind::Classifier { "train-classifier" } else { "train" };
        let launch = format!("\n# Run:   launch/local.sh 2 {command} --config configs/{name}.toml\n");
        assert!(preset.text.contains(&launch), "{name} lacks its launch line");
        files += 1;
    }
    assert_eq!(files, PRESETS.len());
}

#[test]
fn a_preset_has_three_spellings() {
    let settings = load("mnist");
    for spelling in ["mnist.toml", "configs/mnist.toml", "./configs/mnist.toml"] {
        assert_eq!(load(spelling), settings);
    }
    assert!(Settings::load("elsewhere/mnist.toml", &[]).is_err(), "a path that does not exist is not a preset");
}

#[test]
fn presets_that_reproduce_others_work_carry_their_numbers() {
    let cifar10 = load("cifar10");
    assert_eq!(cifar10.model.channels, [128, 256, 256, 256]);
    assert_eq!(cifar10.model.attention, [false, true, false, false]);
    assert_eq!((cifar10.model.freq_shift, cifar10.model.downsample_padding), (1, 0));
    assert_eq!((cifar10.diffusion.variance, cifar10.train.steps), (Variance::FixedLarge, 800_000));
    assert_eq!((cifar10.ema.warmup, cifar10.model.head_dim), (false, None));

    let tutorial = load("tutorial");
    assert_eq!((tutorial.model.kind, tutorial.model.channels.as_slice()), (ModelKind::Small, &[4, 10, 20, 40][..]));
    assert_eq!(tutorial.diffusion.beta_range(), (1e-4, 0.02));
    assert_eq!(tutorial.train.steps, 300 * 60_000_u64.div_ceil(128));

    for (name, dropout) in [("improved-cifar10", 0.3), ("improved-imagenet64", 0.0)] {
        let improved = load(name);
        assert_eq!((improved.diffusion.timesteps, improved.diffusion.lambda), (4000, 0.001), "{name}");
        assert_eq!((improved.model.layers_per_block, improved.model.time_scale_shift), (3, true), "{name}");
        assert_eq!((improved.model.dropout, improved.diffusion.variance), (dropout, Variance::LearnedRange), "{name}");
    }

    let su = load("su-ddpm").diffusion;
    assert_eq!(su.beta_range(), (0.02 / f64::from(su.timesteps), 0.02));
}

#[test]
fn default_betas_keep_the_noise_when_there_are_fewer_timesteps() {
    let load =
        |set: &str| Settings::load("celeba64", &["diffusion.timesteps=250".into(), set.into()]).unwrap().diffusion;
    assert_eq!(load("seed=0").beta_range(), (4e-4, 0.08));
    assert_eq!(load("diffusion.beta_end=0.02").beta_range(), (4e-4, 0.02), "a given value is taken as it is");
    assert_eq!(load("diffusion.schedule=sigmoid").beta_range(), (1e-4, 0.02));
}
