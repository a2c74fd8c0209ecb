//! Guidance away from a weaker model, within an interval of noise levels and rescaled; models of zero terminal SNR.

use std::f64::consts::FRAC_PI_2;
use std::path::Path;

use tempfile::TempDir;

use crate::common::golden::{largest_distance, tensor};
use crate::common::{metrics, mpirun, program, run, succeed, train};

/// Draws four images with options separated by blanks, on some ranks; returns a tensor of the file.
fn draw(dir: &Path, ranks: usize, name: &str, options: &str) -> Vec<f32> {
    let out = dir.join("out.safetensors");
    let options = options.replace("DIR", dir.to_str().unwrap());
    let mut command = if ranks == 1 { program() } else { mpirun(ranks) };
    command.args(["sample", "-n", "4"]).args(options.split_whitespace()).arg("--out").arg(&out);
    succeed(&mut command);
    tensor(&out, name).1
}

/// A class-conditional model of x_0 that knows "no class", and an unconditional, smaller one of eps on the same noise.
fn train_both(dir: &Path) {
    let sets = ["model.classes=10", "diffusion.label_dropout=0.1", "diffusion.predict=x_start"];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    succeed(&mut train(1, &dir.join("run"), 20, &sets));
    let small = ["--set", "model.channels=[8]", "--set", "model.attention=[false]"];
    succeed(&mut train(1, &dir.join("weak"), 10, &small));
}

/// The noise level of t of 100 on the cosine schedule (Nichol & Dhariwal 2021, eq. 17); the last beta is clipped.
fn sigma(t: usize) -> f64 {
    let f = |t: f64| ((t / 100.0 + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
    (f(0.0) / f(t as f64 + 1.0) - 1.0).sqrt()
}

#[test]
fn guided_images_follow_the_formulas_on_one_rank_and_on_two() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    train_both(dir);
    // In one step without clipping DDIM ends at the predicted image, here the network's own output.
    let one = |ranks, options: &str| {
        let fixed = "--steps 1 --spacing trailing --no-clip --model";
        draw(dir, ranks, "samples", &format!("{fixed} {options}"))
    };
    let strong = one(1, "DIR/run --class 3");
    let size = strong.len() / 4;
    let spread = |image: &[f64]| {
        let mean = image.iter().sum::<f64>() / image.len() as f64;
        (image.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / image.len() as f64).sqrt()
    };
    // The unconditional model predicts eps, which is converted; the earlier checkpoint is given the same class.
    for (guide, of_guide) in [("DIR/weak", ""), ("DIR/run@10", "--class 3")] {
        let weak = one(1, &format!("{guide} {of_guide}"));
        for (scale, phi) in [(2.5, 0.0), (2.5, 0.4), (0.5, 1.0)] {
            let mut expected = Vec::new();
            for image in 0..4 {
                let at = image * size..(image + 1) * size;
                let numbers = |x: &[f32]| x[at.clone()].iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
                let (strong, weak) = (numbers(&strong), numbers(&weak));
                let guided: Vec<f64> = weak.iter().zip(&strong).map(|(w, s)| w + scale * (s - w)).collect();
                let ratio = spread(&strong) / spread(&guided);
                expected.extend(guided.iter().map(|x| (phi * x * ratio + (1.0 - phi) * x) as f32));
            }
            let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            for ranks in [1, 2] {
                let options = format!("--guide-model {guide} --guidance {scale} --guidance-rescale {phi}");
                let off = largest_distance(&one(ranks, &format!("DIR/run --class 3 {options}")), &expected);
                assert!(off <= 1e-4 * largest, "{options} on {ranks} rank(s) is off by {off} of {largest}");
            }
        }
    }
    // In ten steps, by each sampler, with all of it at once.
    for sampler in ["ddim", "ddim --eta 0.5", "ddpm", "heun", "dpmpp"] {
        for guide in ["", "--guide-model DIR/weak"] {
            let options = "--steps 10 --guidance 2 --guidance-interval 0.2,8 --guidance-rescale 0.7";
            let options = format!("--model DIR/run --class all --sampler {sampler} {options} {guide}");
            let [one, two] = [1, 2].map(|ranks| draw(dir, ranks, "samples", &options));
            let off = largest_distance(&one, &two);
            assert!(off <= 1e-5, "{options}: one rank and two differ by {off}");
        }
    }
}

/// What `eval` draws is what `sample` writes, however it is guided; the protocol says how.
#[test]
fn guided_images_are_evaluated_as_they_are_drawn() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    train_both(dir);
    let eval = |arguments: &str| {
        let mut command = mpirun(2);
        command
            .args(["eval", "fid", "--json"])
            .args(arguments.replace("DIR", dir.to_str().unwrap()).split_whitespace());
        serde_json::from_str::<serde_json::Value>(&succeed(&mut command).stdout).unwrap()
    };
    let mut distances = Vec::new();
    for (options, said) in [
        ("", None),
        ("--guidance 3", Some("scale 3 away from no class".to_owned())),
        (
            "--guidance 2 --guide-model DIR/weak --guidance-interval 0.2,8 --guidance-rescale 0.5",
            Some(format!(
                "scale 2 away from {} at step 10, ema/0.9 where sigma is in (0.2, 8], rescaled by 0.5",
                dir.join("weak").display()
            )),
        ),
    ] {
        draw(dir, 1, "samples", &format!("--model DIR/run --steps 5 {options}"));
        let stored = eval("--samples DIR/out.safetensors --data smoke");
        let direct = eval(&format!("--model DIR/run -n 4 --steps 5 {options}"));
        let [ours, theirs] = [&direct, &stored].map(|found| found["frechet_distance"].as_f64().unwrap());
        assert!((ours / theirs - 1.0).abs() < 1e-4, "{options}: {ours}, from the file {theirs}");
        assert_eq!(direct["protocol"]["evaluated"]["guidance"].as_str(), said.as_deref());
        distances.push(ours);
    }
    assert!(distances[0] != distances[1] && distances[1] != distances[2], "{distances:?}");
}

#[test]
fn guidance_that_changes_nothing_changes_no_bit() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    train_both(dir);
    let draw = |options: &str| draw(dir, 1, "samples", &format!("--model DIR/run --class 3 --steps 10 {options}"));
    for sampler in ["ddim", "ddpm", "heun", "dpmpp"] {
        let draw = |options: &str| draw(&format!("--sampler {sampler} {options}"));
        let plain = draw("");
        assert_eq!(draw("--guidance 1 --guide-model DIR/weak --guidance-rescale 1"), plain, "{sampler}: scale 1");
        let guided = draw("--guidance 3");
        let all = draw("--guidance 3 --guidance-interval 0,inf --guidance-rescale 0");
        assert!(all == guided && guided != plain, "{sampler}: every noise level, no rescaling");
        let off = largest_distance(&draw("--guidance 3 --guide-model DIR/run --no-clip"), &draw("--no-clip"));
        assert!(off < 1e-3, "{sampler}: a guide equal to the model moves its images by {off}");
    }
    // An unconditional model can be guided too.
    let weak = |options: &str| self::draw(dir, 1, "samples", &format!("--model DIR/weak --steps 5 {options}"));
    assert_ne!(weak("--guidance 2 --guide-model DIR/weak@10 --guidance-rescale 0.5 --weights raw"), weak(""));
    let mut json = program();
    json.args(["sample", "-n", "2", "--steps", "2", "--json", "--guidance", "2.5", "--guidance-interval", "0.5,inf"]);
    json.args(["--guidance-rescale", "0.7", "--model"]).arg(dir.join("run")).arg("--guide-model").arg(dir.join("weak"));
    let said: serde_json::Value =
        serde_json::from_str(&succeed(json.arg("--out").arg(dir.join("a.png"))).stdout).unwrap();
    let weak = dir.join("weak");
    let expected = format!(
        "scale 2.5 away from {} at step 10, ema/0.9 where sigma is in (0.5, inf], rescaled by 0.7",
        weak.display()
    );
    assert_eq!(said["guidance"], expected);
}

#[test]
fn outside_of_its_interval_guidance_is_none() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    train_both(dir);
    // DDIM's direction depends on guidance too, where predicted images are clipped.
    for sampler in ["dpmpp", "ddim"] {
        let states = |options: &str| {
            let fixed = format!("--model DIR/run --class 3 --sampler {sampler} --steps 10 --trajectory");
            draw(dir, 1, "trajectory", &format!("{fixed} {options}"))
        };
        let plain = states("");
        let (image, step) = (plain.len() / 4, plain.len() / 40);
        // Steps from t = 90, 80, ..., 0. The interval begins to apply at one of them, whose noise level is its upper end.
        for first in [2, 5] {
            let high = sigma(90 - 10 * first) * 1.001;
            let guided = states(&format!("--guidance 3 --guidance-interval 0,{high}"));
            for taken in 0..10 {
                let same = (0..4).all(|of| {
                    let at = of * image + taken * step..of * image + (taken + 1) * step;
                    plain[at.clone()] == guided[at]
                });
                assert_eq!(same, taken < first, "{sampler}: step {taken} with guidance up to sigma {high}");
            }
        }
    }
}

#[test]
fn a_model_of_zero_terminal_snr_trains_samples_and_is_evaluated() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let zero = ["diffusion.zero_terminal_snr=true", "diffusion.predict=v"];
    let learned = ["diffusion.variance=learned_range", "diffusion.loss=hybrid"];
    for (name, sets) in [("fixed", zero.to_vec()), ("learned", [zero, learned].concat())] {
        let sets: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).collect();
        let trained = succeed(&mut train(2, &dir.join(name), 20, &sets));
        assert!(!trained.stderr.contains("WARN"), "{}", trained.stderr);
        for (step, line) in metrics(&dir.join(name)) {
            assert!(["loss", "mse", "vlb"].iter().all(|key| line[key].as_f64().is_some()), "{step}: {line}");
        }
        for sampler in ["ddim", "ddim --eta 1", "ddpm", "heun --corrector-steps 1", "dpmpp"] {
            let options = format!("--model DIR/{name} --steps 10 --sampler {sampler}");
            let [one, two] = [1, 2].map(|ranks| draw(dir, ranks, "samples", &options));
            assert!(one.iter().all(|x| x.abs() <= 1.5), "{options}");
            assert!(largest_distance(&one, &two) <= 1e-5, "{options}: one rank and two differ");
            // Sampling starts at the last timestep, the only one that is pure noise.
            assert_eq!(draw(dir, 1, "samples", &format!("{options} --spacing trailing")), one, "{options}");
        }
        let mut nll = mpirun(2);
        nll.args(["eval", "nll", "-n", "4", "--json", "--model"]).arg(dir.join(name));
        let nll: serde_json::Value = serde_json::from_str(&succeed(&mut nll).stdout).unwrap();
        let terms = nll["terms"].to_string();
        assert!(nll["bits_per_dim"].is_number() && !terms.contains("null"), "{nll}");
        succeed(
            program()
                .args(["plot", "variance", "-n", "2", "--model"])
                .arg(dir.join(name))
                .arg("--out")
                .arg(dir.join("v.png")),
        );
    }
    let mut leading = program();
    leading.args(["sample", "-n", "1", "--steps", "20", "--spacing", "leading", "--model"]).arg(dir.join("fixed"));
    let leading = run(leading.arg("--out").arg(dir.join("a.png")));
    assert!(leading.code == 0 && leading.stderr.contains("are not pure noise"), "{}", leading.stderr);
    // There and back.
    let (noise, back) = (dir.join("noise.safetensors"), dir.join("back.safetensors"));
    let steps = ["-n", "4", "--steps", "50", "--model"];
    succeed(program().arg("encode").args(steps).arg(dir.join("fixed")).arg("--out").arg(&noise));
    let mut decode = program();
    decode.arg("sample").args(steps).arg(dir.join("fixed")).args(["--no-clip", "--init-noise"]).arg(&noise);
    succeed(decode.arg("--out").arg(&back));
    let (originals, samples) = (tensor(&noise, "images").1, tensor(&back, "samples").1);
    let error = originals.iter().zip(&samples).map(|(a, b)| (a - b).abs()).sum::<f32>() / samples.len() as f32;
    assert!(error < 0.01, "mean absolute error {error}");
}
