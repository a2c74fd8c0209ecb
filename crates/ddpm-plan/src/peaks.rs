//! What GPUs can compute at most.

/// A GPU's model, as its name contains it, and its peaks in TFLOP/s without sparsity: of bf16 products with sums in
/// f32, and of f32 products with TF32 or, before there was TF32, in f32. From NVIDIA's data sheets; `None` where it
/// has no bf16.
type Peak = (&'static str, Option<f64>, f64);

const PEAKS: [Peak; 28] = [
    ("V100", None, 15.7),
    ("V100S", None, 16.4),
    ("T4", None, 8.1),
    ("A100", Some(312.0), 156.0),
    ("A800", Some(312.0), 156.0),
    ("A30", Some(165.0), 82.0),
    ("A40", Some(149.7), 74.8),
    ("A10", Some(125.0), 62.5),
    ("A10G", Some(70.0), 35.0),
    ("RTX A6000", Some(154.8), 77.4),
    ("RTX 3090", Some(71.0), 35.6),
    ("RTX 3090 Ti", Some(80.0), 40.0),
    ("RTX 4090", Some(165.2), 82.6),
    ("RTX 5090", Some(209.5), 104.8),
    ("RTX 6000 Ada", Some(364.2), 182.1),
    ("L4", Some(121.0), 60.0),
    ("L40", Some(181.0), 90.5),
    ("L40S", Some(362.0), 183.0),
    ("H100", Some(989.4), 494.7),
    ("H100 PCIe", Some(756.0), 378.0),
    ("H100 NVL", Some(835.0), 417.0),
    ("H800", Some(989.4), 494.7),
    ("H200", Some(989.4), 494.7),
    ("H200 NVL", Some(836.0), 418.0),
    ("GH200", Some(989.4), 494.7),
    ("B200", Some(2250.0), 1125.0),
    ("GB200", Some(2500.0), 1250.0),
    ("H20", Some(148.0), 74.0),
];

/// Words in a GPU's name that make it another one than the model before them: a slice, which has a part of the units,
/// or a variant that is not in the table.
const VARIANTS: [&str; 6] = ["MIG", "Laptop", "Max", "D", "Ti", "SUPER"];

/// The peak of the GPU with this name, in TFLOP/s: for products in bf16, or else in f32. `None` if it has no such
/// products, or is not in the table.
///
/// In f32, convolutions use TF32, libtorch's default, so its peak is the one to compare with.
pub fn peak_tflops(name: &str, in_bf16: bool) -> Option<f64> {
    fn words(text: &str) -> Vec<&str> {
        text.split([' ', '-']).collect()
    }
    let name = words(name);
    let has = |model: &str| name.windows(words(model).len()).any(|part| part == words(model));
    // The most specific one.
    let (model, bf16, f32) =
        PEAKS.into_iter().filter(|(model, ..)| has(model)).max_by_key(|(model, ..)| model.len())?;
    if name.iter().any(|word| VARIANTS.contains(word) && !words(model).contains(word)) {
        return None;
    }
    if in_bf16 { bf16 } else { Some(f32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_found_by_the_name_that_cuda_reports() {
        for (name, bf16, f32) in [
            ("NVIDIA H100 80GB HBM3", Some(989.4), Some(494.7)),
            ("NVIDIA H100 PCIe", Some(756.0), Some(378.0)),
            ("NVIDIA H200", Some(989.4), Some(494.7)),
            ("NVIDIA H20", Some(148.0), Some(74.0)),
            ("NVIDIA A100-SXM4-80GB", Some(312.0), Some(156.0)),
            ("NVIDIA A10G", Some(70.0), Some(35.0)),
            ("NVIDIA L40S", Some(362.0), Some(183.0)),
            ("NVIDIA GeForce RTX 4090", Some(165.2), Some(82.6)),
            ("Tesla V100-SXM2-16GB", None, Some(15.7)),
            ("Tesla V100S-PCIE-32GB", None, Some(16.4)),
            ("NVIDIA GeForce RTX 3090", Some(71.0), Some(35.6)),
            ("NVIDIA GeForce RTX 3090 Ti", Some(80.0), Some(40.0)),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
            ("NVIDIA GeForce RTX 4090 D", None, None),
            ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None),
            ("fake GPU", None, None),
        ] {
            assert_eq!([peak_tflops(name, true), peak_tflops(name, false)], [bf16, f32], "{name}");
        }
    }
}
