//! diffusers' UNet2DModel with every argument of its constructor varied: into a run, and out again.

use std::fs;
use std::path::Path;

use ddpm_comm::World;
use ddpm_diffusion::{Clip, Ddim, Direction, SampleOptions, Sampler, Spacing, kept_timesteps};
use ddpm_model::{Model, WeightChoice};
use serde_json::Value;
use tch::{Device, Tensor};
use tempfile::TempDir;

use crate::common::golden::{largest_distance, tensor};
use crate::common::numbers::{noise, write_weights};
use crate::common::{program, root, run, succeed};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

fn family() -> Value {
    json(&root().join("tests/golden/family.json"))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Writes a pipeline's folder, as diffusers would.
fn write(folder: &Path, config: &Value, scheduler: &Value, shapes: &[(String, Vec<usize>)]) {
    for (file, content) in [("unet/config.json", config), ("scheduler/scheduler_config.json", scheduler)] {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
    }
    write_weights(&folder.join("unet").join(WEIGHTS), shapes);
}

fn shapes(described: &Value) -> Vec<(String, Vec<usize>)> {
    let shapes = described["shapes"].as_object().unwrap().iter();
    shapes.map(|(name, shape)| (name.clone(), serde_json::from_value(shape.clone()).unwrap())).collect()
}

/// DDIM in ten steps, as diffusers' scheduler draws.
fn ddim(model: &Model, x: &Tensor, labels: Option<&Tensor>) -> Tensor {
    let kept = kept_timesteps(Spacing::Leading, model.diffusion.timesteps(), 10).unwrap();
    let options = SampleOptions {
        sampler: Sampler::Ddim(Ddim { eta: 0.0, direction: Direction::FromModel }),
        corrector: None,
        clip: Clip::Unit,
        seed: 0,
        indices: &[0, 1],
        classifier: None,
    };
    let process = model.diffusion.respaced(&kept).unwrap();
    process.sample(&options, x.copy(), |x, t| Ok(model.predict(x, t, labels)?), |_| ()).unwrap()
}

/// The run computes what diffusers computed, and is exported to what diffusers loaded and computed the same with.
fn check(name: &str, described: &Value) {
    let dir = TempDir::new().unwrap();
    let [source, held, exported] = ["source", "run", "exported"].map(|part| dir.path().join(part));
    write(&source, &described["config"], &described["scheduler"], &shapes(described));
    succeed(program().arg("import").arg(&source).arg("--out").arg(&held));
    succeed(program().arg("export").arg(&held).arg("--out").arg(&exported).arg("--no-grid"));
    assert_eq!(json(&exported.join("unet/config.json")), described["exported"], "{name}");
    for (tensor_name, _) in shapes(described) {
        let [ours, theirs] =
            [&exported, &source].map(|folder| tensor(&folder.join("unet").join(WEIGHTS), &tensor_name));
        assert!(ours == theirs, "{name}: {tensor_name}");
    }

    let world = World::init().unwrap();
    let choice = WeightChoice::SlowestAverage;
    let model = Model::open(world.collective().as_ref(), held.to_str().unwrap(), choice, Device::Cpu).unwrap();
    let [channels, height, width] = model.network.image().sizes();
    let shape = [2, channels, height, width];
    let x = Tensor::from_slice(&noise("x", shape.iter().product::<i64>() as usize)).view(shape);
    let labels = model.network.classes().map(|_| Tensor::from_slice(&[3i64, 4]));
    let close = |ours: Tensor, key: &str, tolerance| {
        let (_, theirs) = tensor(&root().join("tests/golden/family.safetensors"), &format!("{name}/{key}"));
        let distance = largest_distance(&Vec::try_from(ours.contiguous().view(-1)).unwrap(), &theirs);
        println!("{name}: {key} is off by {distance:e}");
        assert!(distance <= tolerance, "{name}: {key} is off by {distance}");
    };
    tch::no_grad(|| {
        close(model.predict(&x, &Tensor::from_slice(&[1i64, 999]), labels.as_ref()).unwrap(), "y", 1e-5);
        if described["scheduler"]["variance_type"] == "fixed_small" {
            close(ddim(&model, &x, labels.as_ref()), "ddim", 1e-3);
        }
    });
}

#[test]
fn every_supported_argument_goes_in_and_comes_out() {
    // On a busy machine threads wait for each other longer than such small layers take.
    tch::set_num_threads(1);
    for (name, described) in family()["supported"].as_object().unwrap() {
        check(name, described);
    }
}

#[test]
fn every_other_argument_is_refused_by_name() {
    let family = family();
    let base = &family["supported"]["base"];
    for refused in family["refused"].as_array().unwrap() {
        let dir = TempDir::new().unwrap();
        let [source, held] = ["source", "run"].map(|part| dir.path().join(part));
        write(&source, &refused["config"], &base["scheduler"], &shapes(base));
        let outcome = run(program().arg("import").arg(&source).arg("--out").arg(&held));
        let argument = refused["argument"].as_str().unwrap();
        assert!(outcome.code == 2 && outcome.stderr.contains(argument), "{argument}: {}", outcome.stderr);
        assert!(!held.exists(), "{argument}");
    }
}
