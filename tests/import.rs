//! Sampling from models saved by other programs: diffusers directories of any version and layout.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::common::golden::follows_diffusers;
use crate::common::{program, root, run};

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

/// The names of files in the source, and in the destination.
type Files<'a> = &'a [(&'a str, &'a str)];

/// Copies files of `from` under other names to `to`.
fn lay_out(from: &Path, to: &Path, files: Files) {
    for (source, target) in files {
        let target = to.join(target);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(source), target).unwrap();
    }
}

#[test]
fn a_directory_of_version_0_4() {
    follows_diffusers(&golden("old-cifar10"), "old-cifar10", None);
}

#[test]
fn half_precision_under_a_variant_and_a_pndm_scheduler() {
    follows_diffusers(&golden("old-celebahq"), "old-celebahq", None);
}

#[test]
fn bf16_shards_of_a_conditional_model_of_version_0_16() {
    follows_diffusers(&golden("old-scale-shift"), "old-scale-shift", Some([0, 3, 4]));
}

#[test]
fn a_model_saved_alone_with_residual_resampling() {
    follows_diffusers(&golden("old-resampling"), "old-resampling", None);
}

/// The same model in every supported layout.
#[test]
fn every_layout() {
    const CONFIG: &str = "unet/config.json";
    const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
    const SCHEDULER: &str = "scheduler/scheduler_config.json";
    let dir = TempDir::new().unwrap();
    let cases: [(&str, &str, Files); 6] = [
        (
            "root",
            "root",
            &[(CONFIG, "config.json"), (WEIGHTS, "diffusion_pytorch_model.bin"), (SCHEDULER, "scheduler_config.json")],
        ),
        ("no-index", "no-index", &[(CONFIG, CONFIG), (WEIGHTS, WEIGHTS), (SCHEDULER, SCHEDULER)]),
        ("part", "part/unet", &[(CONFIG, CONFIG), (WEIGHTS, WEIGHTS), (SCHEDULER, SCHEDULER)]),
        (
            "training",
            "training/checkpoint-500/unet_ema",
            &[
                (CONFIG, "checkpoint-500/unet_ema/config.json"),
                (WEIGHTS, "checkpoint-500/unet_ema/diffusion_pytorch_model.safetensors"),
                (SCHEDULER, SCHEDULER),
            ],
        ),
        (
            "variant",
            "variant",
            &[
                (CONFIG, CONFIG),
                (WEIGHTS, "unet/diffusion_pytorch_model.non_ema.bin"),
                (SCHEDULER, "scheduler_config.json"),
            ],
        ),
        (
            "preferred",
            "preferred",
            &[
                (CONFIG, CONFIG),
                (WEIGHTS, WEIGHTS),
                // Not weights, and ignored.
                (CONFIG, "unet/diffusion_pytorch_model.bin"),
                (CONFIG, "unet/diffusion_pytorch_model.fp16.safetensors"),
                (SCHEDULER, SCHEDULER),
            ],
        ),
    ];
    for (folder, model, files) in cases {
        lay_out(&golden("pipeline-ho"), &dir.path().join(folder), files);
        follows_diffusers(&dir.path().join(model), "unet-ho", None);
    }
}

/// Old files lack `_class_name` and other current keys; files may contain keys of other programs, and begin with a byte
/// order mark.
#[test]
fn keys_absent_and_keys_unknown() {
    let dir = TempDir::new().unwrap();
    let model = dir.path().join("model");
    let from = golden("old-celebahq");
    lay_out(
        &from,
        &model,
        &[
            ("unet/config.json", "unet/config.json"),
            ("unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors"),
        ],
    );
    let path = model.join("unet/config.json");
    let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    // As written by EMAModel into the model's own file.
    config["decay"] = 0.9999.into();
    config["_name_or_path"] = "somewhere".into();
    fs::write(&path, format!("\u{feff}{config}")).unwrap();
    fs::write(model.join("scheduler_config.json"), "\u{feff}{}").unwrap();
    follows_diffusers(&model, "old-celebahq", None);
    let mut command = program();
    command.args(["sample", "-n", "1", "--steps", "2", "--out"]).arg(dir.path().join("a.png"));
    let outcome = run(command.arg("--model").arg(&model));
    let warnings: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("were ignored: decay")).collect();
    assert_eq!((outcome.code, warnings.len()), (0, 1), "{}", outcome.stderr);

    // The name of `prediction_type` until version 0.9.
    let draw = |scheduler: &str, out: &str| {
        fs::write(model.join("scheduler_config.json"), scheduler).unwrap();
        let mut command = program();
        command.args(["sample", "-n", "1", "--steps", "2", "--out"]).arg(dir.path().join(out));
        let outcome = run(command.arg("--model").arg(&model));
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        fs::read(dir.path().join(out)).unwrap()
    };
    let of_image = draw(r#"{"predict_epsilon": false}"#, "b.safetensors");
    assert_eq!(of_image, draw(r#"{"prediction_type": "sample", "predict_epsilon": true}"#, "c.safetensors"));
    assert_ne!(of_image, draw(r#"{"predict_epsilon": true}"#, "d.safetensors"));
}
