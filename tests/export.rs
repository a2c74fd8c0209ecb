//! Exporting: the files that diffusers and other programs read, and that nothing is lost on the way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ddpm_comm::World;
use ddpm_diffusion::{Clip, Ddim, Direction, SampleOptions, Sampler, kept_timesteps};
use ddpm_model::{Model, WeightChoice, steps};
use safetensors::SafeTensors;
use serde_json::Value;
use tch::{Device, Tensor};
use tempfile::TempDir;

use crate::common;
use crate::common::golden::{largest_distance, tensor};
use crate::common::numbers::{self, fill};
use crate::common::{buffers, in_bash, mpirun, program, root, run, succeed, train};

const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
/// The steps of the samplers in tests/golden/exports.safetensors.
const STEPS: usize = 10;

fn export(source: &Path, target: &Path, more: &[&str]) {
    succeed(program().arg("export").arg(source).arg("--out").arg(target).args(more));
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The bits of every tensor of a file, by name.
fn bits(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec())).collect()
}

/// Paths of all files below a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).iter().map(|file| format!("{name}/{file}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// Noise of that name, in this shape.
fn noise(name: &str, shape: &[i64]) -> Tensor {
    Tensor::from_slice(&numbers::noise(name, shape.iter().product::<i64>() as usize)).view(shape)
}

fn open(model: &Path) -> Model {
    let world = World::init().unwrap();
    Model::open(world.collective().as_ref(), model.to_str().unwrap(), WeightChoice::SlowestAverage, Device::Cpu)
        .unwrap()
}

/// Images of a model by DDIM and by ancestral sampling, as in tests/golden/make_export.py.
fn draw(model: &Model, x: &Tensor, labels: Option<&Tensor>) -> [Tensor; 2] {
    let kept = kept_timesteps(steps::spacing(None, &model.diffusion), model.diffusion.timesteps(), STEPS).unwrap();
    let process = model.diffusion.respaced(&kept).unwrap();
    let options = SampleOptions {
        sampler: Sampler::Ddim(Ddim { eta: 0.0, direction: Direction::FromModel }),
        corrector: None,
        clip: Clip::Unit,
        seed: 0,
        indices: &[0, 1],
        classifier: None,
    };
    let ddim = process.sample(&options, x.copy(), |x, t| Ok(model.predict(x, t, labels)?), |_| ()).unwrap();
    let mut ancestral = x.copy();
    for (taken, index) in (0..STEPS).rev().enumerate() {
        let t = process.full_t(index, 2);
        let output = model.predict(&ancestral, &process.model_timesteps(&t), labels).unwrap();
        let noise = noise(&format!("noise {taken}"), &x.size());
        let step = process.p_sample(&output, &ancestral, &t, Clip::Unit, Some(&noise), None).unwrap();
        ancestral = step.sample;
    }
    [ddim, ancestral]
}

fn check_close(what: &str, ours: &Tensor, expected: &str, tolerance: f32) {
    let (_, theirs) = tensor(&root().join("tests/golden/exports.safetensors"), expected);
    let ours: Vec<f32> = Vec::try_from(&ours.contiguous().view(-1)).unwrap();
    let distance = largest_distance(&ours, &theirs);
    println!("{what}: {expected} is off by {distance:e}");
    assert!(distance <= tolerance, "{what}: {expected} is off by {distance}");
}

/// Exports a run with the options of a golden case. The files must be those from which diffusers computed the golden
/// numbers, and lead to the same numbers here.
fn check_case(name: &str) {
    let dir = TempDir::new().unwrap();
    let [source, target] = ["run", "exported"].map(|folder| dir.path().join(folder));
    let expected = &json(&root().join("tests/golden/exports.json"))[name];
    let options = expected["set"].as_array().unwrap().iter().map(|option| option.as_str().unwrap());
    let sets: Vec<&str> = options.chain(["monitor.sample_every=0"]).flat_map(|option| ["--set", option]).collect();
    succeed(&mut train(1, &source, 2, &sets));
    export(&source, &target, &["--no-grid"]);
    for (file, content) in expected.as_object().unwrap().iter().filter(|(file, _)| *file != "set") {
        assert_eq!(&json(&target.join(file)), content, "{file}");
    }
    check_same_samples(dir.path(), &source, &target);

    // On a busy machine threads wait for each other longer than such small layers take.
    tch::set_num_threads(1);
    let learned = target.join("ddim").is_dir();
    fill(&target.join(WEIGHTS));
    let model = open(&target);
    let [channels, height, width] = model.network.image().sizes();
    let x = noise("x", &[2, channels, height, width]);
    let labels = model.network.classes().map(|rows| Tensor::from_slice(&[3, rows - 1]));
    let t = Tensor::from_slice(&[1, model.diffusion.timesteps() as i64 - 1]);
    tch::no_grad(|| {
        check_close(name, &model.predict(&x, &t, labels.as_ref()).unwrap(), &format!("{name}/y"), 1e-5);
        let [ddim, ancestral] = draw(&model, &x, labels.as_ref());
        check_close(name, &ddim, &format!("{name}/ddim"), 1e-3);
        check_close(name, &ancestral, &format!("{name}/ancestral"), 1e-3);
        if learned {
            fill(&target.join("ddim").join(WEIGHTS));
            let [ddim, _] = draw(&open(&target.join("ddim")), &x, labels.as_ref());
            check_close("without variance channels", &ddim, &format!("{name}/ddim"), 1e-3);
        }
    });
}

/// The same images, bit for bit, from a run and its export.
fn check_same_samples(dir: &Path, source: &Path, target: &Path) {
    let draw = |model: &Path| {
        let out = dir.join("samples.safetensors");
        let mut command = program();
        command.args(["sample", "--sampler", "ddpm", "--steps", "5", "-n", "3"]);
        succeed(command.arg("--model").arg(model).arg("--out").arg(&out));
        tensor(&out, "samples").1
    };
    assert_eq!(draw(source), draw(target), "{} and its export draw different images", source.display());
}

#[test]
fn eps_on_the_linear_schedule() {
    check_case("eps-linear-1000");
}

#[test]
fn a_net_as_ho_s_with_large_variance_in_250_timesteps() {
    check_case("eps-linear-250-as-ho");
}

#[test]
fn x_start_of_classes_with_a_null_class_on_the_quadratic_schedule() {
    check_case("x_start-quadratic-classes");
}

#[test]
fn v_in_colour_on_4000_timesteps_of_the_cosine_schedule() {
    check_case("v-cosine-4000-rgb");
}

#[test]
fn a_learned_variance_in_colour_on_the_sigmoid_schedule() {
    check_case("eps-learned-sigmoid-rgb");
}

#[test]
fn v_with_a_learned_variance_and_classes() {
    check_case("v-learned-classes");
}

#[test]
fn x_start_on_the_constant_schedule() {
    check_case("x_start-constant");
}

#[test]
fn v_with_zero_terminal_snr() {
    check_case("v-zero-terminal-snr");
}

#[test]
fn x_start_with_zero_terminal_snr_on_the_sigmoid_schedule() {
    check_case("x_start-sigmoid-zero-terminal-snr");
}

#[test]
fn eps_on_a_list_of_betas() {
    check_case("eps-list");
}

/// A pipeline that diffusers saved comes out as it went in.
#[test]
fn pipelines_of_diffusers() {
    let dir = TempDir::new().unwrap();
    for name in ["pipeline-digits", "pipeline-ho", "pipeline-improved"] {
        let (source, target) = (root().join("tests/golden").join(name), dir.path().join(name));
        export(&source, &target, &["--no-grid"]);
        for file in ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"] {
            assert_eq!(json(&target.join(file)), json(&source.join(file)), "{name}: {file}");
        }
        assert_eq!(bits(&target.join(WEIGHTS)), bits(&source.join(WEIGHTS)), "{name}");
    }
    // Old layouts become current ones, with the same images.
    for name in ["old-cifar10", "old-celebahq", "old-scale-shift", "old-resampling"] {
        let (source, target) = (root().join("tests/golden").join(name), dir.path().join(name));
        export(&source, &target, &["--no-grid"]);
        check_same_samples(dir.path(), &source, &target);
    }
}

#[test]
fn the_weights_of_a_run_and_their_variants() {
    let dir = TempDir::new().unwrap();
    let [source, target] = ["run", "digits"].map(|folder| dir.path().join(folder));
    succeed(&mut train(2, &source, 20, &["--set", "ema.rates=[0.9,0.5]"]));
    let stored = |step| buffers(&source, step);
    let exported = |target: &Path, file: &str| -> Vec<u32> {
        let bytes = fs::read(target.join(file)).unwrap();
        let (_, notes) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(notes.metadata().as_ref().unwrap()["format"], "pt");
        let manifest = json(&source.join("checkpoints/manifest/000000000020.json"));
        let layout = manifest["tensors"].as_array().unwrap().clone();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = layout.iter().flat_map(|entry| {
            let tensor = file.tensor(entry["name"].as_str().unwrap()).unwrap();
            tensor.data().as_chunks::<4>().0.iter().map(|bits| u32::from_le_bytes(*bits)).collect::<Vec<_>>()
        });
        values.collect()
    };
    let variant = |name: &str| format!("unet/diffusion_pytorch_model.{name}.safetensors");

    // Two ranks draw the grid, rank 0 writes.
    succeed(mpirun(2).arg("export").arg(&source).arg("--out").arg(&target));
    let expected = [
        "README.md",
        "config.toml",
        "model_index.json",
        "samples.png",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        &variant("ema_0_5"),
        &variant("raw"),
        WEIGHTS,
    ];
    assert_eq!(files(&target), expected);
    assert_eq!(files(dir.path()).iter().filter(|file| file.contains("partial")).count(), 0);
    assert_eq!(exported(&target, WEIGHTS), stored(20)["ema/0.9"]);
    assert_eq!(exported(&target, &variant("ema_0_5")), stored(20)["ema/0.5"]);
    assert_eq!(exported(&target, &variant("raw")), stored(20)["weights"]);
    let picture = image::open(target.join("samples.png")).unwrap();
    assert_eq!([picture.width(), picture.height()], [4 * 64 + 3 * 2; 2]);

    // Another step, other weights, from the store itself, over the earlier export.
    let store = format!("{}@10", source.join("checkpoints").display());
    export(Path::new(&store), &target, &["--weights", "raw", "--no-variants", "--no-grid", "--overwrite"]);
    assert_eq!(exported(&target, WEIGHTS), stored(10)["weights"]);
    assert_eq!(
        files(&target),
        expected
            .iter()
            .copied()
            .filter(|file| !file.contains("model.") && *file != "samples.png")
            .chain([WEIGHTS])
            .collect::<Vec<_>>()
    );

    let outcome = succeed(
        program().arg("--json").arg("export").arg(&source).arg("--out").arg(dir.path().join("json")).arg("--no-grid"),
    );
    let printed: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        (&printed["format"], &printed["variants"]),
        (&"diffusers".into(), &serde_json::json!(["raw", "ema_0_5"]))
    );
}

#[test]
fn the_card_and_the_configuration() {
    let dir = TempDir::new().unwrap();
    let [source, target] = ["run", "digits"].map(|folder| dir.path().join(folder));
    let sets = ["--set", "model.classes=10", "--set", "diffusion.label_dropout=0.1"];
    succeed(&mut train(1, &source, 20, &sets));
    export(&source, &target, &["--license", "cc-by-4.0"]);
    let card = fs::read_to_string(target.join("README.md")).unwrap();
    assert!(card.starts_with("---\nlicense: cc-by-4.0\nlibrary_name: diffusers\n"), "{card}");
    let loss = common::metrics(&source)[&20]["loss"].as_f64().unwrap();
    for part in [
        "# digits\n",
        "![Images drawn from this model](samples.png)",
        "nothing = torch.full_like(classes, 10)",
        "row 10 means \"no class\"",
        "step 20, moving average with rate 0.9 |",
        "| images seen | 320 |",
        "512 digits that ddpm-dist drew itself, as 1x16x16",
        "ddpm-dist train --config config.toml",
        &format!("| loss | {loss:.4} |"),
    ] {
        assert!(card.contains(part), "no {part} in\n{card}");
    }
    // The folder of the run is nobody else's business, and the configuration is valid without it.
    let config = fs::read_to_string(target.join("config.toml")).unwrap();
    assert!(!config.contains(dir.path().to_str().unwrap()) && !card.contains(dir.path().to_str().unwrap()));
    succeed(program().current_dir(dir.path()).args(["train", "--dry-run", "--config"]).arg(target.join("config.toml")));
}

#[test]
fn tensors_for_other_programs() {
    let dir = TempDir::new().unwrap();
    let [source, target] = ["run", "small"].map(|folder| dir.path().join(folder));
    let small = ["model.kind=small", "model.channels=[4,8]", "model.attention=[false,false]", "model.norm_groups=32"];
    let small: Vec<&str> = small.iter().chain(&["model.layers_per_block=2"]).flat_map(|set| ["--set", *set]).collect();
    succeed(&mut train(1, &source, 10, &small));
    export(&source, &target, &["--format", "safetensors"]);
    assert_eq!(
        files(&target),
        ["README.md", "config.json", "config.toml", "model.raw.safetensors", "model.safetensors", "samples.png"]
    );
    let config = json(&target.join("config.json"));
    assert_eq!(config["network"]["kind"], "small");
    assert_eq!(config["network"]["channels"], serde_json::json!([4, 8]));
    let process = &config["diffusion"];
    assert_eq!((process["timesteps"].as_u64(), process["betas"].as_array().unwrap().len()), (Some(100), 100));
    assert_eq!(
        (&process["predict"], &process["variance"], &process["clip"]),
        (&"eps".into(), &"fixed_small".into(), &true.into())
    );
    let stored: usize = buffers(&source, 10)["ema/0.9"].len();
    assert_eq!(bits(&target.join("model.safetensors")).values().map(|bytes| bytes.len()).sum::<usize>(), 4 * stored);
    let card = fs::read_to_string(target.join("README.md")).unwrap();
    assert!(card.starts_with("---\nlicense: unknown\npipeline_tag"), "{card}");

    let ho = dir.path().join("ho");
    export(&root().join("tests/golden/pipeline-ho"), &ho, &["--format", "safetensors", "--no-grid"]);
    let network = &json(&ho.join("config.json"))["network"];
    assert_eq!((&network["kind"], &network["downsample_padding"]), (&"unet".into(), &0.into()));
    assert_eq!(network["mid_attention"]["normed"]["groups"], network["norm_groups"]);
}

/// A disk that is full, and a process that is killed: nothing appears under the name of the export.
#[test]
fn half_an_export() {
    let dir = TempDir::new().unwrap();
    let (source, target) = (dir.path().join("run"), dir.path().join("exports/digits"));
    succeed(&mut train(1, &source, 10, &[]));
    let mut command = program();
    command.arg("export").arg(&source).arg("--out").arg(&target).arg("--no-grid");
    // No file may be larger than 16 kB, and the weights are.
    let full = run(&mut in_bash("trap '' XFSZ; ulimit -f 16; exec \"$@\"", &command));
    assert_eq!(full.code, 4, "{}", full.stderr);
    assert!(full.stderr.contains("check the path, its permissions and the free space"), "{}", full.stderr);
    assert_eq!(files(target.parent().unwrap()), [""; 0]);
    let killed = run(&mut in_bash("ulimit -f 16; exec \"$@\"", &command));
    assert_eq!(killed.code, -1, "{}", killed.stderr);
    assert!(!target.exists() && !files(target.parent().unwrap()).is_empty());
    succeed(&mut command);
    assert!(files(&target).contains(&"README.md".to_owned()));
}
