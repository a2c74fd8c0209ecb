//! Models that cannot be imported, and weights that a run cannot start from.

use std::fs;

use tempfile::TempDir;

use super::check;
use super::runs::train_smoke;
use crate::common::{program, root, succeed};

#[test]
fn files_of_openais_code() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let whole = fs::read(root().join("tests/golden/openai-guided-updown.pt")).unwrap();
    let half = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[half] ^= 1;
    let start = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    let system = format!("cos\nsystem\n(S'touch {}'\ntR.", at("ran").display());
    fs::write(at("cut.pt"), &whole[..half]).unwrap();
    fs::write(at("flipped.pt"), flipped).unwrap();
    fs::write(at("system.pt"), [&start[..], system.as_bytes()].concat()).unwrap();
    fs::write(at("page.pt"), "<!doctype html>").unwrap();
    fs::write(at("text.pt"), "weights").unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::copy(root().join("crates/torch-pickle/tests/data/training.pt"), at("training.pt")).unwrap();
    let cases = [
        ("DIR/absent.pt", 4, "neither a diffusers directory nor a file", "a .pt file of OpenAI's code"),
        ("DIR/empty", 4, "neither a diffusers directory nor a file", "a .pt file of OpenAI's code"),
        ("DIR/cut.pt", 4, "cut.pt: it is damaged: the end of the archive is missing", "download or copy it again"),
        ("DIR/flipped.pt", 4, "does not match its checksum", "download or copy it again"),
        ("DIR/system.pt", 4, "asks Python for `os.system`", "nothing was run; save the model's state dict"),
        ("DIR/page.pt", 4, "it is a web page", "download the file itself"),
        ("DIR/text.pt", 4, "neither safetensors", "download or copy it again"),
        ("DIR/training.pt", 4, "entry `epoch` is not a tensor", "save the model's state dict"),
        ("tests/golden/openai.json", 4, "it is JSON, not weights", "download or copy it again"),
        ("tests/golden/adamw.safetensors", 2, "is not a U-Net of OpenAI's", "no tensor input_blocks.0.0.weight"),
        (
            "tests/golden/pipeline-ho/unet/diffusion_pytorch_model.safetensors",
            2,
            "the names that diffusers uses",
            "give the folder with its config.json",
        ),
    ];
    let process = "--image-size 16 --num-heads 1 --diffusion-steps 1000 --noise-schedule linear";
    check(dir.path(), &format!("import --out DIR/run {process}"), &cases);
    assert!(!at("ran").exists(), "a pickle was run");
    assert!(!at("run").exists(), "refused imports leave nothing behind");
}

#[test]
fn what_the_weights_do_not_tell() {
    let dir = TempDir::new().unwrap();
    train_smoke(&dir.path().join("taken"), "");
    const IMPORT: &str = "import tests/golden/openai-guided-updown.pt";
    let cases = [
        (
            "",
            2,
            "the weights do not reveal the size of the images (convolutions fit any), the heads of its attention (any",
            "--image-size, --num-heads or --num-head-channels, --diffusion-steps, --noise-schedule",
        ),
        (
            "--image-size 16 --diffusion-steps 1000 --noise-schedule linear",
            2,
            "the heads of its attention (any number has the same shapes)",
            "with --num-heads or --num-head-channels.",
        ),
        (
            "--image-size 16 --num-heads 1 --diffusion-steps 4000 --noise-schedule cosine",
            2,
            "whether its timesteps were rescaled to 1000",
            "--rescale-timesteps",
        ),
        (
            "--image-size 16 --num-heads 2 --diffusion-steps 1000 --noise-schedule cosine",
            2,
            "the order of its attention's channels (both have the same shapes)",
            "--use-new-attention-order",
        ),
        ("--rescale-timesteps maybe", 2, "'maybe' for '--rescale-timesteps", "--help"),
        ("--noise-schedule sqrt", 2, "'sqrt' for '--noise-schedule", "linear, cosine"),
        ("--image-size 0", 2, "'0' for '--image-size", "at least 1"),
        (
            "--image-size 15 --num-heads 1 --diffusion-steps 1000 --noise-schedule linear",
            2,
            "image_size = 15 is not a multiple of 2",
            "Use 14 or 16",
        ),
    ];
    check(dir.path(), &format!("{IMPORT} --out DIR/run"), &cases);
    let cases = [
        ("--out DIR/run --num-heads 3", 2, "num_heads = 3 does not divide the 64 channels", "Use 1, 2, 4"),
        ("--out DIR/run --num-head-channels 48", 2, "num_head_channels = 48 does not divide", "Use 4, 8, 16, 32 or 64"),
        ("--out DIR/run --num-heads 4 --num-head-channels 16", 2, "cannot be used with", "--help"),
        ("--out DIR/run --num-heads 4 --sigma-small true", 2, "has learned its variance", "leave sigma_small out"),
        (
            "--out DIR/run --num-heads 4 --set model.channels=[64,64]",
            2,
            "model.channels is [32,64] in this model",
            "leave it as it is",
        ),
        (
            "--out DIR/run --num-heads 4 --set model.classes=7",
            2,
            "has 4 rows in its table of classes",
            "leave model.classes",
        ),
        ("--out DIR/run --num-heads 4 --set train.stpes=7", 2, "unknown key `train.stpes`", "`train.steps`"),
        ("--out DIR/taken --num-heads 4", 2, "taken holds a run already", "another directory"),
        ("--num-heads 4", 2, "not provided", "--out <RUN>"),
    ];
    let given = "--image-size 16 --diffusion-steps 1000 --noise-schedule linear --use-new-attention-order false";
    check(dir.path(), &format!("{IMPORT} {given}"), &cases);
    assert!(!dir.path().join("run").exists(), "refused imports leave nothing behind");
    let cases = [
        (
            "import tests/golden/pipeline-ho --num-heads 2 --out DIR/run",
            2,
            "describes its model itself",
            "leave them out",
        ),
        (
            "sample --model tests/golden/openai-guided-updown.pt --out DIR/a.png",
            2,
            "which does not say how they are used",
            "`ddpm-dist import tests/golden/openai-guided-updown.pt --out RUN`",
        ),
    ];
    check(dir.path(), "", &cases);
    // Nothing is known about its data.
    let imported = dir.path().join("imported");
    succeed(program().args(["import", "tests/golden/pipeline-digits", "--out"]).arg(&imported));
    let cases = [
        ("eval nll --model DIR/imported", 2, "data.kind is \"unknown\"", "Name images by data.kind and data.path"),
        ("train --config DIR/imported/config.toml", 2, "does not say what it was trained on", "Name images"),
    ];
    check(dir.path(), "", &cases);
}

#[test]
fn models_to_start_from() {
    let dir = TempDir::new().unwrap();
    train_smoke(&dir.path().join("model"), "");
    let cases = [
        ("--init-from DIR/absent", 4, "there is no directory", "Give the path of a run"),
        ("--init-from DIR/model@7", 4, "a checkpoint of step 7 is not in", "Name one that is there"),
        ("--init-skip-mismatched", 2, "train.init_from names no model", "Name one, or set it to false"),
        ("--init-from ~/model", 2, "starts with ~, which only a shell expands", "Write"),
        (
            "--init-from DIR/model --set model.classes=10",
            2,
            "do not fit this run: class_embedding.weight does not exist there",
            "--init-skip-mismatched",
        ),
        (
            "--init-from DIR/model --init-skip-mismatched --set model.channels=[8,8]",
            2,
            "has another network than this run: model.channels ([8,16] there, [8,8] here)",
            "Add --set model.channels=[8,16]",
        ),
        (
            "--init-from DIR/model --set model.head_dim=4",
            2,
            "model.head_dim (0 there, 4 here)",
            "Add --set model.head_dim=0",
        ),
    ];
    check(dir.path(), "train --config smoke --set run.dir=DIR/run", &cases);
}
