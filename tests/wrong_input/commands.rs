//! Arguments and configurations, on one rank and on several.

use std::fs;

use tempfile::TempDir;

use super::{check, check_each};
use crate::common::mpirun;

#[test]
fn configurations() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("bad.toml"), "[data]\nkind = 'synthetic'\n[train]\nlr = = 3\n").unwrap();
    fs::write(dir.path().join("a.toml"), "extends = 'b.toml'").unwrap();
    fs::write(dir.path().join("b.toml"), "extends = 'a.toml'").unwrap();
    fs::write(dir.path().join("nothing.toml"), "seed = 1").unwrap();
    fs::write(dir.path().join("binary.toml"), [0xff, 0xfe, 0]).unwrap();
    let cases = [
        ("smoke --set train.stpes=5", 2, "unknown key `train.stpes`", "`train.steps`"),
        ("smoke --set trian.steps=5", 2, "unknown key `trian`", "`train`"),
        ("smoke --set diffusion.schedule=cosin", 2, "\"cosin\"", "Did you mean \"cosine\""),
        ("smoke --set train.lr=fast", 2, "`train.lr`", "must be a number"),
        ("smoke --set train.lr", 2, "--set train.lr does not name", "--set a.b=value"),
        ("smoke --set train.steps=-1", 2, "`train.steps`", "a whole number, 0 or more"),
        ("smoke --set train.steps=0", 2, "train.steps = 0", "at least 1"),
        ("smoke --steps 0", 2, "'0' for '--steps", "at least 1"),
        ("smoke --steps=-1", 2, "'-1' for '--steps", "at least 1"),
        ("smoke --set train.micro_batch=3", 2, "the 16 images of the only rank", "Use 1, 2, 4, 8 or 16"),
        ("smoke --set model.classes=3", 2, "model.classes is 3", "set it to 10"),
        ("smoke --set model.channels=[8,18]", 2, "18 in model.channels", "Use 16 or 20"),
        ("smoke --set data.image_size=17", 2, "data.image_size = 17", "Use 16 or 18"),
        ("smoke --set model.head_dim=3", 2, "model.head_dim = 3", "Use 1, 2, 4 or 8"),
        ("smoke --set diffusion.timesteps=4294967295", 2, "= 4294967295", "from 2 to 1000000"),
        ("smoke --set model.channels=[8,4294967292]", 2, "= 4294967292", "at most 65536"),
        ("tutorial --set diffusion.beta_end=1.5", 2, "diffusion.beta_end = 1.5", "above 0 and below 1"),
        ("tutorial --set diffusion.beta_start=0.03", 2, "diffusion.beta_start = 0.03", "at most"),
        ("smoke --set diffusion.loss=hybrid", 2, "\"hybrid\" trains the variance", "\"learned_range\""),
        ("smoke --set comm.backend=nccl", 2, "comm.backend is \"nccl\"", "\"mpi\""),
        ("smoke --set checkpoint.keep_last=1", 2, "checkpoint.keep_last = 1", "at least 2"),
        ("smoke --allow-change train.global_bach", 2, "in --allow-change", "`train.global_batch`"),
        ("smoke --resume yesterday", 2, "'yesterday' for '--resume", "auto, never or the step"),
        ("smoke --setp train.lr=1", 2, "unexpected argument '--setp'", "'--set'"),
        ("mnits", 2, "no configuration file or preset `mnits`", "the preset `mnist`"),
        ("DIR/absent.toml", 2, "absent.toml", "one of the presets smoke, digits"),
        ("DIR/bad.toml", 2, "bad.toml is not valid TOML: line 4, column 6", "Correct the text there"),
        ("DIR/a.toml", 2, "in a circle: ", "Remove `extends`"),
        ("DIR/nothing.toml", 2, "`data.kind` is not set", "\"synthetic\""),
        ("DIR/binary.toml", 2, "binary.toml", "a readable text file"),
    ];
    check(dir.path(), "train --set run.dir=DIR/run --config", &cases);
    assert!(!dir.path().join("run").exists(), "refused configurations leave nothing behind");
}

#[test]
fn commands_and_pictures() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let cases = [
        ("trian", 2, "unrecognized subcommand 'trian'", "'train'"),
        ("train", 2, "not provided", "--config <FILE>"),
        ("completions pash", 2, "'pash'", "bash"),
        ("plot schedule", 2, "not provided", "--out <FILE.png>"),
        ("plot schedule --out DIR/a.jpg", 2, "a.jpg", "ends in .png"),
        ("plot schedule --timesteps 20 --out DIR/a.png", 2, "20 timesteps are too few", "at least 21"),
        ("plot schedule --out DIR/file/a.png", 4, "file/a.png", "check the path"),
        ("plot forward --config smok --out DIR/a.png", 2, "`smok`", "the preset `smoke`"),
        ("plot reverse --model DIR/absent --out DIR/a.png", 4, "there is no directory", "Give the path of a run"),
        ("plot variance --model DIR/absent --out DIR/a.jpg", 2, "a.jpg", "ends in .png"),
        ("sample --model DIR/run --precision fp16 --out DIR/a.png", 2, "'fp16' for '--precision", "fp32, bf16, auto"),
        ("sample --model DIR/run --batch 0 --out DIR/a.png", 2, "'0' for '--batch", "at least 1"),
        ("eval nll --model DIR/run --precision half", 2, "'half' for '--precision", "fp32, bf16, auto"),
        ("plot embedding --channels 7 --out DIR/a.png", 2, "'7' for '--channels", "even number of at least 4"),
        ("plot terms --nll DIR/absent --out DIR/a.png", 4, "absent: No such file", "check the path"),
        ("plot terms --nll DIR/file --out DIR/a.png", 2, "file: ", "the output of `eval nll --json`"),
        ("plot loss --run DIR/absent --out DIR/a.png", 4, "absent/metrics.jsonl", "check the path"),
        ("data info --config smoke --out DIR/a.gif", 2, "a.gif", "ends in .png"),
        ("data info --config smoke --out DIR/file/a.png", 4, "file/a.png", "check the path"),
    ];
    check(dir.path(), "", &cases);
}

#[test]
fn benchmarks() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let cases = [
        ("stepp", 2, "unrecognized subcommand 'stepp'", "'step'"),
        ("step", 2, "not provided", "--config <FILE>"),
        ("step --config smok", 2, "`smok`", "the preset `smoke`"),
        ("step --config smoke --steps 0", 2, "'0' for '--steps", "at least 1"),
        ("step --config mnist --set data.path=DIR/absent", 4, "absent: cannot be read", "Check that the path"),
        ("step --config smoke --profile DIR/absent/a.json", 4, "absent/a.json: No such file", "check the path"),
        ("step --config smoke --profile DIR", 4, "is a directory", "check the path"),
        ("step --config smoke --profile /dev/null", 4, "no regular file", "check the path"),
        ("allreduce --config smoke", 2, "there is only one; start several", "launch/local.sh 2"),
        ("allreduce --config smoke --repeat 0", 2, "'0' for '--repeat", "at least 1"),
        ("loader --config smoke --set data.workers=0", 2, "data.workers = 0", "at least 1"),
        ("checkpoint --config smoke --every 3", 2, "not provided", "--steps <N>"),
        ("checkpoint --config smoke --steps 7 --every 3", 2, "--steps 7 is not a multiple of --every 3", "--steps 9"),
        ("checkpoint --config smoke --uri memory://", 2, "checkpoint.uri is in memory", "a folder or a bucket"),
        ("checkpoint --config smoke --uri ftp://host/a", 2, "ftp://host/a", "s3://"),
        ("checkpoint --config smoke --uri DIR/file", 4, "/file/bench-", "Check that it is reachable"),
    ];
    check(dir.path(), "bench", &cases);
}

#[test]
fn plans() {
    let dir = TempDir::new().unwrap();
    let cases = [
        ("--gpus 8", 2, "not provided", "--gpu <NAME>"),
        ("--gpus 0 --gpu h100", 2, "'0' for '--gpus", "at least 1"),
        ("--gpus 8 --gpu h1000", 2, "'h1000' for '--gpu", "h100, h100-pcie"),
        ("--gpus 8 --gpu cpu", 2, "the speed of a CPU", "give --tflops"),
        ("--gpus 8 --gpu cpu --tflops 0", 2, "'0' for '--tflops", "above 0"),
        ("--gpus 8 --gpu h100 --tflops 90 --mfu 0.2", 2, "cannot be used with", "--help"),
        ("--gpus 8 --gpu h100 --mfu 1.5", 2, "'1.5' for '--mfu", "at most 1"),
        ("--gpus 8 --gpu v100 --set train.precision=bf16", 2, "has no bf16", "set train.precision to \"fp32\""),
        ("--gpus 8 --gpu h100 --network-gbit fast", 2, "'fast' for '--network-gbit", "a number above 0"),
        ("--gpus 8 --gpu h100 --jitter=-1", 2, "'-1' for '--jitter", "0 or above"),
        ("--gpus 3 --gpu h100", 2, "16 does not divide among 3 ranks", "Use 15 or 18"),
    ];
    check(dir.path(), "plan --config smoke", &cases);
}

#[test]
fn among_ranks() {
    let dir = TempDir::new().unwrap();
    let smoke = "--config smoke --set run.dir=DIR/run";
    let cases = [
        ("train --config", 2, "a value is required", "--config <FILE>"),
        ("sample --model DIR/absent --out DIR/a.png", 4, "there is no directory", "Give the path of a run"),
        ("data info --config mnist --set data.path=DIR/absent", 4, "absent: cannot be read", "Check that the path"),
        ("bench loader --config mnist --set data.path=DIR/absent", 4, "absent: cannot be read", "Check that the path"),
        ("bench step --config smoke --set train.global_batch=15", 2, "15 does not divide", "Use 14 or 16"),
    ];
    check_each(dir.path(), "", &cases, || mpirun(2));
    let cases = [
        ("--bogus", 2, "unexpected argument '--bogus'", "--help"),
        ("--set train.stpes=5", 2, "unknown key `train.stpes`", "`train.steps`"),
        ("--set train.global_batch=15", 2, "15 does not divide among 2 ranks", "Use 14 or 16"),
        ("--set train.micro_batch=3", 2, "the 8 images of each of 2 ranks", "Use 1, 2, 4 or 8"),
        ("--set comm.backend=solo", 2, "\"solo\" cannot join 2 ranks", "\"auto\""),
        ("--set data.kind=idx --set data.path=DIR/absent", 4, "absent: cannot be read", "Check that the path"),
    ];
    check_each(dir.path(), &format!("train {smoke}"), &cases, || mpirun(2));
    let cases = [("--set train.global_batch=16", 2, "16 does not divide among 3 ranks", "Use 15 or 18")];
    check_each(dir.path(), &format!("train {smoke}"), &cases, || mpirun(3));
    assert!(!dir.path().join("run").exists());
}
