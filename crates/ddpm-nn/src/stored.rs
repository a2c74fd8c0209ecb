//! Files of weights: safetensors, or a pickle by `torch.save`, whichever the content is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use torch_pickle::PickleError;

use crate::NnError;

const AGAIN: &str = "download or copy it again";

/// A file in memory.
#[derive(Debug)]
pub(crate) struct WeightFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl WeightFile {
    pub(crate) fn read(path: PathBuf) -> Result<Self, NnError> {
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Self { path, bytes }),
            Err(e) => Err(unreadable(&path, e, "check the path and its permissions")),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors by name.
    pub(crate) fn tensors(&self) -> Result<BTreeMap<String, Stored<'_>>, NnError> {
        if torch_pickle::recognises(&self.bytes) {
            let tensors = torch_pickle::tensors(&self.bytes).map_err(|e| pickle(&self.path, e))?;
            return Ok(tensors.into_iter().map(|(name, tensor)| (name, Stored::Torch(tensor))).collect());
        }
        let file = SafeTensors::deserialize(&self.bytes).map_err(|e| match mistaken_for_weights(&self.bytes) {
            Some((what, fix)) => unreadable(&self.path, what, fix),
            None => unreadable(&self.path, format!("it is neither safetensors ({e}) nor written by torch.save"), AGAIN),
        })?;
        Ok(file.iter().map(|(name, view)| (name.to_owned(), Stored::Safetensors(view))).collect())
    }
}

/// A tensor of a file.
#[derive(Debug)]
pub(crate) enum Stored<'a> {
    Safetensors(TensorView<'a>),
    Torch(torch_pickle::Tensor<'a>),
}

impl Stored<'_> {
    pub(crate) fn shape(&self) -> Vec<i64> {
        let shape = match self {
            Self::Safetensors(view) => view.shape(),
            Self::Torch(tensor) => tensor.shape(),
        };
        shape.iter().map(|length| *length as i64).collect()
    }

    /// The kind of its numbers, as safetensors names it.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Safetensors(view) => format!("{:?}", view.dtype()),
            Self::Torch(tensor) => format!("{:?}", tensor.dtype()).to_uppercase(),
        }
    }

    pub(crate) fn is_float(&self) -> bool {
        matches!(self.kind().as_str(), "F64" | "F32" | "F16" | "BF16")
    }

    /// Its numbers as f32; `into` must have the same length.
    pub(crate) fn floats(&self, path: &Path, into: &mut [f32]) -> Result<(), NnError> {
        let bytes = match self {
            Self::Safetensors(view) => Cow::Borrowed(view.data()),
            Self::Torch(tensor) => tensor.bytes().map_err(|e| pickle(path, e))?,
        };
        match self.kind().as_str() {
            "F64" => convert(&bytes, into, |bytes| f64::from_le_bytes(bytes) as f32),
            "F32" => convert(&bytes, into, f32::from_le_bytes),
            "F16" => convert(&bytes, into, |bytes| f16::from_le_bytes(bytes).to_f32()),
            "BF16" => convert(&bytes, into, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            other => unreachable!("{other} is not a kind of weights"),
        }
        Ok(())
    }
}

fn convert<const N: usize>(bytes: &[u8], into: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    let numbers = bytes.as_chunks::<N>().0;
    assert_eq!(numbers.len(), into.len(), "a tensor has as many numbers as its shape says");
    for (value, bytes) in into.iter_mut().zip(numbers) {
        *value = number(*bytes);
    }
}

fn unreadable(path: &Path, reason: impl ToString, fix: &str) -> NnError {
    NnError::Read { path: path.into(), reason: reason.to_string(), fix: fix.into() }
}

fn pickle(path: &Path, error: PickleError) -> NnError {
    let fix = match error {
        PickleError::Damaged(_) => AGAIN,
        _ => "save the model's state dict, with torch.save(model.state_dict(), FILE) or as safetensors",
    };
    unreadable(path, error, fix)
}

/// Recognises what is often found instead of weights, and says what to do.
fn mistaken_for_weights(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let start = bytes.trim_ascii_start();
    if bytes.is_empty() {
        Some(("it is empty", AGAIN))
    } else if start.starts_with(b"version https://git-lfs") {
        Some(("it is a pointer of git-lfs, not the weights themselves", "run `git lfs pull` in that folder"))
    } else if start.starts_with(b"<") {
        Some(("it is a web page, not weights", "download the file itself, from a link with `resolve` in it"))
    } else if start.starts_with(b"{") {
        Some(("it is JSON, not weights", AGAIN))
    } else {
        None
    }
}
