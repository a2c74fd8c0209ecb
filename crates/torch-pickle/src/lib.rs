//! Tensors out of a file that `torch.save` wrote: a pickle of a state dict, and the numbers that it refers to.
//!
//! A pickle is a program, and Python runs whatever functions it names. Here it is read as data: the few names that a state
//! dict needs are known (`machine.rs`), any other is refused by name, and nothing is ever called. Each step reads at least
//! one byte and makes at most one object, so that a damaged or hostile file costs no more than its own size.
//!
//! Both layouts are read: the zip archive that torch writes since 1.6 (`archive.rs`), and the bare pickles before
//! (`legacy.rs`).

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

/// Whether a file that begins like this is one that `torch.save` writes.
pub fn recognises(bytes: &[u8]) -> bool {
    archive::recognises(bytes) || legacy::recognises(bytes)
}

/// The tensors of a state dict by name, from the content of the file that holds it. Their numbers are not read yet.
///
/// # Errors
/// The file is damaged, asks for code to be run, or holds something else than a dictionary of tensors.
pub fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, Tensor<'_>>, PickleError> {
    if archive::recognises(bytes) {
        archive::tensors(bytes)
    } else if legacy::recognises(bytes) {
        legacy::tensors(bytes)
    } else {
        Err(PickleError::Unsupported("it is not a file that torch.save writes".into()))
    }
}
