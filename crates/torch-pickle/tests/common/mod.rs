//! Helpers shared by the tests.
#![allow(dead_code, reason = "each test crate uses its part")]

use std::path::Path;

/// A file written by PyTorch.
pub fn data(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

/// Why a file is refused.
pub fn message(bytes: &[u8]) -> String {
    torch_pickle::tensors(bytes).expect_err("the file should be refused").to_string()
}

/// Reads the whole file.
pub fn read_all(bytes: &[u8]) -> Result<(), torch_pickle::PickleError> {
    for (name, tensor) in torch_pickle::tensors(bytes)? {
        let count: usize = tensor.shape().iter().product();
        let length = tensor.bytes()?.len();
        assert_eq!(length, count * tensor.dtype().size(), "{name}");
        assert!(length <= bytes.len(), "{name} has {length} bytes out of a file of {}", bytes.len());
    }
    Ok(())
}

/// A file in the old layout whose object is created by `program`, without storages.
pub fn legacy(program: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    [magic.as_slice(), b"\x80\x02M\xe9\x03.", b"\x80\x02}.", program, b"\x80\x02]."].concat()
}
