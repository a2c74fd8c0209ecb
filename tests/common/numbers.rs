//! Weights and noise that are functions of a name, so that they need not be stored: those of tests/golden/numbers_by_name.py.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// The function `numbers`: `count` values in [-1, 1).
fn numbers(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0x811C_9DC5_u32, |seed, byte| (seed ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let number = |index: usize| {
        let mut mixed = (index as u32).wrapping_mul(0x9E37_79B9) ^ seed;
        for (shift, factor) in [(16, 0x85EB_CA6B_u32), (13, 0xC2B2_AE35)] {
            mixed = (mixed ^ (mixed >> shift)).wrapping_mul(factor);
        }
        mixed ^= mixed >> 16;
        (mixed >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(number).collect()
}

/// The function `parameter`.
fn parameter(name: &str, shape: &[usize]) -> Vec<f32> {
    let values = numbers(name, shape.iter().product());
    if let [_] = shape {
        let offset = if name.ends_with("weight") { 1.0 } else { 0.0 };
        return values.into_iter().map(|value| value * 0.25 + offset).collect();
    }
    let gain = if name.starts_with("conv_out") { 0.2 } else { 1.5 };
    let scale = (gain / (shape[1..].iter().product::<usize>() as f64).sqrt()) as f32;
    values.into_iter().map(|value| value * scale).collect()
}

/// The function `noise`: values of variance 1.
pub fn noise(name: &str, count: usize) -> Vec<f32> {
    numbers(name, count).into_iter().map(|value| value * 3f64.sqrt() as f32).collect()
}

/// Writes a file of weights by that function.
pub fn write_weights(path: &Path, shapes: &[(String, Vec<usize>)]) {
    let bytes = |(name, shape): &(String, Vec<usize>)| {
        parameter(name, shape).iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()
    };
    let values: Vec<Vec<u8>> = shapes.iter().map(bytes).collect();
    let views = shapes
        .iter()
        .zip(&values)
        .map(|((name, shape), values)| (name, TensorView::new(Dtype::F32, shape.clone(), values).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Replaces the weights in a file by those.
pub fn fill(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shapes: Vec<_> = file.iter().map(|(name, old)| (name.to_owned(), old.shape().to_vec())).collect();
    write_weights(path, &shapes);
}
