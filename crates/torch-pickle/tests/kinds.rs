//! Files written by PyTorch with tests/golden/make_diffusers.py: every element type, strided views, shared storages.

mod common;

use std::collections::BTreeMap;

use common::{data, message};
use torch_pickle::{Dtype, Tensor, tensors};

fn floats(tensor: &Tensor) -> Vec<f64> {
    let bytes = tensor.bytes().unwrap();
    match tensor.dtype() {
        Dtype::F64 => bytes.as_chunks().0.iter().map(|v| f64::from_le_bytes(*v)).collect(),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|v| f64::from(f32::from_le_bytes(*v))).collect(),
        other => panic!("{other:?} is not a float type"),
    }
}

#[test]
fn all_element_types_are_read_from_both_layouts() {
    for file in ["kinds.pt", "kinds-legacy.pt"] {
        let bytes = data(file);
        let found: BTreeMap<String, Tensor> = tensors(&bytes).unwrap();
        let at = |name: &str| found.get(name).unwrap_or_else(|| panic!("{file} lacks {name}"));
        assert_eq!(found.len(), 15, "{file}");

        assert_eq!(at("transposed").shape(), [4, 2, 3]);
        let expected: Vec<f64> = (0..4)
            .flat_map(|i| (0..2).flat_map(move |j| (0..3).map(move |k| f64::from(12 * j + 4 * k + i) / 8.0)))
            .collect();
        assert_eq!(floats(at("transposed")), expected, "{file}");
        assert_eq!(floats(at("sliced")), [4.0, 6.0, 8.0, 10.0, 16.0, 18.0, 20.0, 22.0], "{file}");
        assert_eq!(floats(at("head")), [0.0, 1.0, 2.0, 3.0], "{file}");
        assert_eq!(floats(at("tail")), [6.0, 7.0, 8.0, 9.0], "{file}");
        assert_eq!(floats(at("parameter")), [-1.5, 2.5], "{file}");
        assert_eq!((at("scalar").shape(), floats(at("scalar"))), ([0usize; 0].as_slice(), vec![7.0]), "{file}");
        assert_eq!((at("empty").shape(), floats(at("empty"))), ([0, 5].as_slice(), vec![]), "{file}");
        // 0.1 and the largest f16; 0.1 and 3e38 in bf16.
        assert_eq!(
            (at("half").dtype(), at("half").bytes().unwrap().to_vec()),
            (Dtype::F16, vec![0x66, 0x2e, 0xff, 0xfb])
        );
        assert_eq!(
            (at("brain").dtype(), at("brain").bytes().unwrap().to_vec()),
            (Dtype::BF16, vec![0xcd, 0x3d, 0x62, 0x7f])
        );
        for (name, dtype) in [
            ("int64", Dtype::I64),
            ("int32", Dtype::I32),
            ("int16", Dtype::I16),
            ("int8", Dtype::I8),
            ("uint8", Dtype::U8),
            ("bool", Dtype::Bool),
        ] {
            let mut expected = vec![0; 3 * dtype.size()];
            (expected[0], expected[2 * dtype.size()]) = (1, 1);
            assert_eq!((at(name).dtype(), at(name).bytes().unwrap().to_vec()), (dtype, expected), "{file}: {name}");
        }
    }
}

#[test]
fn other_kinds_of_files_are_refused_by_name() {
    for (file, expected) in [
        ("training.pt", "entry `epoch` is not a tensor"),
        ("module.pt", "`torch.nn.modules.linear.Linear`"),
        ("script.pt", "TorchScript"),
    ] {
        let error = message(&data(file));
        assert!(error.contains(expected), "{file}: {error}");
    }
}
