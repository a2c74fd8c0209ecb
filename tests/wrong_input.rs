//! Wrong input of every sort ends the program with the documented exit code and one message: what is wrong, then how
//! to mend it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Outcome, mpirun, program, run, succeed};
use ddpm_data::Order;
use image::{GrayImage, Luma};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

/// Arguments, where DIR stands for the test's folder; the exit code; what is wrong; how to mend it.
type Case = (&'static str, i32, &'static str, &'static str);

/// Options of short runs of which nobody looks at pictures.
const PLAIN: &str = "--set monitor.tensorboard=false --set monitor.sample_every=0";

fn check(dir: &Path, prefix: &str, cases: &[Case]) {
    check_each(dir, prefix, cases, program);
}

/// Runs `prefix` with each case's arguments and fails with all the cases that did not end as they should.
fn check_each(dir: &Path, prefix: &str, cases: &[Case], start: impl Fn() -> Command) {
    let faults = cases.iter().filter_map(|(arguments, code, wrong, mend)| {
        let line = format!("{prefix} {arguments}").replace("DIR", dir.to_str().unwrap());
        let outcome = run(start().args(line.split_whitespace()));
        let fault = fault(&outcome, *code, wrong, mend)?;
        Some(format!("{line}\n  {fault}\n  exit code {}, stderr:\n{}", outcome.code, outcome.stderr))
    });
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

/// What is amiss with how a command failed, if anything.
fn fault(outcome: &Outcome, code: i32, wrong: &str, mend: &str) -> Option<String> {
    let said = &outcome.stderr;
    if outcome.code != code {
        return Some(format!("should exit with {code}"));
    }
    if let Some(word) = ["panicked", "backtrace", "RUST_BACKTRACE"].into_iter().find(|word| said.contains(word)) {
        return Some(format!("speaks of {word}"));
    }
    let lines = format!("\n{said}");
    let errors: Vec<&str> = lines.split("\nerror: ").skip(1).collect();
    let [message] = errors.as_slice() else {
        return Some(format!("has {} error lines", errors.len()));
    };
    if message.len() > 600 {
        return Some(format!("is {} bytes long", message.len()));
    }
    match (message.find(wrong), message.rfind(mend)) {
        (None, _) => Some(format!("does not say what is wrong: {wrong}")),
        (_, None) => Some(format!("does not say how to mend it: {mend}")),
        (Some(first), Some(second)) => (first > second).then(|| "starts with the remedy".into()),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

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
        ("plot embedding --channels 7 --out DIR/a.png", 2, "'7' for '--channels", "even number of at least 4"),
        ("plot terms --nll DIR/absent --out DIR/a.png", 4, "absent: No such file", "check the path"),
        ("plot terms --nll DIR/file --out DIR/a.png", 2, "file: ", "`eval nll --json` printed"),
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
        ("step --config smoke --profile DIR", 4, "Is a directory", "check the path"),
        ("allreduce --config smoke", 2, "this is one rank", "launch/local.sh 2"),
        ("allreduce --config smoke --repeat 0", 2, "'0' for '--repeat", "at least 1"),
        ("loader --config smoke --set data.workers=0", 2, "data.workers = 0", "at least 1"),
        ("checkpoint --config smoke --every 3", 2, "not provided", "--steps <N>"),
        ("checkpoint --config smoke --steps 7 --every 3", 2, "--steps 7 is no multiple of --every 3", "--steps 9"),
        ("checkpoint --config smoke --uri memory://", 2, "checkpoint.uri is in memory", "a folder or a bucket"),
        ("checkpoint --config smoke --uri ftp://host/a", 2, "ftp://host/a", "s3://"),
        ("checkpoint --config smoke --uri DIR/file", 4, "/file/bench-", "Check that it is reachable"),
    ];
    check(dir.path(), "bench", &cases);
}

/// An IDX file with this header and `len` bytes after it.
fn idx(path: &Path, magic: u32, dims: &[u32], len: usize) {
    let header = [&[magic], dims].concat().into_iter().flat_map(u32::to_be_bytes);
    fs::write(path, header.chain(vec![0; len]).collect::<Vec<u8>>()).unwrap();
}

/// A PNG file that claims a size which its data do not have.
fn png(path: &Path, width: u32, height: u32) {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    };
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let named = [name.as_slice(), body].concat();
        [&(body.len() as u32).to_be_bytes(), named.as_slice(), &crc(&named).to_be_bytes()].concat()
    };
    let header = [&width.to_be_bytes(), &height.to_be_bytes(), [8, 2, 0, 0, 0].as_slice()].concat();
    let file = [b"\x89PNG\r\n\x1a\n".as_slice(), &chunk(b"IHDR", &header), &chunk(b"IDAT", &[]), &chunk(b"IEND", &[])];
    fs::write(path, file.concat()).unwrap();
}

/// `count` small JPEG files, `00.jpg` and so on.
fn pictures(folder: &Path, count: u32) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..count {
        let image = GrayImage::from_fn(32, 32, |x, y| Luma([(x * y + 7 * i) as u8]));
        image.save(folder.join(format!("{i:02}.jpg"))).unwrap();
    }
}

/// Cuts off the second half of a file, and gives the whole of it.
fn truncate(path: &Path) -> Vec<u8> {
    let whole = fs::read(path).unwrap();
    fs::write(path, &whole[..whole.len() / 2]).unwrap();
    whole
}

#[test]
fn data() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    idx(&at("images"), 0x803, &[8, 16, 16], 8 * 256);
    idx(&at("seven"), 0x801, &[7], 7);
    idx(&at("short"), 0x803, &[8, 16, 16], 8 * 256 - 5);
    idx(&at("vast"), 0x803, &[u32::MAX; 3], 0);
    for folder in ["empty", "text", "bomb", "wide", "cut", "garbled", "loose", "celeba/img_align_celeba"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::write(at("text/notes.png"), "words, not pixels").unwrap();
    png(&at("bomb/a.png"), 16_000, 16_000);
    png(&at("wide/a.png"), 1_000_000, 1);
    for folder in ["cut", "garbled", "loose", "celeba/img_align_celeba"] {
        pictures(&at(folder), 1);
    }
    truncate(&at("cut/00.jpg"));
    let mut bytes = fs::read(at("garbled/00.jpg")).unwrap();
    let last = bytes.len() - 2;
    bytes[20..last].fill(0);
    fs::write(at("garbled/00.jpg"), bytes).unwrap();
    fs::write(at("celeba/list_attr_celeba.txt"), "1\nSmiling Young\n00.jpg 1 -1\n").unwrap();

    let cases = [
        ("data.path=DIR/absent", 4, "absent: cannot be read (No such file", "Check that the path is right"),
        ("data.path=DIR/empty", 4, "holds no train-images-idx3-ubyte", "scripts/datasets.sh"),
        ("data.path=DIR/short", 4, "promises 2048 bytes but only 2043", "fetch it again"),
        ("data.path=DIR/vast", 4, "more than can exist", "fetch the file again"),
        ("data.path=DIR/seven", 4, "starts with 0x00000803, this one with 0x00000801", "name the file of images"),
        ("data.path=DIR/images --set data.labels=DIR/seven", 4, "7 labels for the 8 images", "the same split"),
        ("data.path=DIR/images --set model.classes=10", 2, "carries no labels", "set data.labels"),
        ("data.path=DIR/images --set data.crop=20", 4, "smaller than data.crop = 20", "lower data.crop"),
    ];
    check(dir.path(), "data info --config smoke --set data.kind=idx --set", &cases);
    let cases = [
        ("data.path=DIR/absent", 4, "absent: cannot be read (No such file", "Check that the path is right"),
        ("data.path=DIR/empty", 4, "no .jpg, .jpeg or .png file", "point data.path at"),
        ("data.path=DIR/cut", 4, "00.jpg: this JPEG is truncated", "data.on_corrupt = \"skip\""),
        ("data.path=DIR/garbled", 4, "00.jpg: this image cannot be decoded", "Replace or remove the file"),
        ("data.path=DIR/text", 4, "notes.png: this is neither a JPEG nor a PNG", "Replace or remove the file"),
        ("data.path=DIR/bomb", 4, "a.png: this image is larger than", "Replace or remove the file"),
        ("data.path=DIR/wide", 4, "a.png: this image is larger than", "Replace or remove the file"),
        ("data.path=DIR/cut --check", 4, "1 of 1 images cannot be read", "remove the files named above"),
        ("data.path=DIR/loose --set data.labels=folder", 4, "lies in none", "move it into one"),
        ("data.path=DIR/celeba --set data.labels=attribute:Smilng", 4, "no attribute 'Smilng'", "'Smiling' is meant"),
    ];
    check(dir.path(), "data info --config smoke --set data.kind=folder --set", &cases);
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

/// A run of the preset smoke with checkpoints of steps 10 and 20.
fn train_smoke(dir: &Path, more: &str) {
    let line = format!("train --config smoke --steps 20 --set run.dir={} {PLAIN} {more}", text(dir));
    succeed(program().args(line.split_whitespace()));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The one shard of the checkpoint of `step`.
fn shard(run: &Path, step: u64) -> PathBuf {
    let folders = fs::read_dir(run.join("checkpoints/ckpt")).unwrap().map(|entry| entry.unwrap().path());
    let name = format!("{step:012}-");
    let mut folders = folders.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&name));
    let folder = folders.next().unwrap();
    fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

fn manifest(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoints/manifest/{step:012}.json"))
}

/// Leaves the checkpoint of step 20 as the only one.
fn keep_newest(run: &Path) {
    fs::remove_file(manifest(run, 10)).unwrap();
}

fn flip_a_bit(run: &Path) {
    let path = shard(run, 20);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn resuming() {
    let base = TempDir::new().unwrap();
    train_smoke(base.path(), "");
    type Harm = fn(&Path);
    let cases: &[(Harm, Case)] = &[
        (|_| (), ("--set model.channels=[8,8]", 3, "model.channels (checkpoint [8,16], now [8,8])", "--allow-change")),
        (|_| (), ("--set seed=7", 3, "seed (checkpoint 0, now 7)", "another run.dir")),
        (|_| (), ("--set train.global_batch=8", 3, "train.global_batch (checkpoint 16, now 8)", "Set them back")),
        (
            |_| (),
            (
                "--set model.channels=[8,8] --allow-change model.channels",
                3,
                "has other parameters than this network",
                "set the keys of [model] back",
            ),
        ),
        (|_| (), ("--resume 7", 3, "a checkpoint of step 7 is not in", "Name one that is there")),
        (|_| (), ("--resume never", 3, "holds checkpoints up to step 20", "--resume auto")),
        (|_| (), ("--set checkpoint.uri=ftp://host/run", 2, "ftp://host/run", "Give a directory")),
        (|_| (), ("--set checkpoint.uri=DIR/config.toml", 4, "config.toml failed", "Check that it is reachable")),
        (|_| (), ("--set run.dir=DIR/config.toml/run", 4, "config.toml/run", "Check that it is reachable")),
        (flip_a_bit, ("--resume 20", 4, "is damaged: ", "resume from an older step")),
        (
            |run| {
                keep_newest(run);
                flip_a_bit(run);
            },
            ("", 4, "no checkpoint in", "Restore one from a copy"),
        ),
        (
            |run| {
                keep_newest(run);
                fs::remove_file(shard(run, 20)).unwrap();
            },
            ("", 4, "it is missing", "Restore one from a copy"),
        ),
        (
            |run| {
                keep_newest(run);
                fs::write(manifest(run, 20), "garbage").unwrap();
            },
            ("", 4, "does not match its checksum", "Restore one from a copy"),
        ),
        (
            |run| {
                fs::remove_dir_all(run.join("checkpoints")).unwrap();
                fs::write(run.join("checkpoints"), "a file").unwrap();
            },
            ("", 4, "checkpoints failed to open its directory", "Check that it is reachable"),
        ),
        (|run| fs::write(run.join("checkpoints/run.json"), "garbage").unwrap(), ("", 4, "run.json", "Restore it")),
    ];
    for (harm, case) in cases {
        let dir = TempDir::new().unwrap();
        copy(base.path(), dir.path());
        harm(dir.path());
        let before = fs::read_dir(dir.path().join("checkpoints/manifest")).map(Iterator::count).ok();
        check(dir.path(), &format!("train --config smoke --set run.dir=DIR --steps 30 {PLAIN}"), &[*case]);
        let after = fs::read_dir(dir.path().join("checkpoints/manifest")).map(Iterator::count).ok();
        assert_eq!(before, after, "{case:?} changed the checkpoints");
    }
}

#[test]
fn a_step_is_only_taken_back_by_a_run_that_goes_on() {
    let dir = TempDir::new().unwrap();
    train_smoke(dir.path(), "");
    let resume = format!("train --config smoke --set run.dir=DIR --steps 30 --resume 10 {PLAIN}");
    let change = "--allow-change data.kind --allow-change data.path --set data.kind=idx --set data.path=DIR/absent";
    let case = ("", 4, "absent: cannot be read", "Check that the path is right");
    check(dir.path(), &format!("{resume} {change}"), &[case]);
    assert!(manifest(dir.path(), 20).exists());
}

#[test]
fn a_store_that_fails_at_the_end_and_a_loss_that_diverges() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("full/checkpoints")).unwrap();
    fs::write(dir.path().join("full/checkpoints/ckpt"), "no room for shards").unwrap();
    let cases = [
        ("--set run.dir=DIR/full", 4, "the last step, 12, could not be saved", "mend the store and resume"),
        (
            "--set run.dir=DIR/wild --set train.lr=1e30 --set train.grad_clip=0.0 --set train.skip_nonfinite=2",
            5,
            "training diverged: ",
            "Lower train.lr",
        ),
    ];
    check(dir.path(), &format!("train --config smoke --steps 12 {PLAIN}"), &cases);
}

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
    train_smoke(&at("plain"), "");
    let cases = [("data.path=DIR/cut", 4, "05.jpg: this JPEG is truncated", "Replace or remove the file")];
    let prefix = "eval nll --timesteps 2 --batch 4 --split train --set data.kind=folder --model DIR/plain --set";
    check_each(dir.path(), prefix, &cases, || mpirun(2));
}

#[test]
fn a_truncated_image_in_mid_run_saves_and_names_file_and_rank() {
    const IMAGES: u32 = 40;
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("images");
    pictures(&folder, IMAGES);
    // Slots 2 and 3 of each 4 are rank 1's: the first image of its step after the fifth.
    let id = Order::new(IMAGES.into(), 0).id_at(5 * 4 + 2);
    let name = format!("{id:02}.jpg");
    let whole = truncate(&folder.join(&name));
    let line = format!(
        "train --config smoke --steps 12 --set run.dir={0}/run --set data.kind=folder --set data.path={0}/images --set \
         train.global_batch=4 --set checkpoint.every=100 {PLAIN}",
        text(dir.path())
    );
    let outcome = run(mpirun(2).args(line.split_whitespace()));
    let fault = fault(
        &outcome,
        4,
        &format!("rank 1: {}/{name}: this JPEG is truncated", text(&folder)),
        "Replace or remove the file",
    );
    assert_eq!(fault, None, "{outcome:?}");
    assert!(manifest(&dir.path().join("run"), 5).exists(), "{outcome:?}");

    fs::write(folder.join(&name), whole).unwrap();
    let outcome = succeed(mpirun(2).args(line.split_whitespace()));
    assert!(outcome.stderr.contains("going on from step 5"), "{}", outcome.stderr);
    assert!(manifest(&dir.path().join("run"), 12).exists());
}

#[test]
fn truncated_images_are_skipped_where_the_user_says_so() {
    let dir = TempDir::new().unwrap();
    pictures(&dir.path().join("images"), 8);
    // The first image is also the first of the picture of the forward process.
    truncate(&dir.path().join("images/00.jpg"));
    let skip = format!(
        "--config smoke --set data.kind=folder --set data.path={}/images --set data.on_corrupt=skip",
        text(dir.path())
    );
    let line = format!("train {skip} --steps 2 --set run.dir={}/run --set monitor.sample_every=0", text(dir.path()));
    let outcome = succeed(program().args(line.split_whitespace()));
    assert!(outcome.stderr.contains("00.jpg: this JPEG is truncated"), "{}", outcome.stderr);
    let outcome = succeed(program().args(format!("data info {skip}").split_whitespace()));
    assert!(outcome.stdout.contains("read     7 images"), "{outcome:?}");
}
