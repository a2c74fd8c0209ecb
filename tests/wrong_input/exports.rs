//! Models that cannot be exported, and folders that must not be replaced.

use std::fs;

use tempfile::TempDir;

use super::runs::train_smoke;
use super::{PLAIN, check, text};
use crate::common::{program, succeed};

#[test]
fn exporting() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    train_smoke(&at("run"), "");
    let small = "--set model.kind=small --set model.channels=[4,8] --set model.attention=[false,false]";
    train_smoke(&at("small"), &format!("{small} --set model.layers_per_block=2 --set model.norm_groups=32"));
    let tiny = "--set diffusion.schedule=constant --set diffusion.beta_end=1e-9";
    train_smoke(&at("tiny"), tiny);
    let large = "--set diffusion.schedule=constant --set diffusion.beta_end=0.99";
    train_smoke(&at("large"), large);
    let classifier =
        format!("train-classifier --config smoke --set model.classes=10 --set run.dir={}", text(&at("guide")));
    succeed(program().args(classifier.split_whitespace()).args(PLAIN.split_whitespace()));
    succeed(program().args(["export", text(&at("run")), "--no-grid", "--out", text(&at("earlier"))]));
    fs::create_dir(at("mine")).unwrap();
    fs::write(at("mine/thesis.tex"), "years of work").unwrap();
    fs::write(at("file"), "").unwrap();
    let cases = [
        ("", 2, "not provided", "<SRC>"),
        ("DIR/run", 2, "not provided", "--out <DIR>"),
        ("DIR/absent --out DIR/a", 4, "there is no directory", "Give the path of a run"),
        ("DIR/run@7 --out DIR/a", 4, "a checkpoint of step 7 is not in", "Name one that is there"),
        ("DIR/run --out DIR/a --format onnx", 2, "'onnx' for '--format", "diffusers, safetensors"),
        ("DIR/run --out DIR/a --weights 0.5", 4, "ema/0.5", "it holds weights, exp_avg, exp_avg_sq, ema/0.9"),
        ("DIR/run --out DIR/a --license MIT", 2, "'MIT' for '--license", "such as mit"),
        (
            "DIR/run --out DIR/earlier",
            2,
            "earlier is not empty",
            "Replace what an earlier command wrote with --overwrite",
        ),
        ("DIR/run --out DIR/mine", 2, "mine is not empty; give another folder", "--overwrite"),
        ("DIR/run --out DIR/mine --overwrite", 2, "mine holds thesis.tex, which no export", "give another folder"),
        ("DIR/run --out DIR/run --overwrite", 2, "which no export has written", "give another folder"),
        ("DIR/run --out DIR/file", 4, "file: Not a directory", "check the path"),
        ("DIR/run --out DIR/file/a", 4, "file/a: Not a directory", "check the path"),
        ("DIR/run --out /", 2, "/ is not the name of a folder", "give one that is"),
        ("DIR/small --out DIR/a", 2, "diffusers has no such network", "--format safetensors"),
        ("DIR/guide --out DIR/a", 2, "holds a classifier, where a diffusion model is needed", "Name a run of `train`"),
        ("DIR/tiny --out DIR/a", 2, "in f32, where the", "--format safetensors"),
        ("DIR/large --out DIR/a", 2, "sampling divides by zero", "--format safetensors"),
        ("tests/golden/pipeline-ho --out DIR/a --weights raw", 2, "one set of weights", "Leave --weights out"),
    ];
    check(dir.path(), "export", &cases);
    assert!(!at("a").exists());
    assert_eq!(fs::read_to_string(at("mine/thesis.tex")).unwrap(), "years of work");
}
