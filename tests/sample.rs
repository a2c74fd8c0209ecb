//! Sampling, plots and looking at data, as users run them.

mod common;

use std::path::Path;

use common::{mpirun, program, root, run, succeed, train};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

fn tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let values = tensor.data().as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
    (tensor.shape().to_vec(), values)
}

fn largest_distance(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// DDIM in 10 steps from given noise follows diffusers' DDIMScheduler; `classes` are those of the golden images.
fn check_pipeline(name: &str, classes: Option<[usize; 3]>) {
    let dir = TempDir::new().unwrap();
    let golden = root().join("tests/golden");
    let (shape, noise) = tensor(&golden.join(format!("unet-{name}.safetensors")), "x");
    let (_, expected) = tensor(&golden.join(format!("unet-{name}.safetensors")), "ddim10_leading_from_x");
    let bytes: Vec<u8> = noise.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, shape.clone(), &bytes).unwrap();
    let init = dir.path().join("noise.safetensors");
    std::fs::write(&init, safetensors::serialize([("noise", view)], None).unwrap()).unwrap();
    let draw = |ranks: usize, class: &[&str]| {
        let out = dir.path().join("samples.safetensors");
        let mut command = mpirun(ranks);
        command.args(["sample", "--sampler", "ddim", "--steps", "10", "--spacing", "leading", "-n", "3"]).args(class);
        command.arg("--model").arg(golden.join(format!("pipeline-{name}"))).arg("--init-noise").arg(&init);
        succeed(command.arg("--out").arg(&out));
        let (found, samples) = tensor(&out, "samples");
        assert_eq!(found, shape);
        samples
    };
    let size = expected.len() / 3;
    for ranks in [1, 2] {
        let samples = match classes {
            None => draw(ranks, &[]),
            // One class a run: of each run, the image whose golden twin has that class.
            Some(classes) => (0..3)
                .flat_map(|i| draw(ranks, &["--class", &classes[i].to_string()])[i * size..(i + 1) * size].to_vec())
                .collect(),
        };
        let distance = largest_distance(&samples, &expected);
        assert!(distance <= 1e-3, "{name} on {ranks} rank(s) is off by {distance}");
    }
}

#[test]
fn ho_pipeline_samples_as_diffusers_does() {
    check_pipeline("ho", None);
}

#[test]
fn digits_pipeline_samples_as_diffusers_does() {
    check_pipeline("digits", Some([0, 3, 4]));
}

#[test]
fn an_image_depends_on_its_index_only() {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(2, dir.path(), 10, &[]));
    let draw = |ranks: usize, count: &str, batch: &str, more: &[&str]| {
        let out = dir.path().join("out.safetensors");
        let mut command = mpirun(ranks);
        command.args(["sample", "-n", count, "--batch", batch, "--seed", "3"]).args(more);
        succeed(command.arg("--model").arg(dir.path()).arg("--out").arg(&out));
        tensor(&out, "samples").1
    };
    for sampler in [["--sampler", "ddpm", "--steps", "20"], ["--sampler", "dpmpp", "--steps", "8"]] {
        let all = draw(1, "7", "64", &sampler);
        assert!(largest_distance(&draw(1, "7", "2", &sampler), &all) <= 1e-5, "{sampler:?} in batches of 2");
        assert!(largest_distance(&draw(3, "7", "64", &sampler), &all) <= 1e-5, "{sampler:?} on 3 ranks");
        let first = draw(1, "3", "64", &sampler);
        assert!(largest_distance(&first, &all[..first.len()]) <= 1e-5, "{sampler:?}: the first 3 of 7");
    }
    let raw = draw(1, "2", "64", &["--weights", "raw"]);
    let named = draw(1, "2", "64", &["--weights", "0.9"]);
    assert!(largest_distance(&raw, &named) > 1e-4, "raw and averaged weights draw the same");
    assert_eq!(named, draw(1, "2", "64", &["--weights", "ema"]));
}

#[test]
fn outputs_of_every_kind() {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(1, dir.path(), 10, &["--set", "model.classes=10", "--set", "diffusion.label_dropout=0.1"]));
    let at = |name: &str| dir.path().join(name);
    let sample = |more: &[&str], out: &Path| {
        let mut command = program();
        command.args(["sample", "--steps", "5", "--model"]).arg(format!("{}@10", dir.path().display())).args(more);
        succeed(command.arg("--out").arg(out))
    };
    sample(&["--class", "all", "-n", "20", "--guidance", "2"], &at("classes.png"));
    let grid = image::open(at("classes.png")).unwrap();
    assert_eq!((grid.width(), grid.height()), (2 * 66 - 2, 10 * 66 - 2), "a row per class");
    sample(&["--class", "3", "-n", "2"], &at("folder/"));
    assert_eq!(image::open(at("folder/000001.png")).unwrap().width(), 16);
    sample(&["-n", "2", "--trajectory", "--json"], &at("t.safetensors"));
    let (shape, trajectory) = tensor(&at("t.safetensors"), "trajectory");
    assert_eq!(shape, [2, 5, 1, 16, 16]);
    let (_, samples) = tensor(&at("t.safetensors"), "samples");
    assert_eq!(trajectory[4 * 256..5 * 256], samples[..256], "the last state is the sample");
}

#[test]
fn pictures_and_findings() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    succeed(program().args(["plot", "schedule", "--config", "mnist", "--out"]).arg(at("schedule.png")));
    assert_eq!(image::open(at("schedule.png")).unwrap().width(), 1800);
    succeed(program().args(["plot", "forward", "--config", "smoke", "--out"]).arg(at("forward.png")));
    assert_eq!(image::open(at("forward.png")).unwrap().height(), 4 * 66 - 2);
    succeed(&mut train(1, &at("run"), 20, &[]));
    succeed(program().args(["plot", "loss", "--run"]).arg(at("run")).arg("--out").arg(at("loss.png")));
    assert_eq!(image::open(at("loss.png")).unwrap().width(), 900);
    let info = succeed(
        program().args(["data", "info", "--config", "smoke", "--check", "--json", "--out"]).arg(at("data.png")),
    );
    let info: serde_json::Value = serde_json::from_str(&info.stdout).unwrap();
    assert_eq!(
        (info["images"].as_u64(), info["classes"].as_u64(), info["failed"].as_u64()),
        (Some(512), Some(10), Some(0))
    );
    assert!(at("data.png").is_file());
    let doctor = succeed(mpirun(2).args(["doctor", "--json"]));
    let findings: Vec<serde_json::Value> = doctor.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(
        findings.iter().any(|f| f["check"] == "ranks" && f["detail"].as_str().unwrap().starts_with("2 in this run"))
    );
    let completions = run(program().args(["completions", "bash"]));
    assert!(completions.code == 0 && completions.stdout.contains("complete -F"), "{}", completions.stdout);
}
