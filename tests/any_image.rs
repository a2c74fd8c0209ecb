//! Images that are neither square nor of 8 bits nor grey or RGB: through training, sampling, evaluation and export.

use std::fs;
use std::path::Path;

use image::{ImageBuffer, Luma, Rgba, RgbaImage};
use serde_json::Value;
use tempfile::TempDir;

use crate::common;
use crate::common::golden::tensor;
use crate::common::tensorboard::event_files;
use crate::common::{Outcome, buffers, check_same_bits, losses, metrics, mpirun, program, run, sets, succeed};

/// `count` arrays `[channels, height, width]` of bytes, `00.npy` and so on, below `folder`.
fn arrays(folder: &Path, count: u32, shape: [u32; 3]) {
    fs::create_dir_all(folder).unwrap();
    let [channels, height, width] = shape;
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({channels}, {height}, {width}), }}\n");
    for i in 0..count {
        let values = (0..channels * height * width).map(|value| (value * (i + 1) % 251) as u8);
        let start = [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
        fs::write(folder.join(format!("{i:02}.npy")), start.into_iter().chain(values).collect::<Vec<u8>>()).unwrap();
    }
}

/// The keys of a data set, as arguments.
fn set(images: &Path, more: &[&str]) -> Vec<String> {
    let own = ["data.kind=folder", &format!("data.path={}", images.display()), "train.global_batch=4"];
    [sets(&own), sets(more)].concat()
}

/// Trains for four steps, with a grid of samples after the last.
fn train(ranks: usize, images: &Path, run_dir: &Path, more: &[&str]) -> Outcome {
    let mut command = common::train(ranks, run_dir, 4, &["--set", "monitor.sample_every=4"]);
    succeed(command.args(set(images, more)))
}

/// Samples of a model, as a tensor: its shape and its values.
fn sample(ranks: usize, model: &Path, more: &[&str]) -> (Vec<usize>, Vec<f32>) {
    let out = model.with_extension("safetensors");
    let mut command = mpirun(ranks);
    command.args(["sample", "-n", "4", "--steps", "4"]).args(more);
    succeed(command.arg("--model").arg(model).arg("--out").arg(&out));
    tensor(&out, "samples")
}

fn picture(path: &Path) -> (u32, u32, image::ColorType) {
    let image = image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (image.width(), image.height(), image.color())
}

fn json(command: &mut std::process::Command) -> Value {
    serde_json::from_str(&succeed(command).stdout).unwrap()
}

#[test]
fn oblong_images_go_through_every_command() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let oblong = ["data.image_size=[32, 16]", "data.channels=3", "data.fit=pad", "data.alpha=white"];
    fs::create_dir_all(at("images")).unwrap();
    for i in 0..6 {
        let image = RgbaImage::from_fn(20 + i, 24, |x, y| Rgba([(9 * x) as u8, (7 * y) as u8, 40 * i as u8, 200]));
        image.save(at("images").join(format!("{i}.png"))).unwrap();
    }
    train(2, &at("images"), &at("run"), &oblong);
    train(1, &at("images"), &at("alone"), &oblong);
    for ((step, ours), (_, theirs)) in losses(&at("alone")).into_iter().zip(losses(&at("run"))) {
        assert!((ours - theirs).abs() <= 1e-5 * theirs.abs(), "step {step}: {ours} on one rank, {theirs} on two");
    }
    // Four by four images, enlarged to a width of 64 pixels, with gaps of two.
    let grid = at("run/samples/step-000000004.png");
    assert_eq!(picture(&grid), (4 * 66 - 2, 4 * 130 - 2, image::ColorType::Rgb8));
    assert!(!event_files(&at("run")).is_empty());

    let (shape, values) = sample(2, &at("run"), &[]);
    assert_eq!(shape, [4, 3, 32, 16]);
    assert!(values.iter().all(|value| value.is_finite()));
    let mut command = mpirun(2);
    command.args(["sample", "-n", "3", "--steps", "2", "--model"]).arg(at("run")).arg("--out");
    succeed(command.arg(format!("{}/", at("drawn").display())));
    assert_eq!(picture(&at("drawn/000002.png")), (16, 32, image::ColorType::Rgb8));
    let noise = at("noise.safetensors");
    let mut command = program();
    command.args(["encode", "-n", "2", "--steps", "4", "--split", "train", "--model"]).arg(at("run"));
    succeed(command.arg("--out").arg(&noise));
    assert_eq!((tensor(&noise, "noise").0, tensor(&noise, "images").0), (vec![2, 3, 32, 16], vec![2, 3, 32, 16]));
    let mut command = program();
    command.args(["sample", "-n", "2", "--steps", "4", "--init-noise"]).arg(&noise).arg("--model").arg(at("run"));
    succeed(command.args(["--trajectory", "--out"]).arg(at("back.safetensors")));
    assert_eq!(tensor(&at("back.safetensors"), "trajectory").0, [2, 4, 3, 32, 16]);
    let mut command = program();
    command.args(["plot", "reverse", "--steps", "4", "--model"]).arg(at("run")).arg("--out").arg(at("reverse.png"));
    succeed(&mut command);
    assert_eq!(picture(&at("reverse.png")).0, 4 * 66 - 2);

    let mut command = program();
    command.args(["eval", "nll", "--json", "-n", "2", "--split", "train", "--model"]).arg(at("run"));
    assert!(json(&mut command)["bits_per_dim"].as_f64().unwrap().is_finite());
    for samples in [at("drawn"), at("run").with_extension("safetensors")] {
        let mut command = program();
        command
            .args(["eval", "fid", "--json", "--split", "train", "--data", "smoke"])
            .args(set(&at("images"), &oblong));
        assert!(json(command.arg("--samples").arg(samples))["frechet_distance"].as_f64().unwrap() > 0.0);
    }

    let mut command = program();
    succeed(command.arg("export").arg(at("run")).arg("--out").arg(at("exported")));
    let config = fs::read_to_string(at("exported/unet/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["sample_size"], serde_json::json!([32, 16]));
    let (shape, again) = sample(1, &at("exported"), &["--seed", "5"]);
    assert_eq!(shape, [4, 3, 32, 16]);
    let (_, ours) = sample(1, &at("run"), &["--seed", "5"]);
    assert!(again.iter().zip(&ours).all(|(again, ours)| (again - ours).abs() < 1e-4));

    let outcome = run(program()
        .args(["sample", "--init-noise"])
        .arg(at("back.safetensors"))
        .args(["-n", "2", "--out", "x.png", "--model"])
        .arg(at("run")));
    assert!(outcome.stderr.contains("`noise` [2, 3, 32, 16]"), "{}", outcome.stderr);
}

#[test]
fn five_channels_are_trained_sampled_and_shown() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    arrays(&at("images"), 6, [5, 16, 16]);
    let five = ["data.channels=5", "data.flip=true", "diffusion.variance=learned_range", "diffusion.loss=hybrid"];
    train(2, &at("images"), &at("run"), &five);
    assert_eq!(picture(&at("run/samples/step-000000004.png")).2, image::ColorType::Rgb8);
    let (shape, _) = sample(2, &at("run"), &[]);
    assert_eq!(shape, [4, 5, 16, 16]);
    let mut command = program();
    command.args(["sample", "-n", "1", "--steps", "2", "--model"]).arg(at("run")).arg("--out").arg(at("one.png"));
    let outcome = succeed(&mut command);
    assert!(outcome.stderr.contains("the first three channels of 5; FILE.safetensors holds all"), "{}", outcome.stderr);
    assert_eq!(picture(&at("one.png")), (64, 64, image::ColorType::Rgb8));
    let mut command = program();
    command.args(["eval", "fid", "--json", "--split", "train", "--data", "smoke"]).args(set(&at("images"), &five));
    let found = json(command.arg("--samples").arg(at("run.safetensors")));
    assert_eq!(found["dim"], 5 * 256);
    let mut command = program();
    command.args(["eval", "nll", "--json", "-n", "2", "--split", "train", "--model"]).arg(at("run"));
    json(&mut command);
    let mut command = program();
    succeed(command.arg("export").arg(at("run")).arg("--out").arg(at("exported")));
    let card = fs::read_to_string(at("exported/README.md")).unwrap();
    assert!(card.contains("5x16x16") && card.contains("numpy.save"), "{card}");
    assert_eq!(sample(1, &at("exported"), &[]).0, [4, 5, 16, 16]);
    let mut command = program();
    command.args(["data", "info", "--json", "--config", "smoke", "--out"]).arg(at("grid.png"));
    let found = json(command.args(set(&at("images"), &five)));
    assert_eq!((&found["channels"], &found["size"], &found["read"]), (&5.into(), &16.into(), &6.into()));

    // Pictures hold three of the channels.
    let mut command = program();
    command.args(["sample", "-n", "3", "--steps", "2", "--model"]).arg(at("run"));
    succeed(command.arg("--out").arg(format!("{}/", at("drawn").display())));
    let mut command = program();
    command.args(["eval", "fid", "--split", "train", "--data", "smoke"]).args(set(&at("images"), &five));
    let outcome = run(command.arg("--samples").arg(at("drawn")));
    assert_eq!(outcome.code, 4, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("has 3 channels, and data.channels = 5"), "{}", outcome.stderr);
}

#[test]
fn sixteen_bits_reach_the_network() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Below the 8 bits of one grey level, so that only more bits tell images from black.
    for (name, scale) in [("dark", 1), ("bright", 257)] {
        fs::create_dir_all(at(name)).unwrap();
        for i in 0..6_u32 {
            let value = |x: u32, y: u32| ((x * y * (i + 1)) % 120 * scale) as u16;
            let image = ImageBuffer::from_fn(16, 16, |x, y| Luma([value(x, y)]));
            image.save(at(name).join(format!("{i}.png"))).unwrap();
        }
    }
    let range = |high: u32| format!("data.range=[0, {high}]");
    train(2, &at("dark"), &at("dark-run"), &[&range(255)]);
    train(2, &at("bright"), &at("bright-run"), &[&range(65535)]);
    // 257 is 65535 / 255.
    for ((step, ours), (_, theirs)) in losses(&at("dark-run")).into_iter().zip(losses(&at("bright-run"))) {
        assert!((ours - theirs).abs() <= 1e-5 * theirs.abs(), "step {step}: {ours} and {theirs}");
    }
    // What fits into 8 bits trains the same without a range, to rounding.
    let outcome = train(2, &at("bright"), &at("bytes-run"), &[]);
    assert!(outcome.stderr.contains("16 bits, which are reduced to 8. Set data.range"), "{}", outcome.stderr);
    for ((step, ours), (_, theirs)) in losses(&at("bytes-run")).into_iter().zip(losses(&at("bright-run"))) {
        assert!((ours - theirs).abs() <= 1e-5 * theirs.abs(), "step {step}: {ours} and {theirs}");
    }
    let mean = |images: &str, more: &[&str]| {
        let mut command = program();
        command.args(["data", "info", "--json", "--config", "smoke"]).args(set(&at(images), more));
        json(&mut command)["mean_pixel"].as_f64().unwrap()
    };
    assert!(mean("dark", &[]) == 0.0 && (mean("dark", &[&range(255)]) - mean("bright", &[])).abs() < 0.51);
    let mut command = program();
    command.args(["eval", "fid", "--json", "--split", "train", "--data", "smoke"]);
    command.args(set(&at("bright"), &[&range(65535)]));
    sample(1, &at("bright-run"), &[]);
    json(command.arg("--samples").arg(at("bright-run.safetensors")));
    // Restarts continue with the same bits.
    let mut command = common::train(2, &at("bright-run"), 6, &["--set", "monitor.sample_every=4"]);
    succeed(command.args(set(&at("bright"), &[&range(65535)])));
    let mut command = common::train(2, &at("straight"), 6, &["--set", "monitor.sample_every=4"]);
    succeed(command.args(set(&at("bright"), &[&range(65535)])));
    check_same_bits("restarted", &buffers(&at("bright-run"), 6), &buffers(&at("straight"), 6));
    let mut command = common::train(1, &at("straight"), 7, &[]);
    let outcome = run(command.args(set(&at("bright"), &["data.range=[0, 40000]"])));
    assert!(outcome.code == 3 && outcome.stderr.contains("data.range"), "{}", outcome.stderr);
}

#[test]
fn opacity_is_learned_if_it_is_kept() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("images")).unwrap();
    for i in 0..6 {
        let image = RgbaImage::from_fn(16, 16, |x, y| Rgba([200, 100, 40 * i as u8, (16 * x.max(y)).min(255) as u8]));
        image.save(at("images").join(format!("{i}.webp"))).unwrap();
    }
    let kept = ["data.channels=4", "data.alpha=keep"];
    train(2, &at("images"), &at("run"), &kept);
    assert_eq!(sample(1, &at("run"), &[]).0, [4, 4, 16, 16]);
    assert_eq!(picture(&at("run/samples/step-000000004.png")).2, image::ColorType::Rgb8);
    assert_eq!(metrics(&at("run")).len(), 4);
    // What was removed is not what was kept.
    train(1, &at("images"), &at("black"), &["data.channels=3"]);
    assert_ne!(losses(&at("run")), losses(&at("black")));
    let mut command = common::train(1, &at("refused"), 4, &[]);
    let outcome = run(command.args(set(&at("images"), &["data.channels=4"])));
    assert_eq!(outcome.code, 4, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("opacity, and data.channels = 4; to keep it, set data.alpha"),
        "{}",
        outcome.stderr
    );
}
