//! Models that cannot be sampled from or evaluated, and invalid inputs for sampling and evaluation.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

use super::data::{idx, pictures, truncate};
use super::runs::{copy, train_smoke};
use super::{check, check_each, text};
use crate::common::{mpirun, program, root, run};

#[test]
fn sampling() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    train_smoke(&at("run"), "");
    train_smoke(&at("classes"), "--set model.classes=10");
    train_smoke(&at("short"), "--set diffusion.timesteps=50");
    train_smoke(&at("linear"), "--set diffusion.schedule=linear");
    train_smoke(&at("tiny"), "--set data.image_size=8");
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
        ("DIR/run --sampler dpmpp --corrector-steps 1", 2, "allows no corrector", "Leave the corrector out"),
        ("DIR/run --class 3", 2, "has no classes", "leave --class out"),
        ("DIR/classes --class 10", 2, "class 10 is out of range", "classes 0 to 9"),
        ("DIR/classes --class 1 --guidance 2", 2, "cannot be guided", "leave --guidance out"),
        ("DIR/run --guidance 2", 2, "cannot be guided", "--guide-model"),
        ("DIR/run --guidance nan --guide-model DIR/run", 2, "'nan' for '--guidance", "give a number"),
        ("DIR/run --guide-model DIR/run", 2, "not provided", "--guidance"),
        ("DIR/run --guidance 2 --guide-model DIR/absent", 4, "there is no directory", "Give the path of a run"),
        (
            "DIR/run --guidance 2 --guide-model DIR/run@7",
            4,
            "a checkpoint of step 7 is not in",
            "Name one that is there",
        ),
        (
            "DIR/run --guidance 2 --guide-model DIR/classes",
            2,
            "trained on 10 classes, the model on no",
            "guide by a model",
        ),
        (
            "DIR/run --guidance 2 --guide-model DIR/short",
            2,
            "it has 50 timesteps, the model has 100",
            "guide by a model",
        ),
        ("DIR/run --guidance 2 --guide-model DIR/linear", 2, "at t = 0 it has alphas_cumprod", "guide by a model"),
        (
            "DIR/run --guidance 2 --guide-model DIR/tiny",
            2,
            "images of 1x8x8, the model draws 1x16x16",
            "guide by a model",
        ),
        ("DIR/run --guidance-interval 0,1", 2, "not provided", "--guidance"),
        ("DIR/run --guidance-rescale 0.7", 2, "not provided", "--guidance"),
        ("DIR/run --guidance 2 --guide-model DIR/run --guidance-rescale 1.5", 2, "'1.5' for", "from 0 to 1"),
        ("DIR/run --guidance 2 --guide-model DIR/run --guidance-interval 3", 2, "'3' for", "such as 0.2,5"),
        ("DIR/run --guidance 2 --guide-model DIR/run --guidance-interval 5,2", 2, "'5,2' for", "such as 0.2,5"),
        ("DIR/run --guidance 2 --guide-model DIR/run --guidance-interval=-1,2", 2, "'-1,2' for", "such as 0.2,5"),
        ("DIR/run --guidance 2 --guide-model DIR/run --guidance-interval nan,2", 2, "'nan,2' for", "such as 0.2,5"),
        (
            "DIR/run --guidance 2 --guide-model DIR/run --guidance-interval 1e6,inf",
            2,
            "no timestep has a noise level above 1000000",
            "give an interval that contains some",
        ),
        ("DIR/run --trajectory", 2, "--trajectory needs numbers", ".safetensors"),
        ("DIR/run --init-noise DIR/absent", 4, "absent: No such file", "check the path"),
        ("DIR/run --init-noise DIR/file", 2, "file: ", "f32 `noise` [64, 1, 16, 16]"),
        ("DIR/run --init-noise DIR/small", 2, "[64, 1, 8, 8]", "f32 `noise` [64, 1, 16, 16]"),
        ("DIR/run --init-noise DIR/nose", 2, "tensor `noise` not found", "f32 `noise` [64, 1, 16, 16]"),
        ("DIR/run --weights 0.5", 4, "ema/0.5", "it holds weights, exp_avg, exp_avg_sq, ema/0.9"),
        ("DIR/classes --init-noise DIR/labelled", 2, "class 77 is out of range", "classes 0 to 9"),
        ("DIR/run --init-noise DIR/mislabelled", 2, "`labels` is F32 [1]", "I64 [64]"),
        ("DIR/run --weights best", 2, "'best' for '--weights", "give ema, raw, the rate"),
    ];
    check(dir.path(), "sample --out DIR/a.png --model", &cases);
    let cases = [
        ("DIR/a.gif", 2, "a.gif does not name a kind of file", "FILE.png"),
        ("DIR/noending", 2, "noending does not name a kind of file", "FOLDER/"),
        ("DIR/file/a.png", 4, "file/a.png", "check the path"),
    ];
    check(dir.path(), "sample --model DIR/run --steps 2 -n 2 --out", &cases);
    let cases = [
        ("DIR/run --out DIR/a.png", 2, "a.png", "ends in .safetensors"),
        ("DIR/absent --out DIR/a.safetensors", 4, "there is no directory", "Give the path of a run"),
        ("DIR/run --steps 101 --out DIR/a.safetensors", 2, "101 steps", "Use 1 to 100"),
        ("DIR/run -n 1000 --out DIR/a.safetensors", 2, "1000 images are requested", "give at most 512"),
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

/// A copy of the golden model `from` in DIR under each name, with one thing in `file` changed.
fn change(dir: &Path, from: &str, file: &str, changes: &[(&str, &str, &str)]) {
    for (name, old, new) in changes {
        copy(&root().join("tests/golden").join(from), &dir.join(name));
        let path = dir.join(name).join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{text}");
        fs::write(path, text.replacen(old, new, 1)).unwrap();
    }
}

#[test]
fn schedulers_of_model_folders() {
    let dir = TempDir::new().unwrap();
    let changes = [
        ("schedule", "\"linear\"", "\"cosin\""),
        ("beta", "0.02", "1.5"),
        ("predict", "\"epsilon\"", "\"flow\""),
        ("variance", "fixed_small", "learned"),
        ("channels", "fixed_small", "learned_range"),
        ("range", "\"clip_sample_range\": 1.0", "\"clip_sample_range\": 2.0"),
        ("zero", "\"rescale_betas_zero_snr\": false", "\"rescale_betas_zero_snr\": true"),
        ("threshold", "\"thresholding\": false", "\"thresholding\": true"),
        ("class", "DDPMScheduler", "FlowMatchEulerDiscreteScheduler"),
        ("steps", "1000", "100000000000"),
        ("json", "{", ""),
    ];
    change(dir.path(), "pipeline-digits", "scheduler/scheduler_config.json", &changes);
    copy(&root().join("tests/golden/pipeline-digits"), &dir.path().join("none"));
    fs::remove_file(dir.path().join("none/scheduler/scheduler_config.json")).unwrap();
    let cases = [
        ("DIR/schedule", 2, "scheduler_config.json: beta_schedule = \"cosin\" is not supported", "squaredcos_cap_v2"),
        ("DIR/beta", 2, "scheduler_config.json: beta_end = ", "Give beta_end a value above 0 and below 1"),
        ("DIR/predict", 2, "prediction_type = \"flow\" is not supported", "v_prediction"),
        ("DIR/variance", 2, "variance_type = \"learned\" is not supported", "learned_range"),
        ("DIR/channels", 2, "takes 1 channels and gives 1", "set it to fixed_small"),
        ("DIR/range", 2, "this clip_sample_range is not supported", "it may be 1"),
        ("DIR/zero", 2, "this rescale_betas_zero_snr leaves pure noise", "it may be false"),
        ("DIR/threshold", 2, "this thresholding is not supported", "Sample with --threshold"),
        ("DIR/class", 2, "_class_name = \"FlowMatchEulerDiscreteScheduler\"", "it may be DDPMScheduler"),
        ("DIR/steps", 2, "num_train_timesteps = \"100000000000\"", "1 to 1000000"),
        ("DIR/json", 4, "scheduler_config.json: ", "it should hold a DDPMScheduler"),
        ("DIR/none", 4, "there is no scheduler/scheduler_config.json", "{\"_class_name\": \"DDPMScheduler\"}"),
    ];
    check(dir.path(), "sample -n 1 --steps 2 --out DIR/a.png --model", &cases);
    // The advice of the last one.
    fs::write(dir.path().join("none/scheduler_config.json"), "{\"_class_name\": \"DDPMScheduler\"}").unwrap();
    let advised = dir.path().join("none");
    let picture = advised.join("a.png");
    let line = ["sample", "-n", "1", "--steps", "2", "--out", text(&picture), "--model", text(&advised)];
    assert_eq!(run(program().args(line)).code, 0);
}

#[test]
fn networks_of_model_folders() {
    let dir = TempDir::new().unwrap();
    let changes = [
        ("class", "UNet2DModel", "UNet2DConditionModel"),
        ("block", "\"AttnDownBlock2D\"", "\"AttnSkipDownBlock2D\""),
        ("sides", "\"AttnDownBlock2D\"", "\"DownBlock2D\""),
        ("bottom", "\"UNetMidBlock2D\"", "null"),
        ("time", "\"positional\"", "\"fourier\""),
        ("embedding", "\"class_embed_type\": null", "\"class_embed_type\": \"timestep\""),
        ("act", "\"silu\"", "\"gelu\""),
        ("groups", "\"norm_num_groups\": 8", "\"norm_num_groups\": null"),
        ("text", "\"norm_num_groups\": 8", "\"norm_num_groups\": \"8\""),
        ("version", "0.42.1", "0.3.0"),
        ("head", "\"attention_head_dim\": null", "\"attention_head_dim\": [8, 8, 8]"),
        ("heads", "\"attention_head_dim\": null", "\"attention_head_dim\": 5"),
        ("sizes", "\"sample_size\": 16", "\"sample_size\": [16, 32, 3]"),
        ("size", "\"sample_size\": 16", "\"sample_size\": null"),
        ("norm", "\"default\"", "\"spatial\""),
        ("huge", "\"layers_per_block\": 1", "\"layers_per_block\": 1000000000000"),
        ("mixed", "\"downsample_type\": \"conv\"", "\"downsample_type\": \"resnet\""),
        ("beside", "\"in_channels\": 3", "\"in_channels\": 5"),
        ("array", "{", "[{"),
    ];
    change(dir.path(), "pipeline-ho", "unet/config.json", &changes);
    let latent = [("latent", "\"unet\": [", "\"vqvae\": [\"diffusers\", \"VQModel\"],\n  \"unet\": [")];
    change(dir.path(), "pipeline-ho", "model_index.json", &latent);
    let cache = dir.path().join("models--google--ddpm");
    fs::create_dir_all(cache.join("snapshots/0123abcd")).unwrap();
    fs::create_dir(cache.join("refs")).unwrap();
    fs::write(cache.join("refs/main"), "0123abcd").unwrap();
    let cases = [
        ("DIR/class", 2, "_class_name = \"UNet2DConditionModel\"", "docs/diffusers.md"),
        ("DIR/block", 2, "block type AttnSkipDownBlock2D", "docs/diffusers.md"),
        ("DIR/sides", 2, "attention at different levels", "docs/diffusers.md"),
        ("DIR/bottom", 2, "mid_block_type = null", "docs/diffusers.md"),
        ("DIR/time", 2, "time_embedding_type = \"fourier\"", "docs/diffusers.md"),
        ("DIR/embedding", 2, "class_embed_type = \"timestep\"", "docs/diffusers.md"),
        ("DIR/act", 2, "act_fn = \"gelu\"", "docs/diffusers.md"),
        ("DIR/groups", 2, "norm_num_groups = null", "docs/diffusers.md"),
        ("DIR/text", 2, "norm_num_groups = \"8\"", "docs/diffusers.md"),
        ("DIR/version", 2, "norm_num_groups = 8, written by a version", "docs/diffusers.md"),
        ("DIR/head", 2, "attention_head_dim = [8,8,8]", "docs/diffusers.md"),
        ("DIR/heads", 2, "heads: head_dim = 5 does not divide the 32 channels", "Use 1, 2, 4, 8 or 16"),
        ("DIR/sizes", 2, "sample_size = [16,32,3]", "docs/diffusers.md"),
        ("DIR/size", 2, "images of no particular size", "add sample_size"),
        ("DIR/norm", 2, "resnet_time_scale_shift = \"spatial\"", "docs/diffusers.md"),
        ("DIR/huge", 2, "layers_per_block = 1000000000000", "docs/diffusers.md"),
        ("DIR/mixed", 2, "convolutions between some levels", "docs/diffusers.md"),
        ("DIR/beside", 2, "takes 5 channels and gives 3", "it must give as many"),
        ("DIR/array", 4, "config.json: ", "the JSON that diffusers writes"),
        ("DIR/latent", 2, "this pipeline also has vqvae", "a UNet2DModel alone"),
        ("DIR/models--google--ddpm", 2, "folder in the cache of the Hub", "snapshots/0123abcd"),
        ("DIR/class/unet/config.json", 2, "config.json is a file", "give the folder"),
        ("tests/golden/pipeline-ho --weights raw", 2, "one set of weights", "Leave --weights out"),
    ];
    check(dir.path(), "sample -n 1 --steps 2 --out DIR/a.png --model", &cases);
}

#[test]
fn weights_of_model_folders() {
    const FILE: &str = "diffusion_pytorch_model.bin";
    let dir = TempDir::new().unwrap();
    let whole = fs::read(root().join("tests/golden/old-cifar10").join(FILE)).unwrap();
    let network = |name: &str| {
        copy(&root().join("tests/golden/old-cifar10"), &dir.path().join(name));
        dir.path().join(name).join(FILE)
    };
    let half = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[half] ^= 1;
    let system = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.\
        cos\nsystem\n(S'touch DIR/run'\ntR.";
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 143\n";
    for (name, content) in [
        ("cut", &whole[..half]),
        ("flipped", &flipped),
        ("system", system),
        ("lfs", lfs),
        ("page", b"<!doctype html>\n<html>"),
        ("empty", b""),
        ("noise", &[7; 100]),
    ] {
        fs::write(network(name), content).unwrap();
    }
    fs::remove_file(network("absent")).unwrap();
    fs::rename(network("variants"), dir.path().join("variants/diffusion_pytorch_model.fp16.bin")).unwrap();
    fs::write(dir.path().join("variants/diffusion_pytorch_model.non_ema.bin"), &whole).unwrap();
    for (name, index) in [
        ("index", "{}"),
        ("reaching", r#"{"weight_map": {"conv_in.weight": "../cut/diffusion_pytorch_model.bin"}}"#),
        ("shardless", r#"{"weight_map": {"conv_in.weight": "diffusion_pytorch_model-00001-of-00002.bin"}}"#),
    ] {
        fs::remove_file(network(name)).unwrap();
        fs::write(dir.path().join(name).join("diffusion_pytorch_model.bin.index.json"), index).unwrap();
    }
    fs::create_dir(dir.path().join("bare")).unwrap();
    fs::write(dir.path().join("bare").join(FILE), &whole).unwrap();
    let training = root().join("crates/torch-pickle/tests/data/training.pt");
    fs::copy(training, network("training")).unwrap();
    // Networks that do not match these weights.
    let config = [
        ("missing", "\"block_out_channels\": [\n    8,", "\"block_out_channels\": [\n    16,"),
        ("lacking", "\"layers_per_block\": 1", "\"layers_per_block\": 2"),
        ("extra", "\"norm_num_groups\": 4,", "\"norm_num_groups\": 4, \"add_attention\": false,"),
    ];
    change(dir.path(), "old-cifar10", "config.json", &config);
    let kinds: Vec<u8> = vec![0; 4];
    let of_integers = TensorView::new(Dtype::I32, vec![1], &kinds).unwrap();
    fs::write(network("other"), safetensors::serialize([("input_blocks.0.0.weight", of_integers)], None).unwrap())
        .unwrap();
    let cases = [
        ("DIR/cut", 4, "diffusion_pytorch_model.bin: it is damaged", "download or copy it again"),
        ("DIR/flipped", 4, "checksum", "download or copy it again"),
        ("DIR/system", 4, "asks Python for `os.system`", "save the model's state dict"),
        ("DIR/lfs", 4, "a pointer of git-lfs", "git lfs pull"),
        ("DIR/page", 4, "it is a web page", "download the file itself"),
        ("DIR/empty", 4, "it is empty", "download or copy it again"),
        ("DIR/noise", 4, "neither safetensors", "download or copy it again"),
        ("DIR/absent", 4, "there is no diffusion_pytorch_model.safetensors", "expected a diffusers directory"),
        ("DIR/bare", 4, "config.json: No such file", "expected a diffusers directory"),
        ("DIR/variants", 4, "the variants fp16, non_ema", "rename the file"),
        ("DIR/index", 4, "it has no weight_map", "map each tensor's name"),
        ("DIR/reaching", 4, "not a file beside it", "map each tensor's name"),
        ("DIR/shardless", 4, "00001-of-00002.bin: No such file", "check the path"),
        ("DIR/training", 4, "entry `epoch` is not a tensor", "save the model's state dict"),
        ("DIR/missing", 2, "tensor conv_in.weight is F32 [8, 3, 3, 3]", "[16, 3, 3, 3] is needed"),
        ("DIR/lacking", 2, "is missing", "check that config.json belongs"),
        ("DIR/extra", 2, "tensor mid_block.attentions.0.", "does not belong to it"),
        (
            "DIR/other",
            2,
            "conv_in.weight is missing, and there is one named input_blocks.0.0.weight",
            "check that config",
        ),
    ];
    check(dir.path(), "sample -n 1 --steps 2 --out DIR/a.png --model", &cases);
    assert!(!dir.path().join("run").exists());
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
        ("--model DIR/run --timesteps 101", 2, "101 timesteps per image were requested", "Use 2 to 100"),
        ("--model DIR/run --timesteps 5 --respacing 5", 2, "cannot be used with", "--help"),
        ("--model DIR/run -n 513", 2, "513 images are requested of ", "give at most 512"),
        ("--model DIR/run --split dev", 2, "'dev' for '--split", "train, valid, test"),
        ("--model DIR/run --data mnits", 2, "preset `mnits`", "the preset `mnist`"),
        ("--model DIR/run --set data.pth=x", 2, "unknown key `data.pth`", "`data.path`"),
        ("--model DIR/run --set data.image_size=32", 2, "the data are 1x32x32", "--set data.image_size=16"),
        (
            "--model DIR/run --set data.kind=folder --set data.labels=folder --set data.path=DIR/pictures",
            4,
            "the test split is requested",
            "request the train split",
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
            "the data has no labels",
            "set data.labels",
        ),
    ];
    check(dir.path(), "eval nll", &cases);
    let cases = [
        ("DIR/absent", 4, "absent: No such file", "check the path"),
        ("DIR/images", 2, "images: ", "f32 `samples` [N, 1, 16, 16]"),
        ("DIR/pictures/0 --split half", 2, "'half' for '--split", "train, valid, test"),
        ("DIR/pictures/0 -n 100000000", 2, "100000000 images are requested of ", "give at most "),
        ("DIR/pictures/0 -n 1", 2, "1 images have no covariance", "at least 2"),
        ("DIR/pictures/0 --features DIR/absent.pt", 4, "absent.pt: No such file", "check the path"),
        ("DIR/pictures/0 --features DIR/images", 2, "images is not a valid TorchScript module", "torch.jit.save"),
    ];
    check(dir.path(), "eval fid --data smoke --samples", &cases);
    train_smoke(&at("plain"), "");
    let cases = [("data.path=DIR/cut", 4, "05.jpg: this JPEG is truncated", "Replace or remove the file")];
    let prefix = "eval nll --timesteps 2 --batch 4 --split train --set data.kind=folder --model DIR/plain --set";
    check_each(dir.path(), prefix, &cases, || mpirun(2));
}
