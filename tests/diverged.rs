//! Non-finite weights and images: refused by name wherever they occur, without any output.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use ddpm_checkpoint::{Manifest, OwnedSlice, Pending, Store, nonce};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

use crate::common::{mpirun, program, root, run, succeed, train};

const QUIET: [&str; 4] = ["--set", "monitor.sample_every=0", "--set", "monitor.tensorboard=false"];

/// Waits for a background task of the store.
fn outcome<T: Send + 'static>(mut pending: Pending<T>) -> T {
    loop {
        if let Some(done) = pending.poll() {
            return done.unwrap();
        }
        sleep(Duration::from_millis(1));
    }
}

/// Copies the checkpoint of `step` from the run in `from` to the one in `to`, with `change` made to each of its buffers.
fn spoil(from: &Path, step: u64, to: &Path, change: impl Fn(&Manifest, &str, &mut [f32])) {
    let open = |dir: &Path| Store::open(dir.join("checkpoints").to_str().unwrap()).unwrap();
    let (from, to) = (open(from), open(to));
    let manifest = from.read_manifest(step).unwrap();
    let slice = |buffer: &ddpm_checkpoint::BufferEntry| {
        let mut data = from.load_buffer(&manifest, &buffer.name).unwrap();
        change(&manifest, &buffer.name, &mut data);
        OwnedSlice { name: buffer.name.clone(), range: 0..data.len(), data }
    };
    let slices: Vec<_> = manifest.buffers.iter().map(slice).collect();
    let shards = vec![outcome(to.start_upload(step, &manifest.attempt, 0, 1, Box::new(|| Ok(slices))))];
    outcome(to.start_commit(Manifest { shards, nonce: nonce(), ..manifest.clone() }, None));
}

/// Asserts that `command` ends with exit code `code` and one error line that says what is wrong and how to continue.
fn check_refused(command: &mut Command, code: i32, wrong: &str, remedy: &str) {
    let ended = run(command);
    let errors = format!("\n{}", ended.stderr).matches("\nerror: ").count();
    let said = ended.stderr.contains(wrong) && ended.stderr.contains(remedy);
    assert!(ended.code == code && errors == 1 && said, "{command:?} ended with {}: {}", ended.code, ended.stderr);
}

/// `ddpm-dist` with these arguments on `ranks` ranks.
fn command(ranks: usize, line: &str) -> Command {
    let mut command = if ranks == 1 { program() } else { mpirun(ranks) };
    command.args(line.split_whitespace());
    command
}

const EARLIER: &str = "go back to an earlier step, or use other weights";

#[test]
fn non_finite_weights_are_refused_by_every_command() {
    let dir = TempDir::new().unwrap();
    let [good, bad] = ["good", "bad"].map(|name| dir.path().join(name).display().to_string());
    succeed(&mut train(1, Path::new(&good), 10, &QUIET));
    spoil(Path::new(&good), 10, Path::new(&bad), |_, buffer, values| {
        if buffer == "ema/0.9" {
            (values[0], values[7], values[100]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        }
    });
    let wrong = format!("{bad} at step 10, ema/0.9: 3 of 42521 weights are not finite");
    let out = dir.path().join("out");
    for (ranks, line) in [
        (1, format!("sample -n 2 --steps 2 --out {}/a.png --model {bad}", out.display())),
        (2, format!("sample -n 2 --steps 2 --out {}/folder/ --model {bad}", out.display())),
        (1, format!("encode -n 2 --steps 2 --out {}/a.safetensors --model {bad}", out.display())),
        (2, format!("eval nll -n 2 --timesteps 2 --model {bad}")),
        (1, format!("plot reverse --steps 2 --out {}/reverse.png --model {bad}", out.display())),
        (1, format!("plot variance --out {}/variance.png --model {bad}", out.display())),
    ] {
        check_refused(&mut command(ranks, &line), 5, &wrong, EARLIER);
        assert!(!out.exists(), "{line} left something behind");
    }
    succeed(&mut command(
        1,
        &format!("sample -n 2 --steps 2 --weights raw --out {}/a.png --model {bad}", out.display()),
    ));

    // The same for a diffusers directory: the last value in its file is now NaN.
    let pipeline = dir.path().join("pipeline");
    let status = Command::new("cp").arg("-r").arg(root().join("tests/golden/pipeline-digits")).arg(&pipeline).status();
    assert!(status.unwrap().success());
    let file = pipeline.join("unet/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    bytes.last_chunk_mut::<4>().unwrap().copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let line = format!("sample -n 1 --steps 1 --out {}/b.png --model {}", out.display(), pipeline.display());
    check_refused(&mut command(2, &line), 5, "pipeline (diffusers): 1 of ", EARLIER);
}

#[test]
fn non_finite_images_are_refused_by_index() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (good, huge, one) = (at("good"), at("huge"), at("one"));
    let more = [&QUIET[..], &["--set", "model.classes=10"]].concat();
    succeed(&mut train(1, Path::new(&good), 10, &more));
    // Finite weights, but so large that their products are not.
    spoil(Path::new(&good), 10, Path::new(&huge), |_, _, values| values.iter_mut().for_each(|value| *value *= 1e36));
    // And those of only one class.
    spoil(Path::new(&good), 10, Path::new(&one), |manifest, buffer, values| {
        let table = manifest.tensors.iter().find(|tensor| tensor.name == "class_embedding.weight").unwrap();
        let width = table.shape[1] as usize;
        if buffer.starts_with("ema/") {
            values[table.offset as usize + 3 * width..][..width].fill(f32::MAX);
        }
    });
    for (ranks, line, wrong) in [
        (1, format!("sample -n 4 --steps 2 --out {} --model {huge}", at("a.png")), "drawn from"),
        (2, format!("sample -n 4 --steps 2 --out {}/ --model {huge}", at("folder")), "drawn from"),
        (1, format!("encode -n 4 --steps 2 --out {} --model {huge}", at("a.safetensors")), "encoded by"),
        (1, format!("plot reverse --steps 2 --out {} --model {huge}", at("reverse.png")), "drawn from"),
    ] {
        let wrong = format!("images {wrong} {huge} at step 10, ema/0.9: ");
        check_refused(&mut command(ranks, &line), 5, &wrong, EARLIER);
    }
    let line = format!("eval nll -n 4 --timesteps 2 --json --model {huge}");
    check_refused(&mut command(2, &line), 5, "ema/0.9: the bound of image ", "Use an earlier step");
    let line = format!("sample -n 10 --steps 2 --out {} --model {one}", at("b.safetensors"));
    check_refused(&mut command(1, &line), 5, "1 of 10 are not finite, first at image 3", EARLIER);
    for name in ["a.png", "folder", "a.safetensors", "reverse.png", "b.safetensors"] {
        assert!(!Path::new(&at(name)).exists(), "{name} was written");
    }
    succeed(&mut command(1, &format!("sample -n 2 --steps 2 --class 2 --out {} --model {one}", at("c.png"))));

    // External images, one of which contains a NaN.
    let values: Vec<u8> = (0..3 * 256).flat_map(|i| if i == 300 { f32::NAN } else { 0.5 }.to_le_bytes()).collect();
    for (file, tensor) in [("samples.safetensors", "samples"), ("noise.safetensors", "noise")] {
        let view = TensorView::new(Dtype::F32, vec![3, 1, 16, 16], &values).unwrap();
        fs::write(at(file), safetensors::serialize([(tensor, view)], None).unwrap()).unwrap();
    }
    let classifier = at("classifier");
    let line = format!("train-classifier --config smoke --steps 2 --set model.classes=10 --set run.dir={classifier}");
    succeed(&mut command(1, &line));
    for (line, tensor) in [
        (format!("eval fid --data smoke --samples {}", at("samples.safetensors")), "samples"),
        (format!("eval classes --classifier {classifier} --samples {}", at("samples.safetensors")), "samples"),
        (format!("sample -n 3 --init-noise {} --out {} --model {good}", at("noise.safetensors"), at("d.png")), "noise"),
    ] {
        let wrong = format!("1 of 3 images in `{tensor}` are not finite, the first is image 1");
        check_refused(&mut command(1, &line), 2, &wrong, &format!("finite f32 `{tensor}`"));
    }
    let spoilt = at("spoilt");
    spoil(Path::new(&classifier), 2, Path::new(&spoilt), |_, _, values| values.iter_mut().for_each(|v| *v *= 1e36));
    let line = format!("eval classes --classifier {spoilt} --split test -n 4");
    check_refused(&mut command(1, &line), 5, "probabilities of classes from", EARLIER);
}

#[test]
fn training_continues_without_a_non_finite_sample_grid() {
    let dir = TempDir::new().unwrap();
    let [good, bad] = ["good", "bad"].map(|name| dir.path().join(name));
    succeed(&mut train(1, &good, 10, &QUIET));
    spoil(&good, 10, &bad, |_, buffer, values| {
        if buffer.starts_with("ema/") {
            values[5] = f32::NAN;
        }
    });
    let ended = succeed(&mut train(2, &bad, 20, &[]));
    assert!(ended.stderr.contains("no grid of samples: images drawn from this run at step 20"), "{}", ended.stderr);
    assert!(!bad.join("samples").exists(), "a black grid was written");
    assert!(bad.join("checkpoints/manifest/000000000020.json").is_file(), "training did not end");
}
