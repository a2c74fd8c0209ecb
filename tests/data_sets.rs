//! Realistic data sets: with unreadable files, files that are added and removed, or unrelated files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use ddpm_data::Order;
use image::{GrayImage, Luma};
use serde_json::Value;
use tempfile::TempDir;

use crate::common;
use crate::common::{buffers, check_same_bits, losses, metrics, mpirun, program, refused, sets, succeed, verified};

/// `count` small images, `00.png` and so on, below `folder`.
fn pictures(folder: &Path, count: u32) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..count {
        let image = GrayImage::from_fn(16, 16, |x, y| Luma([(x * y + 17 * i) as u8]));
        image.save(folder.join(format!("{i:02}.png"))).unwrap();
    }
}

/// Copies a folder with its contents.
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

/// `--set` options of a folder of images.
fn set(images: &Path, more: &[&str]) -> Vec<String> {
    let own = ["data.kind=folder".to_owned(), format!("data.path={}", images.display())];
    [sets(&own), sets(more)].concat()
}

/// Options of a short run without sample grids.
const PLAIN: [&str; 4] =
    ["train.global_batch=4", "checkpoint.every=100", "monitor.sample_every=0", "monitor.tensorboard=false"];

/// `train --config smoke` on the images, on `ranks` ranks.
fn train(ranks: usize, images: &Path, dir: &Path, steps: u64, more: &[&str]) -> Command {
    let mut command = common::train(ranks, dir, steps, more);
    command.args(set(images, &PLAIN));
    command
}

fn state(dir: &Path, step: u64) -> ddpm_checkpoint::Manifest {
    let store = ddpm_checkpoint::Store::open_existing(dir.join("checkpoints").to_str().unwrap()).unwrap();
    store.read_manifest(step).unwrap()
}

#[test]
fn a_run_whose_data_set_lost_an_image_continues_if_allowed() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let images = at("images");
    pictures(&images, 10);
    succeed(&mut train(2, &images, &at("base"), 3, &[]));
    fs::remove_file(images.join("07.png")).unwrap();
    for (ranks, resume) in [(1, "auto"), (2, "3")] {
        let mut command = train(ranks, &images, &at("base"), 9, &["--resume", resume]);
        refused(&mut command, 3, &["has 9 images, but had 10 when step 3 was saved", "--allow-change data"]);
        assert_eq!(verified(&at("base/checkpoints")), [3]);
    }

    // As the message advises. The 12 images so far are 1.2 epochs; the third begins.
    const ALLOWED: [&str; 2] = ["--allow-change", "data"];
    for name in ["straight", "again", "alone"] {
        copy(&at("base"), &at(name));
    }
    let outcome = succeed(&mut train(2, &images, &at("straight"), 9, &ALLOWED));
    assert!(outcome.stderr.contains("has 9 images, but had 10") && outcome.stderr.contains("epoch 2 begins"));
    let (before, after) = (state(&at("straight"), 3), state(&at("straight"), 9));
    let record = |manifest: &ddpm_checkpoint::Manifest| {
        ["images", "order_start", "order_epoch"].map(|key| manifest.state[key].as_u64().unwrap())
    };
    assert_eq!((record(&before), before.epoch), ([10, 0, 0], 1));
    // 24 images of 9 an epoch later.
    assert_eq!((record(&after), after.epoch), ([9, 12, 2], 4));
    assert_eq!(metrics(&at("straight"))[&9]["epoch"].as_f64(), Some(2.0 + 24.0 / 9.0));

    // Further resumes do not need the flag, and are the same with it.
    succeed(&mut train(2, &images, &at("again"), 6, &ALLOWED));
    succeed(&mut train(2, &images, &at("again"), 7, &[]));
    succeed(&mut train(2, &images, &at("again"), 9, &ALLOWED));
    check_same_bits("in three parts", &buffers(&at("again"), 9), &buffers(&at("straight"), 9));
    assert_eq!(record(&state(&at("again"), 9)), [9, 12, 2]);
    succeed(&mut train(1, &images, &at("alone"), 9, &ALLOWED));
    for ((step, ours), (_, theirs)) in losses(&at("alone")).into_iter().zip(losses(&at("straight"))) {
        assert!((ours - theirs).abs() <= 1e-5 * theirs.abs(), "step {step}: {ours} on one rank, {theirs} on two");
    }

    // The same number of images, but different ones.
    fs::rename(images.join("03.png"), images.join("10.png")).unwrap();
    let mut command = train(1, &images, &at("again"), 12, &[]);
    refused(&mut command, 3, &["images, names or classes have changed", "--allow-change data"]);
    // What is of this name now is another image, and that is the user's affair; so is another format.
    fs::rename(images.join("10.png"), images.join("03.png")).unwrap();
    let png = image::open(images.join("03.png")).unwrap().into_rgb8();
    let (width, height) = (png.width() as usize, png.height() as usize);
    let format = turbojpeg::PixelFormat::RGB;
    let pixels = turbojpeg::Image { pixels: png.as_raw().as_slice(), width, pitch: 3 * width, height, format };
    let jpeg = turbojpeg::compress(pixels, 90, turbojpeg::Subsamp::None).unwrap();
    fs::write(images.join("03.jpg"), jpeg).unwrap();
    fs::remove_file(images.join("03.png")).unwrap();
    succeed(&mut train(1, &images, &at("again"), 10, &[]));
    // Back to the checkpoint before the change, with all images: for it nothing has changed.
    pictures(&images, 10);
    fs::remove_file(images.join("03.jpg")).unwrap();
    let outcome = succeed(&mut train(2, &images, &at("straight"), 4, &["--resume", "3"]));
    assert!(!outcome.stderr.contains("begins"), "{}", outcome.stderr);
    // A data set with an additional image; and a completely different one, with different settings.
    pictures(&images, 11);
    refused(&mut train(1, &images, &at("straight"), 5, &[]), 3, &["has 11 images, but had 10"]);
    pictures(&at("others"), 6);
    let more = ["--set", "data.flip=true"];
    let mut command = train(1, &at("others"), &at("straight"), 5, &more);
    refused(&mut command, 3, &["data.flip", "data.path", "--allow-change"]);
    copy(&at("straight"), &at("named"));
    succeed(&mut train(1, &at("others"), &at("straight"), 5, &[&more[..], &ALLOWED].concat()));
    assert_eq!(record(&state(&at("straight"), 5)), [6, 16, 2]);
    // The same with the names of the keys, as the message suggests.
    let more = [&more[..], &["--allow-change", "data.flip", "--allow-change", "data.path"]].concat();
    succeed(&mut train(1, &at("others"), &at("named"), 5, &more));
    check_same_bits("by the keys' names", &buffers(&at("named"), 5), &buffers(&at("straight"), 5));
}

#[test]
fn following_the_advice_on_a_damaged_image_continues_the_run() {
    let dir = TempDir::new().unwrap();
    let images = dir.path().join("images");
    pictures(&images, 40);
    // The first image of rank 1 in its third step.
    let bad = images.join(format!("{:02}.png", Order::new(40, 0).id_at(2 * 4 + 2)));
    let whole = fs::read(&bad).unwrap();
    fs::write(&bad, &whole[..whole.len() / 2]).unwrap();
    let outcome =
        refused(&mut train(2, &images, &dir.path().join("base"), 4, &[]), 4, &[bad.to_str().unwrap(), "rank 1"]);
    assert!(outcome.stderr.contains("After a removal, resume with --allow-change data."));
    assert_eq!(verified(&dir.path().join("base/checkpoints")), [2]);

    type Follow<'a> = (&'a str, &'a dyn Fn(), &'a [&'a str]);
    let advice: [Follow; 3] = [
        ("skip", &|| (), &["--set", "data.on_corrupt=skip"]),
        ("replace", &|| fs::write(&bad, &whole).unwrap(), &[]),
        ("remove", &|| fs::remove_file(&bad).unwrap(), &["--allow-change", "data"]),
    ];
    for (name, follow, options) in advice {
        let run = dir.path().join(name);
        copy(&dir.path().join("base"), &run);
        follow();
        let outcome = succeed(&mut train(2, &images, &run, 4, options));
        assert!(outcome.stderr.contains("resuming from step 2"), "{name}: {}", outcome.stderr);
        if name == "skip" {
            let named = format!("[rank 1] warning: skipped: {}", bad.display());
            assert!(
                outcome.stderr.contains(&named) && !outcome.stderr.contains("set data.on_corrupt"),
                "{}",
                outcome.stderr
            );
            assert_eq!(metrics(&run)[&4]["corrupt"].as_u64(), Some(1));
        }
    }
}

#[test]
fn every_command_skips_or_reports_a_bad_first_image() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    pictures(&at("images"), 8);
    succeed(&mut train(1, &at("images"), &at("run"), 2, &[]));
    pictures(&at("samples"), 3);
    fs::write(at("images/00.png"), "words, not pixels").unwrap();
    let run = at("run").display().to_string();
    let commands = [
        format!("plot forward --config smoke --out {}/forward.png", dir.path().display()),
        format!("encode --model {run} --split train -n 4 --steps 2 --out {run}/noise.safetensors"),
        format!("eval fid --data smoke --samples {}", at("samples").display()),
        format!("eval nll --model {run} --split train --timesteps 2"),
    ];
    for line in &commands {
        for ranks in [1, 2] {
            let start = |on_corrupt| {
                let mut command = mpirun(ranks);
                command.args(line.split_whitespace()).args(set(&at("images"), &[on_corrupt]));
                command
            };
            let outcome = succeed(&mut start("data.on_corrupt=skip"));
            let named = outcome.stderr.matches("skipped: ").count();
            assert!((1..=ranks).contains(&named) && outcome.stderr.contains("00.png: "), "{line}: {}", outcome.stderr);
            refused(&mut start("data.on_corrupt=error"), 4, &["00.png: ", "data.on_corrupt = \"skip\""]);
        }
    }
    // The plots of the forward process and of the model, which begin with the first image.
    let mut command = train(1, &at("images"), &at("shown"), 2, &[]);
    command.args(
        ["data.on_corrupt=skip", "monitor.tensorboard=true", "monitor.sample_every=1"].map(|o| format!("--set={o}")),
    );
    let outcome = succeed(&mut command);
    assert!(!outcome.stderr.contains("no picture"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("skipped: ").count(), 1, "named once: {}", outcome.stderr);

    // Samples are not data of a run, so none of its keys helps.
    fs::write(at("samples/01.png"), "").unwrap();
    let mut command = program();
    command.args(["eval", "fid", "--data", "smoke", "--samples"]).arg(at("samples"));
    let outcome = refused(&mut command, 4, &["01.png: ", "Replace or remove the file."]);
    assert!(!outcome.stderr.contains("on_corrupt"), "{}", outcome.stderr);
}

/// `data info` of a folder of images; `more` are options.
fn info(images: &Path, options: &[&str], more: &[&str]) -> Command {
    let mut command = program();
    command.args(["data", "info", "--config", "smoke"]).args(more).args(set(images, options));
    command
}

#[test]
fn a_data_set_with_only_bad_files_is_refused() {
    let dir = TempDir::new().unwrap();
    for name in ["a.png", "b.jpg"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    for more in [&["--check"][..], &[]] {
        let outcome = refused(
            &mut info(dir.path(), &["data.on_corrupt=skip"], more),
            4,
            &["2 of 2 images cannot be read", "correct data.path"],
        );
        assert!(!outcome.stderr.contains("data.on_corrupt"), "{}", outcome.stderr);
    }
    pictures(dir.path(), 1);
    let outcome = succeed(&mut info(dir.path(), &["data.on_corrupt=skip"], &["--check"]));
    assert!(outcome.stdout.contains("read     1 images") && outcome.stdout.contains("2 cannot be read"), "{outcome:?}");
    refused(&mut info(dir.path(), &[], &["--check"]), 4, &["2 of 3 images", "data.on_corrupt = \"skip\""]);
}

/// Runs the program without root's permission to read everything.
fn unprivileged(command: Command, unreadable: &Path) -> Command {
    if fs::File::open(unreadable).is_err() {
        return command;
    }
    let mut outer = Command::new("setpriv");
    outer
        .args(["--bounding-set", "-dac_override,-dac_read_search"])
        .arg(command.get_program())
        .args(command.get_args());
    outer.current_dir(command.get_current_dir().unwrap());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(key, value),
            None => outer.env_remove(key),
        };
    }
    outer
}

#[test]
fn unreadable_files_and_folders_are_reported() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let images = at("images");
    pictures(&images, 8);
    pictures(&images.join("locked"), 2);
    symlink("/nowhere/gone.png", images.join("gone.png")).unwrap();
    let forbid = |path: PathBuf, mode: u32| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    forbid(images.join("02.png"), 0);
    forbid(images.join("locked"), 0);
    let unprivileged = |command| unprivileged(command, &images.join("02.png"));

    let skip = ["data.on_corrupt=skip"];
    let outcome = succeed(&mut unprivileged(info(&images, &skip, &["--check", "--json"])));
    let found: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!([&found["images"], &found["read"], &found["failed"]].map(Value::as_u64), [9, 7, 2].map(Some), "{found}");
    for part in ["02.png: this file cannot be opened (Permission denied", "gone.png: this link is broken"] {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
    let warnings = found["warnings"].to_string();
    assert!(warnings.contains("cannot be read, so their images are not used: locked"), "{warnings}");
    refused(&mut unprivileged(info(&images, &[], &["--check"])), 4, &["2 of 9 images cannot be read"]);

    let mut command = unprivileged(train(1, &images, &at("run"), 3, &["--set", skip[0]]));
    let outcome = succeed(&mut command);
    assert!(outcome.stderr.contains("skipped: ") && outcome.stderr.contains("gone.png"), "{}", outcome.stderr);
    refused(&mut unprivileged(train(1, &images, &at("other"), 3, &[])), 4, &["data.on_corrupt = \"skip\""]);
    forbid(images.join("locked"), 0o755);
}

#[test]
fn classes_are_listed_by_name_and_ignored_files_by_extension() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (class, count) in [("images/ant", 2), ("images/cat", 3), ("images/.git", 1)] {
        pictures(&at(class), count);
    }
    fs::create_dir_all(at("images/bee")).unwrap();
    for name in ["bee/1.avif", "bee/2.avif", "cat/3.jxl", "notes.txt"] {
        fs::write(at("images").join(name), "").unwrap();
    }
    let labels = ["data.labels=folder"];
    let outcome = succeed(&mut info(&at("images"), &labels, &["--check"]));
    for line in
        ["classes  3\n", " 0 ant: 2\n", " 1 bee: 0\n", " 2 cat: 3\n", "others   2 .avif, 1 .jxl, 1 .txt (not read)\n"]
    {
        assert!(outcome.stdout.contains(line), "{line:?} is not in: {}", outcome.stdout);
    }
    for part in ["ignored: 2 .avif, 1 .jxl, 1 .txt. Only JPEG, PNG, WebP", "keep their numbers: 1 (bee)"] {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
    let found: Value = serde_json::from_str(&succeed(&mut info(&at("images"), &labels, &["--json"])).stdout).unwrap();
    assert_eq!(found["class_table"][2], serde_json::json!({ "name": "cat", "images": 3 }));
    assert_eq!(found["passed_over"], serde_json::json!({ "avif": 2, "jxl": 1, "txt": 1 }));

    // A classifier of these three classes; samples in folders with the same names, one of which is empty.
    let options = ["data.labels=folder", "model.classes=3", "model.kind=classifier"].map(|o| format!("--set={o}"));
    let mut command = program();
    command.args(["train-classifier", "--config", "smoke", "--steps", "2"]).args(&options);
    command.args(set(&at("images"), &PLAIN)).arg(format!("--set=run.dir={}", at("run").display()));
    let outcome = succeed(&mut command);
    assert!(outcome.stderr.contains("classes: 0 ant: 2, 1 bee: 0, 2 cat: 3"), "{}", outcome.stderr);
    let judge = |samples: &str, more: &[&str]| {
        let mut command = program();
        command.args(["eval", "classes", "--classifier"]).arg(at("run")).arg("--samples").arg(at(samples)).args(more);
        command
    };
    let outcome = succeed(&mut judge("images", &["--json"]));
    let found: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(found["labels"], serde_json::json!([0, 0, 2, 2, 2]));
    assert!(outcome.stderr.contains("classes: 0 ant: 2, 1 bee: 0, 2 cat: 3"), "{}", outcome.stderr);
    fs::create_dir_all(at("images/dog")).unwrap();
    refused(&mut judge("images", &[]), 2, &["4 sub-folders (ant, bee, cat, dog)", "3 classes"]);
}

#[test]
fn labels_that_a_run_does_not_use_do_not_end_it() {
    let dir = TempDir::new().unwrap();
    let images = [0x803u32, 8, 16, 16].into_iter().flat_map(u32::to_be_bytes).chain(vec![0; 8 * 256]);
    fs::write(dir.path().join("train-images-idx3-ubyte"), images.collect::<Vec<u8>>()).unwrap();
    fs::write(dir.path().join("train-labels-idx1-ubyte"), "").unwrap();
    let train = |labels: &str| {
        let mut command = common::train(1, &dir.path().join("run"), 2, &[]);
        let options =
            ["data.kind=idx".into(), format!("data.path={}", dir.path().display()), format!("data.labels={labels}")];
        command.args(options.iter().chain(&PLAIN.map(String::from)).map(|option| format!("--set={option}")));
        command
    };
    refused(&mut train("auto"), 4, &["train-labels-idx1-ubyte"]);
    succeed(&mut train("none"));
}
