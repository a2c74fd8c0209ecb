//! `import`: runs that hold models from elsewhere can be evaluated, sampled, and trained further.

use std::path::{Path, PathBuf};
use std::process::Command;

use ddpm_config::Settings;
use ddpm_nn::{Inputs, Network, Weights};
use image::{Rgb, RgbImage};
use safetensors::SafeTensors;
use tch::{Kind, Tensor};
use tempfile::TempDir;

use crate::common::golden::{follows_diffusers, largest_distance, tensor};
use crate::common::{Outcome, buffers, check_same_bits, losses, mpirun, program, root, run, succeed, verified};

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

const UPDOWN: &str = "--num-head-channels 16 --use-new-attention-order false";

/// The checkpoints of OpenAI's code, and what is to be said of each.
const OPENAI: [(&str, &str); 4] = [
    ("improved-hybrid", "--num-heads 2 --use-new-attention-order false"),
    ("improved-classes", "--num-heads 1"),
    ("guided-updown", UPDOWN),
    ("guided-new-order", "--num_heads 4 --use_new_attention_order True"),
];

fn import(ranks: Option<usize>, source: &Path, out: &Path, more: &str) -> Command {
    let mut command = ranks.map_or_else(program, mpirun);
    command.arg("import").arg(source).arg("--out").arg(out).args(more.split_whitespace());
    command
}

fn import_openai(name: &str, flags: &str, out: &Path) -> Outcome {
    let process = "--image-size 16 --diffusion-steps 1000 --noise-schedule linear";
    let source = golden(&format!("openai-{name}.pt"));
    succeed(&mut import(None, &source, out, &format!("{process} {flags}")))
}

/// The network that a run's `config.toml` describes, with the weights in its checkpoint of step 0.
fn network(dir: &Path) -> (Network, Weights) {
    let text = std::fs::read_to_string(dir.join("config.toml")).unwrap();
    let network = Network::new(Settings::from_toml(&text, "config.toml", &[]).unwrap().architecture()).unwrap();
    let flat: Vec<f32> = buffers(dir, 0)["weights"].iter().map(|bits| f32::from_bits(*bits)).collect();
    let weights = Weights::over(network.layout(), Tensor::from_slice(&flat)).unwrap();
    (network, weights)
}

/// Whole numbers of a file, if it has them.
fn integers(path: &Path, name: &str) -> Option<Tensor> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).ok()?;
    Some(Tensor::from_data_size(tensor.data(), &[tensor.shape()[0] as i64], Kind::Int64))
}

fn check_forward(dir: &Path, name: &str) {
    let path = golden(&format!("openai-{name}.safetensors"));
    let (network, weights) = network(dir);
    let (shape, x) = tensor(&path, "x");
    let x = Tensor::from_slice(&x).view(shape.iter().map(|n| *n as i64).collect::<Vec<_>>().as_slice());
    let (t, labels) = (integers(&path, "t").unwrap(), integers(&path, "labels"));
    let inputs = Inputs { x: &x, t: &t, labels: labels.as_ref(), dropout: None };
    let y = tch::no_grad(|| network.forward(&weights, &inputs)).unwrap();
    let y = Vec::<f32>::try_from(y.flatten(0, -1)).unwrap();
    let distance = largest_distance(&y, &tensor(&path, "y").1);
    assert!(distance <= 1e-4, "{name} is off by {distance:e}");
}

/// A folder of coloured pictures in three classes, and the settings that train on them.
fn pictures(folder: &Path) -> String {
    for (class, base) in [40u8, 120, 200].into_iter().enumerate() {
        std::fs::create_dir_all(folder.join(class.to_string())).unwrap();
        for i in 0..8u8 {
            let picture = RgbImage::from_fn(16, 16, |x, y| Rgb([base + i, 10 * x as u8, 10 * y as u8]));
            picture.save(folder.join(format!("{class}/{i}.png"))).unwrap();
        }
    }
    format!(
        "--set data.kind=folder --set data.labels=folder --set data.path={} --set train.global_batch=4 --set \
         train.lr=1e-4 --set monitor.log_every=1 --set monitor.sample_every=0 --set checkpoint.every=10",
        folder.display()
    )
}

/// Trains the run in `dir` further.
fn train(ranks: usize, dir: &Path, steps: u64, more: &str) -> Command {
    let mut command = mpirun(ranks);
    command.arg("train").arg("--config").arg(dir.join("config.toml")).args(["--steps", &steps.to_string()]);
    command.args(more.split_whitespace());
    command
}

#[test]
fn checkpoints_of_openais_code_become_runs() {
    let dir = TempDir::new().unwrap();
    let data = pictures(&dir.path().join("pictures"));
    for (name, flags) in OPENAI {
        let at = dir.path().join(name);
        let outcome = import_openai(name, flags, &at);
        assert!(outcome.stdout.contains("holds the model at step 0"), "{}", outcome.stdout);
        assert_eq!(verified(&at.join("checkpoints")), [0]);
        check_forward(&at, name);
        // Moments are zero, and the average equals the weights.
        let held = buffers(&at, 0);
        assert!(
            held["weights"] == held["ema/0.9999"] && held["exp_avg"].iter().chain(&held["exp_avg_sq"]).all(|b| *b == 0)
        );

        let samples = |model: &Path| {
            let out = dir.path().join("samples.safetensors");
            let mut sample = program();
            sample.args(["sample", "-n", "4", "--steps", "3", "--model"]).arg(model).arg("--out").arg(&out);
            succeed(&mut sample);
            tensor(&out, "samples")
        };
        let (shape, drawn) = samples(&at);
        assert_eq!(shape, [4, 3, 16, 16]);
        assert!(drawn.iter().all(|value| value.abs() <= 1.0));

        // UNet2DModel has only heads of one width.
        let exported = dir.path().join(format!("{name}-exported"));
        let outcome = run(program().arg("export").arg(&at).arg("--out").arg(&exported).arg("--no-grid"));
        if name == "guided-new-order" {
            assert!(outcome.code == 2 && outcome.stderr.contains("heads of one width"), "{}", outcome.stderr);
        } else {
            assert_eq!(samples(&exported), (shape, drawn), "{}", outcome.stderr);
        }

        let outcome = succeed(&mut train(1, &at, 20, &data));
        assert!(outcome.stderr.contains("resuming from step 0"), "{}", outcome.stderr);
        let losses = losses(&at);
        assert!(losses.len() == 20 && losses.iter().all(|(_, loss)| loss.is_finite()), "{losses:?}");
        assert_ne!(buffers(&at, 20)["weights"], held["weights"]);
    }
}

/// From the first step on it is a run like any other: the same bits on the same ranks after a restart, evaluated on its
/// own data, and no longer free to change what it was trained on.
#[test]
fn an_imported_run_is_a_run() {
    let dir = TempDir::new().unwrap();
    let data = pictures(&dir.path().join("pictures"));
    let runs = ["whole", "parts"].map(|name| dir.path().join(name));
    for (at, ends) in runs.iter().zip([&[20][..], &[10, 20]]) {
        import_openai("guided-updown", UPDOWN, at);
        for end in ends {
            succeed(&mut train(2, at, *end, &data));
        }
    }
    check_same_bits("a restart", &buffers(&runs[1], 20), &buffers(&runs[0], 20));
    let line = format!("eval nll --split train --timesteps 3 -n 8 --model {}", runs[0].display());
    succeed(program().args(line.split_whitespace()));
    let refused = run(&mut train(1, &runs[0], 30, "--set data.labels=none --set model.classes=0"));
    assert_eq!(refused.code, 3, "{}", refused.stderr);
}

/// Diffusers directories of every kind give the images that diffusers drew, from the run as from the directory.
#[test]
fn diffusers_directories_become_runs() {
    let dir = TempDir::new().unwrap();
    for (model, expected, classes) in [
        ("pipeline-ho", "unet-ho", None),
        ("old-cifar10", "old-cifar10", None),
        ("old-scale-shift", "old-scale-shift", Some([0, 3, 4])),
        ("old-resampling", "old-resampling", None),
    ] {
        let at = dir.path().join(model);
        succeed(&mut import(Some(2), &golden(model), &at, ""));
        follows_diffusers(&at, expected, classes);
    }
    // Learned variances, and classes: the same bits as from the directory.
    for model in ["pipeline-improved", "pipeline-digits"] {
        let at = dir.path().join(model);
        succeed(&mut import(None, &golden(model), &at, ""));
        let draw = |source: &Path| {
            let out = dir.path().join("drawn.safetensors");
            let mut command = program();
            command.args(["sample", "--sampler", "ddpm", "-n", "4", "--steps", "5", "--model"]).arg(source);
            succeed(command.arg("--out").arg(&out));
            std::fs::read(out).unwrap()
        };
        assert!(draw(&at) == draw(&golden(model)), "{model}");
    }
}

/// What is known of the model may be said at once.
#[test]
fn settings_and_the_step_can_be_given() {
    let dir = TempDir::new().unwrap();
    let data = pictures(&dir.path().join("pictures"));
    let at = dir.path().join("run");
    let flags = format!("--num-heads 1 --step 3000 --set model.classes=4 --set diffusion.label_dropout=0.1 {data}");
    let source = golden("openai-improved-classes.pt");
    let process = "--image-size 16 --diffusion-steps 4000 --noise-schedule cosine --rescale-timesteps true";
    let outcome = succeed(&mut import(None, &source, &at, &format!("{process} {flags} --json")));
    let said: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((said["step"].as_u64(), said["parameters"].as_u64()), (Some(3000), Some(825_475)));
    let text = std::fs::read_to_string(at.join("config.toml")).unwrap();
    let settings = Settings::from_toml(&text, "config.toml", &[]).unwrap();
    assert_eq!((settings.model.time_scale, settings.model.heads, settings.null_class()), (0.25, Some(1), Some(4)));
    assert_eq!((settings.diffusion.timesteps, settings.ema.warmup), (4000, false));
    assert_eq!(settings.train.global_batch, 4);
    succeed(&mut train(1, &at, 3010, ""));
    assert_eq!(verified(&at.join("checkpoints")), [3010, 3000]);
    // Nothing writes over a run.
    let again = run(&mut import(None, &source, &at, &format!("{process} {flags}")));
    assert!(again.code == 2 && again.stderr.contains("holds a run already"), "{}", again.stderr);
}
