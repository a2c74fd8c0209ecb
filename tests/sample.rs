//! Sampling, plots and data inspection from the command line.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::common;
use crate::common::golden::{follows_diffusers, largest_distance, tensor};
use crate::common::tensorboard::event_files;
use crate::common::{mpirun, program, root, run, succeed, train};

#[test]
fn ho_pipeline_samples_as_diffusers_does() {
    follows_diffusers(&root().join("tests/golden/pipeline-ho"), "unet-ho", None);
}

#[test]
fn digits_pipeline_samples_as_diffusers_does() {
    follows_diffusers(&root().join("tests/golden/pipeline-digits"), "unet-digits", Some([0, 3, 4]));
}

#[test]
fn an_image_depends_only_on_its_index() {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(2, dir.path(), 10, &[]));
    let draw = |ranks: usize, count: &str, batch: &str, more: &[&str]| {
        let out = dir.path().join("out.safetensors");
        let mut command = mpirun(ranks);
        command.args(["sample", "-n", count, "--batch", batch, "--seed", "3"]).args(more);
        succeed(command.arg("--model").arg(dir.path()).arg("--out").arg(&out));
        tensor(&out, "samples").1
    };
    for sampler in [
        "--sampler ddpm --steps 20",
        "--sampler dpmpp --steps 8",
        "--sampler heun --steps 6 --threshold 99.5",
        "--sampler ddim --steps 6 --corrector-steps 2",
    ] {
        let options: Vec<&str> = sampler.split_whitespace().collect();
        let all = draw(1, "7", "64", &options);
        for (ranks, batch) in [(1, "2"), (2, "64"), (3, "64")] {
            let distance = largest_distance(&draw(ranks, "7", batch, &options), &all);
            assert!(distance <= 1e-5, "{sampler} on {ranks} rank(s) in batches of {batch} is off by {distance}");
        }
        let first = draw(1, "3", "64", &options);
        assert!(largest_distance(&first, &all[..first.len()]) <= 1e-5, "{sampler}: the first 3 of 7");
    }
    let raw = draw(1, "2", "64", &["--weights", "raw"]);
    let named = draw(1, "2", "64", &["--weights", "0.9"]);
    assert!(largest_distance(&raw, &named) > 1e-4, "raw and averaged weights draw the same");
    assert_eq!(named, draw(1, "2", "64", &["--weights", "ema"]));
}

#[test]
fn encoded_images_are_decoded_again() {
    let dir = TempDir::new().unwrap();
    let [run, noise, back] = ["run", "noise.safetensors", "back.safetensors"].map(|name| dir.path().join(name));
    // Class-conditional: the classes are stored with the noise.
    succeed(&mut train(2, &run, 20, &["--set", "diffusion.predict=v", "--set", "model.classes=10"]));
    // Ranks, images, steps.
    let there_and_back = |ranks: usize, count: &str, steps: &str| {
        let mut encode = mpirun(ranks);
        encode.args(["encode", "-n", count, "--steps", steps, "--batch", "3", "--model"]).arg(&run);
        succeed(encode.arg("--out").arg(&noise));
        let (shape, latents) = tensor(&noise, "noise");
        assert_eq!(shape, [count.parse().unwrap(), 1, 16, 16]);

        let mut decode = mpirun(ranks);
        decode.args(["sample", "-n", count, "--sampler", "ddim", "--steps", steps, "--no-clip", "--model"]).arg(&run);
        succeed(decode.arg("--init-noise").arg(&noise).arg("--out").arg(&back));
        let (originals, samples) = (tensor(&noise, "images").1, tensor(&back, "samples").1);
        assert!(largest_distance(&latents, &originals) > 0.5, "nothing was encoded");
        let error = originals.iter().zip(&samples).map(|(a, b)| (a - b).abs()).sum::<f32>() / samples.len() as f32;
        // One grey level is 0.0078.
        assert!(error < 0.005, "mean absolute error {error} of {count} images on {ranks} rank(s)");
        latents
    };
    let first = there_and_back(1, "5", "50");
    for ranks in [2, 3] {
        let distance = largest_distance(&there_and_back(ranks, "5", "50"), &first);
        assert!(distance <= 1e-4, "the noise from {ranks} rank(s) is off by {distance}");
    }
    there_and_back(2, "64", "100");
}

#[test]
fn outputs_of_every_kind() {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(1, dir.path(), 10, &["--set", "model.classes=10", "--set", "diffusion.label_dropout=0.1"]));
    let at = |name: &str| dir.path().join(name);
    let sample = |more: &[&str], out: &Path| {
        let mut command = program();
        command.args(["sample", "--steps", "5", "--model"]).arg(format!("{}@10", dir.path().display())).args(more);
        succeed(command.arg("--out").arg(out))
    };
    sample(&["--class", "all", "-n", "20", "--guidance", "2"], &at("classes.png"));
    let grid = image::open(at("classes.png")).unwrap();
    assert_eq!((grid.width(), grid.height()), (2 * 66 - 2, 10 * 66 - 2), "a row per class");
    sample(&["--class", "3", "-n", "2"], &at("folder/"));
    let two = image::open(at("folder/000001.png")).unwrap();
    assert_eq!(two.width(), 16);
    // Each rank writes its own images.
    let mut spread = mpirun(3);
    spread.args(["sample", "--steps", "5", "--class", "3", "-n", "4", "--model"]).arg(dir.path());
    succeed(spread.arg("--out").arg(at("spread/")));
    assert_eq!(std::fs::read_dir(at("spread")).unwrap().count(), 4);
    let three = image::open(at("spread/000001.png")).unwrap().into_bytes();
    assert!(three.iter().zip(two.as_bytes()).all(|(a, b)| a.abs_diff(*b) <= 1), "3 ranks draw another image than one");
    sample(&["-n", "2", "--trajectory", "--json"], &at("t.safetensors"));
    let (shape, trajectory) = tensor(&at("t.safetensors"), "trajectory");
    assert_eq!(shape, [2, 5, 1, 16, 16]);
    let (_, samples) = tensor(&at("t.safetensors"), "samples");
    assert_eq!(trajectory[4 * 256..5 * 256], samples[..256], "the last state is the sample");
}

#[test]
fn guidance_at_scale_1_is_the_plain_prediction() {
    let dir = TempDir::new().unwrap();
    succeed(&mut train(1, dir.path(), 10, &["--set", "model.classes=10", "--set", "diffusion.label_dropout=0.1"]));
    let draw = |more: &str| {
        let out = dir.path().join("out.safetensors");
        let mut command = program();
        command.args(["sample", "-n", "4", "--steps", "10", "--class", "3", "--model"]).arg(dir.path());
        succeed(command.args(more.split_whitespace()).arg("--out").arg(&out));
        tensor(&out, "samples").1
    };
    for sampler in ["ddim", "ddim --eta 0.5", "ddim --threshold 99", "ddpm", "heun", "dpmpp"] {
        let plain = draw(&format!("--sampler {sampler}"));
        assert_eq!(draw(&format!("--sampler {sampler} --guidance 1")), plain, "{sampler}");
        assert_ne!(draw(&format!("--sampler {sampler} --guidance 3")), plain, "{sampler}");
    }
}

/// bf16 carries 8 bits, so single pixels differ, and with them what later steps make of them; the images stay the same.
/// Guided predictions, a learned variance and a classifier's gradient are computed in bf16 too.
#[test]
fn images_in_bf16_are_nearly_those_in_fp32() {
    let dir = TempDir::new().unwrap();
    let [conditional, classifier] = ["conditional", "classifier"].map(|name| dir.path().join(name));
    let classes = ["--set", "model.classes=10", "--set", "diffusion.label_dropout=0.1"];
    let hybrid = ["--set", "diffusion.variance=learned_range", "--set", "diffusion.loss=hybrid"];
    succeed(&mut train(1, &conditional, 20, &[classes, hybrid].concat()));
    let mut command = program();
    command.args(["train-classifier", "--config", "smoke", "--set", "model.classes=10", "--steps", "10", "--set"]);
    succeed(command.arg(format!("run.dir={}", classifier.display())));
    let (conditional, by_classifier) =
        (conditional.display().to_string(), format!("--classifier {} --class 3", classifier.display()));
    let out = dir.path().join("out.safetensors");
    let draw = |model: &str, more: &str, precision: &str| {
        let mut command = program();
        command.args(["sample", "--json", "-n", "3", "--steps", "10", "--precision", precision, "--model", model]);
        let outcome = succeed(command.args(more.split_whitespace()).arg("--out").arg(&out));
        let said: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert!(said["images_per_s"].as_f64().unwrap() > 0.0 && said["batch"] == 3, "{said}");
        (tensor(&out, "samples").1, said["precision"].as_str().unwrap().to_owned(), outcome.stderr)
    };
    for (model, more) in [
        ("tests/golden/pipeline-digits", ""),
        (&conditional, "--sampler ddpm --class 3 --guidance 2"),
        (&conditional, &by_classifier),
    ] {
        let (exact, precision, _) = draw(model, more, "fp32");
        assert_eq!(precision, "fp32");
        let (found, precision, _) = draw(model, more, "bf16");
        assert_eq!(precision, "bf16");
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32;
        let error = distance(&exact, &found);
        assert!(error > 0.0, "{model} {more}: bf16 was not used");
        let (first, rest) = exact.split_at(exact.len() / 3);
        let apart = distance(first, &rest[..first.len()]);
        assert!(
            error < apart / 3.0,
            "{model} {more}: a mean absolute error of {error}, where two images are {apart} apart"
        );
    }
    let (_, precision, log) = draw(&conditional, "", "auto");
    let fp32 = log.contains("--precision is auto: fp32, since the CPU of rank 0 has no bf16 instructions");
    assert_eq!(precision == "fp32", fp32, "{log}");
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn a_folder_holds_the_images_of_only_one_run() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("images");
    let draw = |ranks: usize, count: &str, more: &[&str]| {
        let mut command = if ranks == 1 { program() } else { mpirun(ranks) };
        command.args(["sample", "--model", "tests/golden/pipeline-digits", "--steps", "1", "-n", count]).args(more);
        run(command.arg("--out").arg(format!("{}/", folder.display())))
    };
    let refused = |outcome: common::Outcome, wrong: &str| {
        assert!(outcome.code == 2 && outcome.stderr.contains(wrong), "{}: {}", outcome.code, outcome.stderr);
    };
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("notes.txt"), "not an image").unwrap();
    assert_eq!(draw(2, "4", &[]).code, 0);
    let four = ["000000.png", "000001.png", "000002.png", "000003.png", "notes.txt"];
    assert_eq!(names(&folder), four);
    refused(draw(2, "3", &[]), "holds 4 images of an earlier run");
    assert_eq!(names(&folder), four);
    assert_eq!(draw(2, "3", &["--overwrite"]).code, 0);
    assert_eq!(names(&folder), ["000000.png", "000001.png", "000002.png", "notes.txt"]);
    // Files of other origin are always kept.
    for other in ["cat.png", "0003.png", "cats/000007.png", "tom.JPEG", "x.jfif"] {
        std::fs::create_dir_all(folder.join(other).parent().unwrap()).unwrap();
        std::fs::write(folder.join(other), "an image of the user's").unwrap();
        refused(draw(1, "2", &["--overwrite"]), &format!("holds other images, such as {other}"));
        assert!(folder.join(other).is_file() && folder.join("000002.png").is_file());
        std::fs::remove_file(folder.join(other)).unwrap();
    }
}

#[test]
fn steps_that_do_not_start_at_noise_cause_a_warning() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let trained = succeed(&mut train(2, &at("run"), 10, &["--set", "monitor.sample_steps=3"]));
    let warning = "drawing starts from pure noise at t = ";
    assert_eq!(trained.stderr.matches(warning).count(), 1, "once, whatever the number of grids: {}", trained.stderr);
    assert!(trained.stderr.contains("raise monitor.sample_steps"), "{}", trained.stderr);
    let said = |what: &str, more: &[&str], out: &str| {
        let mut command = program();
        command.args(what.split_whitespace()).args(more).arg("--model").arg(at("run"));
        succeed(command.arg("--out").arg(at(out))).stderr
    };
    let sample = |more: &[&str]| said("sample -n 2", more, "out.safetensors");
    let few = sample(&["--steps", "3"]);
    assert!(few.contains(&format!("{warning}66 of 0 to 99")) && few.contains("--spacing trailing"), "{few}");
    for spec in ["1", "25,1", "ddim2"] {
        assert!(sample(&["--respacing", spec]).contains(warning), "{spec}");
    }
    assert!(said("plot reverse --steps 2", &[], "reverse.png").contains("take more --steps"));
    // Numbers of steps with an unequal stride reach the noise too.
    for enough in [&["--steps", "34"][..], &["--steps", "3", "--spacing", "trailing"], &["--respacing", "25,25"]] {
        let said = sample(enough);
        assert!(!said.contains("WARN"), "{enough:?}: {said}");
    }
    said("encode -n 2 --steps 3", &[], "noise.safetensors");
    let noise = at("noise.safetensors").display().to_string();
    assert!(!sample(&["--steps", "3", "--no-clip", "--init-noise", &noise]).contains(warning), "it starts as encoded");
}

#[test]
fn the_default_number_of_steps_is_at_most_the_number_of_timesteps() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    succeed(&mut train(1, &at("run"), 10, &["--set", "diffusion.timesteps=20"]));
    let start = |what: &str, out: &str| {
        let mut command = program();
        command.args(what.split_whitespace()).arg("--model").arg(at("run")).arg("--out").arg(at(out));
        command
    };
    for (what, out) in [("sample -n 2", "a.png"), ("encode -n 2", "a.safetensors"), ("plot reverse", "reverse.png")] {
        succeed(&mut start(what, out));
        let refused = run(&mut start(&format!("{what} --steps 50"), out));
        let said = "50 steps were requested of a process of 20 timesteps. Use 1 to 20";
        assert!(refused.code == 2 && refused.stderr.contains(said), "{what}: {}", refused.stderr);
    }
    let json = succeed(start("sample -n 2 --json", "b.png").env("RUST_LOG", "warn")).stdout;
    assert!(json.contains("\"steps\":20"), "{json}");
}

#[test]
fn pictures_of_models() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let plot = |ranks: usize, what: &str, more: &[&str], file: &str| {
        let mut command = if ranks == 1 { program() } else { mpirun(ranks) };
        succeed(command.args(["plot", what]).args(more).arg("--out").arg(at(file)));
        let picture = image::open(at(file)).unwrap();
        (picture.width(), picture.height())
    };
    let golden = |name: &str| root().join("tests/golden").join(format!("pipeline-{name}")).display().to_string();
    let (ho, improved) = (golden("ho"), golden("improved"));
    // Four images of 16x16 with one column for each of ten timesteps, each shown at 64x64; fewer steps have fewer
    // columns.
    assert_eq!(plot(1, "reverse", &["--model", &ho, "--steps", "12"], "reverse.png"), (10 * 66 - 2, 4 * 66 - 2));
    assert_eq!(plot(1, "reverse", &["--model", &ho, "--steps", "1"], "one.png"), (64, 4 * 66 - 2));
    assert_eq!(plot(2, "reverse", &["--model", &ho, "--steps", "12"], "spread.png"), (10 * 66 - 2, 4 * 66 - 2));
    // Batches of different sizes round differently.
    let [one, two] = ["reverse.png", "spread.png"].map(|file| image::open(at(file)).unwrap().into_bytes());
    assert!(one.iter().zip(&two).all(|(a, b)| a.abs_diff(*b) <= 1), "2 ranks draw another strip than one");
    assert_eq!(plot(1, "variance", &["--model", &ho], "fixed.png"), (900, 500));
    let data = ["--data", "smoke", "--set", "data.channels=3", "-n", "2"];
    let learned = [["--model", &improved].as_slice(), &data].concat();
    assert_eq!(plot(1, "variance", &learned, "learned.png"), (1200, 500));
    assert_eq!(plot(1, "embedding", &["--timesteps", "100", "--channels", "16"], "embedding.png"), (900, 500));
    let nll = r#"{"timesteps": 100, "terms": {"t": [0, 7, 50, 99], "vb": [1.5, 0.1, 0.01, 0.001]}}"#;
    std::fs::write(at("nll.json"), nll).unwrap();
    let nll = at("nll.json").display().to_string();
    assert_eq!(plot(1, "terms", &["--nll", &nll], "terms.png"), (900, 500));
}

#[test]
fn pictures_and_findings() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    succeed(program().args(["plot", "schedule", "--config", "mnist", "--out"]).arg(at("schedule.png")));
    assert_eq!(image::open(at("schedule.png")).unwrap().width(), 1800);
    succeed(program().args(["plot", "forward", "--config", "smoke", "--out"]).arg(at("forward.png")));
    assert_eq!(image::open(at("forward.png")).unwrap().height(), 4 * 66 - 2);
    succeed(&mut train(1, &at("run"), 20, &[]));
    succeed(program().args(["plot", "loss", "--run"]).arg(at("run")).arg("--out").arg(at("loss.png")));
    assert_eq!(image::open(at("loss.png")).unwrap().width(), 900);
    let compare = |metric: &str| {
        let run_twice = ["plot", "loss", "--run", "run", "--run", "run", "--metric", metric, "--out", "two.png"];
        run(program().current_dir(dir.path()).args(run_twice))
    };
    let drawn = compare("grad_norm");
    assert_eq!((drawn.code, image::open(at("two.png")).unwrap().width()), (0, 900), "{}", drawn.stderr);
    let refused = compare("los");
    assert!(refused.code == 2 && refused.stderr.contains("no metric `los`"), "{}", refused.stderr);
    let events = std::fs::read(&event_files(&at("run"))[0]).unwrap();
    let shown = |tag: &[u8]| events.windows(tag.len()).filter(|bytes| *bytes == tag).count();
    assert_eq!((shown(b"samples"), shown(b"reverse")), (2, 2), "at steps 10 and 20");
    let info = succeed(
        program().args(["data", "info", "--config", "smoke", "--check", "--json", "--out"]).arg(at("data.png")),
    );
    let info: serde_json::Value = serde_json::from_str(&info.stdout).unwrap();
    assert_eq!(
        (info["images"].as_u64(), info["classes"].as_u64(), info["failed"].as_u64()),
        (Some(512), Some(10), Some(0))
    );
    assert!(at("data.png").is_file());
    let doctor = succeed(mpirun(2).args(["doctor", "--json"]));
    let findings: Vec<serde_json::Value> = doctor.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(
        findings.iter().any(|f| f["check"] == "ranks" && f["detail"].as_str().unwrap().starts_with("2 in this run"))
    );
    let completions = run(program().args(["completions", "bash"]));
    assert!(completions.code == 0 && completions.stdout.contains("complete -F"), "{}", completions.stdout);
}

#[test]
fn curves_of_any_numbers_are_drawn() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let labelled = |label: &str, files: &[&str]| {
        let mut command = program();
        command.args(["plot", "points", "--x-label", "width", "--y-label", label, "--out"]).arg(at("out.png"));
        files.iter().for_each(|file| _ = command.arg("--file").arg(at(file)));
        command
    };
    let draw = |files: &[&str]| labelled("distance", files);
    std::fs::write(at("down.txt"), "0.1 3\n\n0.2 2.5\n0.3\t1e0\n").unwrap();
    std::fs::write(at("mixed.txt"), "0.3 1\n0.1 3\n0.2 2.5").unwrap();
    let drawn = |mut command: Command| {
        succeed(&mut command);
        let picture = image::open(at("out.png")).unwrap().into_rgb8();
        std::fs::remove_file(at("out.png")).unwrap();
        picture
    };
    let one = drawn(draw(&["down.txt"]));
    assert_eq!(one, drawn(draw(&["mixed.txt"])), "points are drawn in the order of x");
    std::fs::write(at("level.txt"), "0.1 2\n0.3 2").unwrap();
    assert_ne!(one, drawn(draw(&["down.txt", "level.txt"])));
    let [accented, blank] = ["Fréchet", "Fr\u{e000}chet"].map(|label| drawn(labelled(label, &["down.txt"])));
    assert_ne!(accented, blank, "the font has the letter");
    for (text, said) in [
        ("0.1 3\n0.2 NEAR", "wrong.txt, line 2: give two numbers, x and y, not `0.2 NEAR`"),
        ("0.1", "wrong.txt, line 1: give two numbers"),
        ("1 2 3", "wrong.txt, line 1: give two numbers"),
        ("", "wrong.txt has no line with two numbers, x and y"),
    ] {
        std::fs::write(at("wrong.txt"), text).unwrap();
        let refused = run(&mut draw(&["wrong.txt"]));
        assert_eq!(refused.code, 2, "{text}: {}", refused.stderr);
        assert!(refused.stderr.contains(said), "{text}: {}", refused.stderr);
    }
}
