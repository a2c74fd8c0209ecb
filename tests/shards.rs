//! Training from Parquet, WebDataset and ZIP, and the commands that pack and describe data sets.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{buffers, check_same_bits, losses, program, refused, root, sets, succeed, train};

/// Options of a short class-conditional run on the twelve images of tests/golden/data, without sample grids.
const PLAIN: [&str; 8] = [
    "data.channels=3",
    "model.classes=3",
    "train.global_batch=4",
    "train.lr=0.01",
    "checkpoint.every=100",
    "monitor.sample_every=0",
    "monitor.tensorboard=false",
    "data.workers=2",
];

/// The keys of `[data]` for a data set, with indexes below `dir`.
fn data(kind: &str, path: impl AsRef<Path>, labels: &str, dir: &Path) -> Vec<String> {
    let (path, cache) = (path.as_ref().display(), dir.join("cache").display().to_string());
    let keys = [
        format!("data.kind={kind}"),
        format!("data.path={path}"),
        format!("data.labels={labels}"),
        format!("data.cache_dir={cache}"),
    ];
    sets(&keys)
}

/// The twelve images as a folder with sub-folders as classes: unpacked by tar.
fn unpacked(dir: &Path) -> std::path::PathBuf {
    let folder = dir.join("images");
    fs::create_dir(&folder).unwrap();
    for shard in ["samples-000.tar", "samples-001.tar"] {
        let tar = root().join("tests/golden/data").join(shard);
        let status = Command::new("tar").arg("-xf").arg(tar).arg("-C").arg(&folder).status().unwrap();
        assert!(status.success());
    }
    folder
}

#[test]
fn training_does_not_depend_on_the_format_of_its_images() {
    let dir = TempDir::new().unwrap();
    let golden = root().join("tests/golden/data");
    let folder = unpacked(dir.path());
    let of_folder = data("folder", &folder, "folder", dir.path());
    let mut pack = program();
    let packed = dir.path().join("packed");
    pack.args(["data", "pack", "--config", "smoke", "--per-shard", "5", "--resize", "--out"]).arg(&packed);
    succeed(pack.args(&of_folder).args(sets(&["data.channels=3"])));
    let sources = [
        ("folder", of_folder),
        ("parquet", data("parquet", golden.join("parquet"), "auto", dir.path())),
        ("plain", data("parquet", golden.join("plain.parquet"), "field:kind", dir.path())),
        ("tar", data("webdataset", golden.join("samples-{000..001}.tar"), "auto", dir.path())),
        ("zst", data("webdataset", golden.join("named.tar.zst"), "field:kind", dir.path())),
        ("zip", data("zip", golden.join("edm.zip"), "auto", dir.path())),
        ("packed", data("parquet", &packed, "auto", dir.path())),
    ];
    for ranks in [1, 2] {
        let at = |name: &str| dir.path().join(format!("{name}-{ranks}"));
        for (name, keys) in &sources {
            succeed(train(ranks, &at(name), 7, &[]).args(sets(&PLAIN)).args(keys));
        }
        for (name, _) in &sources[1..] {
            assert_eq!(losses(&at(name)), losses(&at("folder")), "{name} on {ranks} ranks");
            check_same_bits(name, &buffers(&at(name), 7), &buffers(&at("folder"), 7));
        }
    }
    // In two parts on other numbers of ranks: the order is a function of the position.
    let (at, keys) = (dir.path().join("parts"), &sources[3].1);
    succeed(train(2, &at, 3, &[]).args(sets(&PLAIN)).args(keys));
    succeed(train(1, &at, 7, &[]).args(sets(&PLAIN)).args(keys));
    // Large updates from four images magnify the last digits of sums in another order.
    for ((step, ours), (_, theirs)) in losses(&at).into_iter().zip(losses(&dir.path().join("folder-1"))) {
        assert!((ours - theirs).abs() <= 1e-4 * theirs.abs(), "step {step}: {ours} in parts, {theirs} at once");
    }
}

#[test]
fn a_run_ends_when_its_shard_changes_and_is_refused_with_another() {
    let dir = TempDir::new().unwrap();
    let shard = dir.path().join("train.tar");
    let golden = |name: &str| root().join("tests/golden/data").join(name);
    fs::copy(golden("samples-000.tar"), &shard).unwrap();
    let keys = data("webdataset", &shard, "auto", dir.path());
    let at = dir.path().join("run");
    let start = |steps| {
        let mut command = train(2, &at, steps, &[]);
        command.args(sets(&PLAIN)).args(&keys);
        command
    };
    succeed(&mut start(2));
    fs::copy(golden("samples-001.tar"), &shard).unwrap();
    refused(&mut start(4), 3, &["has 4 images, but had 8", "--allow-change data"]);
    fs::copy(golden("samples-000.tar"), &shard).unwrap();
    succeed(&mut start(4));
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..700]).unwrap();
    refused(&mut start(6), 4, &["train.tar", "truncated", "fetch it again"]);
}

#[test]
fn data_commands_describe_every_format() {
    let dir = TempDir::new().unwrap();
    let golden = root().join("tests/golden/data");
    for (kind, path, labels, phrase) in [
        ("parquet", "parquet", "auto", "12 images of the train split in 2 Parquet files"),
        ("webdataset", "samples-*.tar", "folder", "12 images in 2 tar files"),
        ("webdataset", "named.tar.gz", "auto", "12 images in 1 tar file"),
        ("zip", "folders.zip", "folder", "12 images in 1 ZIP file"),
    ] {
        let keys = data(kind, golden.join(path), labels, dir.path());
        let command = |what: &str, more: &[&str]| {
            let mut command = program();
            command.args(["data", what, "--config", "smoke"]).args(more).args(sets(&["data.channels=3"])).args(&keys);
            succeed(&mut command).stdout
        };
        let text = command("info", &["--check"]);
        assert!(text.starts_with(phrase) && text.contains("read     12 images"), "{text}");
        let stats: Value = serde_json::from_str(&command("stats", &["--json"])).unwrap();
        assert_eq!((stats["images"].as_u64(), stats["repeated"].as_u64()), (Some(12), Some(0)), "{stats}");
        let pixels = fs::read(golden.join("pixels.rgb")).unwrap();
        for channel in 0..3 {
            let values: Vec<f64> = pixels.iter().skip(channel).step_by(3).map(|v| f64::from(*v) / 255.0).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
            assert!((stats["mean"][channel].as_f64().unwrap() - mean).abs() < 1e-9, "{stats}");
            assert!((stats["std"][channel].as_f64().unwrap() - variance.sqrt()).abs() < 1e-9, "{stats}");
        }
        assert_eq!(stats["stored_sizes"][0]["width"].as_u64(), Some(16));
        let text = command("stats", &[]);
        assert!(text.contains("stored   16x16: 12") && text.contains("repeated 0 images"), "{text}");
    }

    let packed = dir.path().join("packed");
    let keys = data("parquet", golden.join("parquet"), "auto", dir.path());
    let pack = |out: &Path| {
        let mut command = program();
        command.args(["data", "pack", "--config", "smoke", "--format", "webdataset", "--json", "--out"]).arg(out);
        command.args(sets(&["data.channels=3"])).args(&keys);
        command
    };
    let manifest: Value = serde_json::from_str(&succeed(&mut pack(&packed)).stdout).unwrap();
    assert_eq!((manifest["images"].as_u64(), manifest["shards"].as_array().map(Vec::len)), (Some(12), Some(1)));
    refused(&mut pack(&packed), 4, &["packed: this folder is not empty", "give another one"]);
    fs::write(dir.path().join("file"), "").unwrap();
    refused(&mut pack(&dir.path().join("file")), 4, &["file: cannot be written"]);
    let mut check = program();
    check.args(["data", "info", "--config", "smoke", "--check"]).args(sets(&["data.channels=3"]));
    check.args(data("webdataset", &packed, "auto", dir.path()));
    succeed(&mut check);
    let shard = packed.join("train-00000-of-00001.tar");
    let mut bytes = fs::read(&shard).unwrap();
    // In the padding after the first image, which no other check covers.
    bytes[512 + 700] ^= 1;
    fs::write(&shard, bytes).unwrap();
    refused(&mut check, 4, &["train-00000-of-00001.tar: this shard is not the one that was packed"]);
}
