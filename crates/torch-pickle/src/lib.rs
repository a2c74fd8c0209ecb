//! Reads tensors from a file written by `torch.save`: a pickle of a state dict, and the storages that it refers to.
//!
//! A pickle is a program, and Python runs whatever functions it names. Here it is read as data: the few names that a state
//! dict needs are known (`machine.rs`), all others are refused by name, and nothing is ever called. Each step reads at
//! least one byte and creates at most one object, so a damaged or malicious file costs no more than its own size.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/kinds.pt");
//! let file = std::fs::read(path)?; // Written by torch.save(state_dict, path).
//! let tensors = torch_pickle::tensors(&file)?;
//! let tensor = &tensors["parameter"];
//! assert_eq!((tensor.dtype(), tensor.shape()), (torch_pickle::Dtype::F32, &[2][..]));
//! assert_eq!(*tensor.bytes()?, [(-1.5f32).to_le_bytes(), 2.5f32.to_le_bytes()].concat());
//! # Ok(())
//! # }
//! ```
//!
//! Both layouts are supported: the zip archive since torch 1.6 (`archive.rs`), and the bare pickles before (`legacy.rs`).

mod archive;
mod dtype;
mod error;
mod legacy;
mod machine;
mod object;
mod reader;
mod state_dict;
mod tensor;

pub use dtype::Dtype;
pub use error::PickleError;
pub use tensor::Tensor;

use std::collections::BTreeMap;

/// Whether a file that starts with these bytes was written by `torch.save`.
pub fn recognises(bytes: &[u8]) -> bool {
    archive::recognises(bytes) || legacy::recognises(bytes)
}

/// The tensors of a state dict by name, from the contents of its file. Their data is not read yet.
///
/// # Errors
/// If the file is damaged, requires code to be run, or does not contain a dictionary of tensors.
pub fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, Tensor<'_>>, PickleError> {
    if archive::recognises(bytes) {
        archive::tensors(bytes)
    } else if legacy::recognises(bytes) {
        legacy::tensors(bytes)
    } else {
        Err(PickleError::Unsupported("it is not a file that torch.save writes".into()))
    }
}
