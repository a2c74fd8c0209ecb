//! Models that cannot be sampled from or evaluated, and what they are given to do it with.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

use crate::common::{mpirun, root};
use crate::data::{idx, pictures, truncate};
use crate::runs::{copy, train_smoke};
use crate::{check, check_each};

#[test]
fn sampling() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    train_smoke(&at("run"), "");
    train_smoke(&at("classes"), "--set model.classes=10");
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("file"), "neither a run nor a tensor").unwrap();
    fs::create_dir(at("diffusers")).unwrap();
    fs::write(at("diffusers/model_index.json"), "{}").unwrap();
    for (name, tensor, side) in [("small", "noise", 8), ("nose", "nose", 16)] {
        let bytes = vec![0; 4 * 64 * side * side];
        let view = TensorView::new(Dtype::F32, vec![64, 1, side, side], &bytes).unwrap();
        fs::write(at(name), safetensors::serialize([(tensor, view)], None).unwrap()).unwrap();
    }
    let noise = vec![0; 4 * 64 * 256];
    for (name, kind, count, bytes) in [
        ("labelled", Dtype::I64, 64, [77u8, 0, 0, 0, 0, 0, 0, 0].repeat(64)),
        ("mislabelled", Dtype::F32, 1, vec![0; 4]),
    ] {
        let noise = TensorView::new(Dtype::F32, vec![64, 1, 16, 16], &noise).unwrap();
        let labels = TensorView::new(kind, vec![count], &bytes).unwrap();
        fs::write(at(name), safetensors::serialize([("noise", noise), ("labels", labels)], None).unwrap()).unwrap();
    }
    let cases = [
        ("DIR/absent", 4, "there is no directory", "Give the path of a run"),
        ("DIR/empty", 4, "has no checkpoint yet", "train first"),
        ("DIR/file", 4, "file failed to open its directory", "Check that it is reachable"),
        ("DIR/run@7", 4, "a checkpoint of step 7 is not in", "Name one that is there"),
        ("DIR/run@newest", 4, "there is no directory", "Give the path of a run"),
        ("DIR/diffusers", 4, "cannot read", "expected a diffusers directory"),
        ("DIR/run --steps 0", 2, "'0' for '--steps", "at least 1"),
        ("DIR/run --steps 101", 2, "101 steps", "Use 1 to 100"),
        ("DIR/run --respacing often", 2, "as \"often\"", "Use \"N\""),
        ("DIR/run --respacing 60,60", 2, "section 0 has 50 timesteps", "Use \"N\""),
        ("DIR/run --respacing 10 --steps 10", 2, "cannot be used with", "--help"),
        ("DIR/run --eta 2", 2, "'2' for '--eta", "from 0 to 1"),
        ("DIR/run --eta nan", 2, "'nan' for '--eta", "from 0 to 1"),
        ("DIR/run -n 0", 2, "'0' for '--count", "at least 1"),
        ("DIR/run --seed -1", 2, "'-1' for '--seed", "a whole number from 0 to 18446744073709551615"),
        ("DIR/run --seed=-1", 2, "'-1' for '--seed", "a whole number from 0 to 18446744073709551615"),
        ("DIR/run --seed 1.5", 2, "'1.5' for '--seed", "a whole number from 0 to 18446744073709551615"),
        (
            "DIR/run --seed 18446744073709551616",
            2,
            "'18446744073709551616' for '--seed",
            "from 0 to 18446744073709551615",
        ),
        ("DIR/run --sampler euler", 2, "'euler' for '--sampler", "ddpm, ddim, heun, dpmpp"),
        ("DIR/run --threshold 0.995", 2, "'0.995' for '--threshold", "from 50 to 100"),
        ("DIR/run --threshold 99 --no-clip", 2, "cannot be used with", "--help"),
        ("DIR/run --corrector-steps 1 --corrector-snr 1", 2, "signal-to-noise ratio is 1", "Set it inside that range"),
        ("DIR/run --corrector-snr 0.1", 2, "not provided", "--corrector-steps"),
        ("DIR/run --sampler dpmpp --corrector-steps 1", 2, "bears no corrector", "Leave the corrector out"),
        ("DIR/run --class 3", 2, "knows no classes", "leave --class out"),
        ("DIR/classes --class 10", 2, "class 10 is out of range", "classes 0 to 9"),
        ("DIR/classes --class 1 --guidance 2", 2, "cannot be guided", "leave --guidance out"),
        ("DIR/run --trajectory", 2, "--trajectory needs numbers", ".safetensors"),
        ("DIR/run --init-noise DIR/absent", 4, "absent: No such file", "check the path"),
        ("DIR/run --init-noise DIR/file", 2, "file: ", "f32 `noise` [64, 1, 16, 16]"),
        ("DIR/run --init-noise DIR/small", 2, "[64, 1, 8, 8]", "f32 `noise` [64, 1, 16, 16]"),
        ("DIR/run --init-noise DIR/nose", 2, "tensor `noise` not found", "f32 `noise` [64, 1, 16, 16]"),
        ("DIR/run --weights 0.5", 4, "ema/0.5", "it holds weights, exp_avg, exp_avg_sq, ema/0.9"),
        ("DIR/classes --init-noise DIR/labelled", 2, "class 77 is out of range", "classes 0 to 9"),
        ("DIR/run --init-noise DIR/mislabelled", 2, "`labels` is F32 [1]", "I64 [64]"),
        ("DIR/run --weights best", 2, "'best' for '--weights", "ema, raw or the rate"),
    ];
    check(dir.path(), "sample --out DIR/a.png --model", &cases);
    let cases = [
        ("DIR/a.gif", 2, "a.gif says no kind of file", "FILE.png"),
        ("DIR/noending", 2, "noending says no kind of file", "FOLDER/"),
        ("DIR/file/a.png", 4, "file/a.png", "check the path"),
    ];
    check(dir.path(), "sample --model DIR/run --steps 2 -n 2 --out", &cases);
    let cases = [
        ("DIR/run --out DIR/a.png", 2, "a.png", "ends in .safetensors"),
        ("DIR/absent --out DIR/a.safetensors", 4, "there is no directory", "Give the path of a run"),
        ("DIR/run --steps 101 --out DIR/a.safetensors", 2, "101 steps", "Use 1 to 100"),
        ("DIR/run -n 1000 --out DIR/a.safetensors", 2, "-n asks for 1000 images", "give at most 512"),
        ("DIR/run --split half --out DIR/a.safetensors", 2, "'half' for '--split", "train, valid, test"),
        ("DIR/run --data mnits --out DIR/a.safetensors", 2, "`mnits`", "the preset `mnist`"),
        (
            "DIR/run --data smoke --set data.image_size=32 --out DIR/a.safetensors",
            2,
            "1x32x32",
            "--set data.image_size=16",
        ),
        ("DIR/run -n 2 --steps 2 --out DIR/file/a.safetensors", 4, "file/a.safetensors", "check the path"),
    ];
    check(dir.path(), "encode --model", &cases);
}

/// A model folder in DIR under each name, with one thing in its scheduler's file changed.
fn change_schedulers(dir: &Path, changes: &[(&str, &str, &str)]) {
    for (name, from, to) in changes {
        copy(&root().join("tests/golden/pipeline-digits"), &dir.join(name));
        let path = dir.join(name).join("scheduler/scheduler_config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn model_folders() {
    let dir = TempDir::new().unwrap();
    change_schedulers(
        dir.path(),
        &[
            ("schedule", "\"linear\"", "\"cosin\""),
            ("beta", "0.02", "1.5"),
            ("predict", "\"epsilon\"", "\"flow\""),
            ("variance", "fixed_small", "learned"),
            ("range", "\"clip_sample_range\": 1.0", "\"clip_sample_range\": 2.0"),
            ("json", "{", ""),
        ],
    );
    let cases = [
        ("DIR/schedule", 2, "scheduler_config.json: beta_schedule = \"cosin\" is not supported", "squaredcos_cap_v2"),
        ("DIR/beta", 2, "scheduler_config.json: beta[", "Change the schedule's ends"),
        ("DIR/predict", 2, "prediction_type = \"flow\" is not supported", "v_prediction"),
        ("DIR/variance", 2, "variance_type = \"learned\" is not supported", "learned_range"),
        ("DIR/range", 2, "this clip_sample_range is not supported", "it may be 1"),
        ("DIR/json", 4, "scheduler_config.json: ", "it should hold a DDPMScheduler"),
    ];
    check(dir.path(), "sample -n 1 --steps 2 --out DIR/a.png --model", &cases);
}

#[test]
fn evaluating() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    train_smoke(&at("run"), "--set model.classes=10");
    pictures(&at("pictures/0"), 3);
    pictures(&at("cut"), 8);
    truncate(&at("cut/05.jpg"));
    idx(&at("images"), 0x803, &[8, 16, 16], 8 * 256);
    let cases = [
        ("", 2, "not provided", "--model <SRC>"),
        ("--model DIR/absent", 4, "there is no directory", "Give the path of a run"),
        ("--model tests/golden/pipeline-ho", 2, "does not say what it was trained on", "--data"),
        ("--model tests/golden/pipeline-ho --data smoke", 2, "the data are 1x16x16", "--set data.image_size="),
        ("--model DIR/run --seed -7", 2, "'-7' for '--seed", "a whole number from 0 to 18446744073709551615"),
        ("--model DIR/run --timesteps 101", 2, "101 timesteps were asked of each image", "Use 2 to 100"),
        ("--model DIR/run --timesteps 5 --respacing 5", 2, "cannot be used with", "--help"),
        ("--model DIR/run -n 513", 2, "-n asks for 513 images of ", "give at most 512"),
        ("--model DIR/run --split dev", 2, "'dev' for '--split", "train, valid, test"),
        ("--model DIR/run --data mnits", 2, "preset `mnits`", "the preset `mnist`"),
        ("--model DIR/run --set data.pth=x", 2, "unknown key `data.pth`", "`data.path`"),
        ("--model DIR/run --set data.image_size=32", 2, "the data are 1x32x32", "--set data.image_size=16"),
        (
            "--model DIR/run --set data.kind=folder --set data.labels=folder --set data.path=DIR/pictures",
            4,
            "the test split is asked for",
            "ask for the train split",
        ),
        (
            "--model DIR/run --set data.kind=idx --set data.path=DIR/images",
            2,
            "where the test split is",
            "the train split",
        ),
        (
            "--model DIR/run --data smoke --split train --set data.kind=folder --set data.path=DIR/pictures",
            2,
            "carries no labels",
            "set data.labels",
        ),
    ];
    check(dir.path(), "eval nll", &cases);
    let cases = [
        ("DIR/absent", 4, "absent: No such file", "check the path"),
        ("DIR/images", 2, "images: ", "f32 `samples` [N, 1, 16, 16], as `sample` writes it"),
        ("DIR/pictures/0 --split half", 2, "'half' for '--split", "train, valid, test"),
        ("DIR/pictures/0 -n 100000000", 2, "-n asks for 100000000 images of ", "give at most "),
        ("DIR/pictures/0 -n 1", 2, "1 images have no covariance", "at least 2"),
        ("DIR/pictures/0 --features DIR/absent.pt", 4, "absent.pt: No such file", "check the path"),
        ("DIR/pictures/0 --features DIR/images", 2, "images is no TorchScript module", "torch.jit.save"),
    ];
    check(dir.path(), "eval fid --data smoke --samples", &cases);
    train_smoke(&at("plain"), "");
    let cases = [("data.path=DIR/cut", 4, "05.jpg: this JPEG is truncated", "Replace or remove the file")];
    let prefix = "eval nll --timesteps 2 --batch 4 --split train --set data.kind=folder --model DIR/plain --set";
    check_each(dir.path(), prefix, &cases, || mpirun(2));
}
