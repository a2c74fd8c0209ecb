//! Comparing samples with those that diffusers drew from the same noise.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

use super::{mpirun, root, succeed};

/// Reads an f32 tensor from a file: its shape and values.
pub fn tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let values = tensor.data().as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
    (tensor.shape().to_vec(), values)
}

/// The largest absolute difference of corresponding values.
pub fn largest_distance(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Asserts that DDIM in 10 steps with `model`, from the noise in tests/golden/`expected`.safetensors, gives the images
/// in that file, on one rank and on two; `classes` are those of the images.
pub fn follows_diffusers(model: &Path, expected: &str, classes: Option<[usize; 3]>) {
    let dir = TempDir::new().unwrap();
    let golden = root().join("tests/golden").join(format!("{expected}.safetensors"));
    let (shape, noise) = tensor(&golden, "x");
    let (_, expected) = tensor(&golden, "ddim10_leading_from_x");
    let bytes: Vec<u8> = noise.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, shape.clone(), &bytes).unwrap();
    let init = dir.path().join("noise.safetensors");
    std::fs::write(&init, safetensors::serialize([("noise", view)], None).unwrap()).unwrap();
    let draw = |ranks: usize, class: &[&str]| {
        let out = dir.path().join("samples.safetensors");
        let mut command = mpirun(ranks);
        command.args(["sample", "--sampler", "ddim", "--steps", "10", "--spacing", "leading", "-n", "3"]).args(class);
        command.arg("--model").arg(model).arg("--init-noise").arg(&init);
        succeed(command.arg("--out").arg(&out));
        let (found, samples) = tensor(&out, "samples");
        assert_eq!(found, shape);
        samples
    };
    let size = expected.len() / 3;
    for ranks in [1, 2] {
        let samples = match classes {
            None => draw(ranks, &[]),
            // One class per run: from each run, the image whose reference has that class.
            Some(classes) => (0..3)
                .flat_map(|i| draw(ranks, &["--class", &classes[i].to_string()])[i * size..(i + 1) * size].to_vec())
                .collect(),
        };
        let distance = largest_distance(&samples, &expected);
        assert!(distance <= 1e-3, "{} on {ranks} rank(s) is off by {distance}", model.display());
    }
}
