//! Comparing sets of images from the command line.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tch::{CModule, Device, Kind, Tensor};
use tempfile::TempDir;

use crate::common::{mpirun, program, root, run, succeed};

const MODEL: &str = "tests/golden/pipeline-digits";

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Traces features of images f32 `[1, 1, side, side]` into a file.
fn save_features(path: &Path, side: i64, mut features: impl FnMut(&Tensor) -> Tensor) {
    let images = Tensor::zeros([1, 1, side, side], (Kind::Float, Device::Cpu));
    let mut traced = |images: &[Tensor]| vec![features(&images[0])];
    CModule::create_by_tracing("features", "forward", &[images], &mut traced).unwrap().save(path).unwrap();
}

/// The mean over rows of each image.
fn columns(images: &Tensor) -> Tensor {
    images.mean_dim([1i64, 2].as_slice(), false, Kind::Float)
}

/// What `eval` prints as JSON, with DIR in `arguments` replaced, and the statistics of data sets kept in DIR/cache.
fn eval(ranks: usize, dir: &Path, arguments: &str) -> Value {
    let mut command = if ranks == 1 { program() } else { mpirun(ranks) };
    let arguments = arguments.replace("DIR", dir.to_str().unwrap());
    command.args(["eval", "--json"]).args(arguments.split_whitespace()).env("DDPM_CACHE", dir.join("cache"));
    serde_json::from_str(&succeed(&mut command).stdout).unwrap()
}

fn draw(dir: &Path, out: &str) {
    let arguments = ["sample", "--model", MODEL, "-n", "21", "--steps", "2", "--out"];
    succeed(program().args(arguments).arg(format!("{}/{out}", dir.display())));
}

#[test]
fn distances_do_not_depend_on_ranks_or_on_file_or_folder() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    draw(dir, "few.safetensors");
    draw(dir, "few/");
    save_features(&dir.join("columns.pt"), 28, columns);
    let data = "--data smoke --set data.image_size=28 --reference-count 50 --batch 8 --features DIR/columns.pt";
    for (command, keys) in [
        ("fid", &["frechet_distance"][..]),
        ("kid --subsets 7 --subset-size 20 --seed 3", &["kernel_distance", "kernel_distance_std"]),
        ("pr -k 4", &["precision", "recall"]),
    ] {
        let few = eval(1, dir, &format!("{command} --samples DIR/few.safetensors {data}"));
        let found = [few["samples"].as_u64(), few["images"].as_u64(), few["dim"].as_u64()];
        assert_eq!(found, [21, 50, 28].map(Some), "{few}");
        for (ranks, samples) in [(2, "few.safetensors"), (3, "few")] {
            let found = eval(ranks, dir, &format!("{command} --samples DIR/{samples} {data}"));
            for key in keys {
                let (ours, theirs) = (number(&found[*key]), number(&few[*key]));
                assert!(
                    (ours - theirs).abs() <= 1e-6 * theirs.abs(),
                    "{key} of {samples} on {ranks} ranks: {ours}, {theirs}"
                );
            }
        }
    }
    let data = "--data smoke --set data.image_size=28 --reference-count 50";
    let pixels = eval(1, dir, &format!("fid --samples DIR/few {data}"));
    assert_eq!(pixels["dim"].as_u64(), Some(784), "{pixels}");
    let columns = eval(1, dir, &format!("fid --samples DIR/few {data} --features DIR/columns.pt"));
    let [pixels, columns] = [pixels, columns].map(|found| number(&found["frechet_distance"]));
    assert!((0.0..pixels).contains(&columns), "{columns}: a part of {pixels}");
}

/// Ranks may see different files of the same names.
#[test]
fn samples_are_identified_by_their_contents() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let digest = |input: &str| {
        let script = format!("set -o pipefail; cd {} && {input} | cut -d' ' -f1", dir.display());
        succeed(Command::new("bash").args(["-c", &script])).stdout.trim().to_owned()
    };
    draw(dir, "few.safetensors");
    draw(dir, "0/few/");
    let data = "--data smoke --set data.image_size=28";
    let found = |samples: &str| {
        eval(2, dir, &format!("fid --samples DIR/{samples} {data}"))["protocol"]["evaluated"]["sha256"].clone()
    };
    assert_eq!(found("few.safetensors"), digest("sha256sum few.safetensors"));
    assert_eq!(found("0/few"), digest("(cd 0/few && sha256sum *.png) | sha256sum"));

    draw(dir, "1/few/");
    std::fs::copy(dir.join("0/few/000000.png"), dir.join("1/few/000001.png")).unwrap();
    let each = dir.join("each.sh");
    let program = env!("CARGO_BIN_EXE_ddpm-dist");
    let script = format!("#!/bin/bash\ncd {}/$OMPI_COMM_WORLD_RANK && exec {program} \"$@\"\n", dir.display());
    std::fs::write(&each, script).unwrap();
    succeed(Command::new("chmod").arg("+x").arg(&each));
    let mut command = mpirun(2);
    command.env("DDPM_DIST", &each).args(["eval", "pr", "--samples", "few"]).args(data.split_whitespace());
    let outcome = run(&mut command);
    let said = "the ranks found different samples; give all of them the same files";
    assert!(outcome.code == 2 && outcome.stderr.contains(said), "{} {}", outcome.code, outcome.stderr);
}

#[test]
fn a_model_is_as_distant_as_its_samples_and_the_output_states_the_protocol() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    draw(dir, "samples.safetensors");
    save_features(&dir.join("columns.pt"), 28, columns);
    let data = "--data smoke --set data.image_size=28 --reference-count 50 --features DIR/columns.pt";
    let stored = eval(1, dir, &format!("fid --samples DIR/samples.safetensors {data}"));
    let before = std::fs::read_dir(dir).unwrap().count();
    for ranks in [1, 2, 3] {
        let direct = eval(ranks, dir, &format!("fid --model {MODEL} -n 21 --steps 2 {data}"));
        let (ours, theirs) = (number(&direct["frechet_distance"]), number(&stored["frechet_distance"]));
        // A rounding error may change a level.
        assert!((ours / theirs - 1.0).abs() < 1e-4, "{ours} on {ranks} ranks, {theirs} from the file");
        let drawn = &direct["protocol"]["evaluated"];
        let said = ["count", "seed", "steps", "timesteps"].map(|key| drawn[key].as_u64());
        assert_eq!(said, [21, 0, 2, 1000].map(Some), "{drawn}");
        assert_eq!((drawn["sampler"].as_str(), drawn["spacing"].as_str()), (Some("ddim"), Some("leading")));
        assert_eq!(direct["protocol"]["features_sha256"].as_str().map(str::len), Some(64), "a SHA-256");
        assert_eq!(direct["protocol"]["image"], serde_json::json!([1, 28, 28]));
        assert_eq!(direct["protocol"]["reference"]["split"].as_str(), Some("train"));
    }
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), before, "nothing is stored");
    for (command, key) in [("kid --subset-size 20", "kernel_distance"), ("pr", "precision"), ("pr", "recall")] {
        let stored = eval(1, dir, &format!("{command} --samples DIR/samples.safetensors {data}"));
        let direct = eval(3, dir, &format!("{command} --model {MODEL} -n 21 --steps 2 {data}"));
        let (ours, theirs) = (number(&direct[key]), number(&stored[key]));
        assert!((ours - theirs).abs() <= 1e-4 * theirs.abs(), "{key}: {ours} on 3 ranks, {theirs} from the file");
    }
    let other = eval(1, dir, &format!("fid --model {MODEL} -n 21 --steps 2 --seed 1 {data}"));
    assert_ne!(other["frechet_distance"], stored["frechet_distance"]);
}

#[test]
fn two_data_sets_are_compared_and_text_says_what_was() {
    let dir = TempDir::new().unwrap();
    let same = "--images smoke --images-split train -n 40 --data smoke --split train --reference-count 40";
    let distance = |found: Value| number(&found["frechet_distance"]);
    assert!(distance(eval(2, dir.path(), &format!("fid {same}"))) < 1e-9);
    let pr = eval(1, dir.path(), &format!("pr {same}"));
    assert_eq!(
        (pr["precision"].as_f64(), pr["recall"].as_f64(), pr["neighbours"].as_u64()),
        (Some(1.0), Some(1.0), Some(3))
    );
    let held_out = distance(eval(1, dir.path(), "fid --images smoke --data smoke"));
    let smaller = "--images-set data.image_size=8 --data smoke --set data.image_size=8";
    assert!(held_out > 0.0);
    assert_ne!(distance(eval(1, dir.path(), &format!("fid --images smoke {smaller}"))), held_out);
    let said = succeed(program().args(["eval", "fid", "--images", "smoke", "--data", "smoke"])).stdout;
    let lines: Vec<&str> = said.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(lines, ["frechet", "images", "reference", "features", "protocol"], "{said}");
}

#[test]
fn statistics_are_kept_until_something_changes_and_go_through_a_file() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let images = "fid --images smoke -n 30 --data smoke";
    let origin = |found: &Value| match &found["statistics"] {
        Value::String(word) => word.clone(),
        object => object.as_object().unwrap().keys().next().unwrap().clone(),
    };
    let first = eval(1, dir, &format!("{images} --write-reference DIR/ours.npz"));
    assert_eq!(origin(&first), "computed");
    for (arguments, expected) in [
        (images.to_owned(), "cached"),
        (format!("{images} --reference-count 511"), "computed"),
        (format!("{images} --set seed=1"), "computed"),
        (format!("{images} --reference-count 511"), "cached"),
        (format!("{images} --batch 7"), "cached"),
    ] {
        assert_eq!(origin(&eval(2, dir, &arguments)), expected, "{arguments}");
    }
    let cached = eval(3, dir, images);
    assert!((number(&cached["frechet_distance"]) - number(&first["frechet_distance"])).abs() < 1e-9);
    // From a file; samples without a data set have the shape of their own files.
    let given = eval(2, dir, "fid --images smoke -n 30 --reference DIR/ours.npz");
    assert_eq!(origin(&given), "given");
    assert!((number(&given["frechet_distance"]) - number(&first["frechet_distance"])).abs() < 1e-9, "{given}, {first}");

    // A damaged file in the cache is replaced.
    for file in std::fs::read_dir(dir.join("cache/statistics")).unwrap() {
        std::fs::write(file.unwrap().path(), "PK").unwrap();
    }
    assert_eq!(origin(&eval(1, dir, images)), "computed");
    assert_eq!(origin(&eval(1, dir, images)), "cached");
}

#[test]
fn statistics_of_other_programs_are_read() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    draw(dir, "samples/");
    draw(dir, "samples.safetensors");
    save_features(&dir.join("twelve.pt"), 28, |images| columns(images).narrow(1, 8, 12));
    let distance = |samples: &str, file: &str| {
        let reference = root().join("tests/golden/npz").join(file);
        let arguments =
            format!("fid --samples DIR/{samples} --features DIR/twelve.pt --reference {}", reference.display());
        number(&eval(1, dir, &arguments)["frechet_distance"])
    };
    let expected = distance("samples", "edm.npz");
    assert_eq!(distance("samples.safetensors", "pytorch-fid.npz"), expected);
    assert_eq!(distance("samples", "adm.npz"), expected);
    let single = distance("samples", "single.npz");
    assert!((single / expected - 1.0).abs() < 1e-6, "{single} in single precision, {expected} in double");
}

/// The statistics that pytorch-fid read and saved again are those of the same images.
#[test]
fn statistics_go_to_pytorch_fid_and_back() {
    let dir = TempDir::new().unwrap();
    let golden = std::fs::read(root().join("tests/golden/comparisons.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let evaluated = "fid --images smoke --images-set data.image_size=4";
    let returned = root().join("tests/golden/npz/returned.npz");
    for (ranks, reference) in
        [(2, "--data smoke --set data.image_size=4".to_owned()), (3, format!("--reference {}", returned.display()))]
    {
        let found = number(&eval(ranks, dir.path(), &format!("{evaluated} {reference}"))["frechet_distance"]);
        let expected = number(&golden["exchanged"]);
        assert!((found / expected - 1.0).abs() < 1e-6, "{reference}: {found}, {expected} by pytorch-fid");
    }
}

/// Made by scripts/setup.sh --tests.
#[test]
fn pretrained_features_tell_held_out_images_from_samples_of_an_untrained_model() {
    let home = || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/ddpm-dist");
    let cache = std::env::var_os("DDPM_CACHE").map_or_else(home, Into::into);
    let features = cache.join("features/efficientnet-lite0.pt");
    assert!(features.exists(), "there is no {}: run scripts/setup.sh --tests", features.display());
    let dir = TempDir::new().unwrap();
    draw(dir.path(), "samples.safetensors");
    let data = format!(
        "--data smoke --set data.image_size=28 --reference-count 24 --batch 8 --features {}",
        features.display()
    );
    let fid = |ranks, evaluated: &str| {
        let found = eval(ranks, dir.path(), &format!("fid {evaluated} {data}"));
        assert_eq!(found["dim"].as_u64(), Some(1280), "{found}");
        number(&found["frechet_distance"])
    };
    let held_out = "--images smoke --images-set data.image_size=28 -n 24";
    let [digits, samples] = [fid(1, held_out), fid(1, "--samples DIR/samples.safetensors")];
    assert!(3.0 * digits < samples, "{digits} for held-out digits, {samples} for the samples");
    for ranks in [2, 3] {
        let shared = fid(ranks, held_out);
        assert!((shared / digits - 1.0).abs() < 1e-6, "{shared} on {ranks} ranks, {digits} on one");
    }
}
