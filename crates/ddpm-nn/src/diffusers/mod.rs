//! Reads a U-Net that diffusers saved, in the layout of any of its versions.

mod config;
mod folder;
mod keys;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ddpm_spec::{MidAttention, UNetSpec};
use tch::{Device, Tensor};

use crate::NnError;
use crate::arena::{Layout, LayoutEntry, Weights};
use crate::stored::{Stored, WeightFile};
use config::Described;

/// A U-Net in a folder: its configuration, and the files with its weights.
#[derive(Debug)]
pub struct SavedUNet {
    config: UNetSpec,
    ignored: Vec<String>,
    files: Vec<WeightFile>,
}

/// The tensors of the attention blocks, under their names until version 0.16 and since.
const RENAMED: [(&str, &str); 4] =
    [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];

/// Always present below version 0.17, and later only if the other keys ask for it.
const MID_NORM: &str = "mid_block.attentions.0.group_norm.weight";

impl SavedUNet {
    /// Whether `directory` contains any of the files that [`open`](Self::open) reads.
    pub fn is_in(directory: &Path) -> bool {
        folder::contains_model(directory)
    }

    /// Reads the configuration and opens the weights of the U-Net in `directory`: `unet/config.json` or `config.json`,
    /// and beside it safetensors or `.bin` files, whole or in shards.
    ///
    /// # Errors
    /// A file is missing or damaged, or the configuration asks for a part of UNet2DModel that is not implemented.
    pub fn open(directory: &Path) -> Result<Self, NnError> {
        let path = folder::config(directory);
        let Described { mut config, ignored, norm_groups_if_present } = config::read(&path)?;
        let files = folder::weights(path.parent().unwrap_or(directory))?;
        let files = files.into_iter().map(WeightFile::read).collect::<Result<Vec<_>, _>>()?;
        if let Some(groups) = norm_groups_if_present {
            for file in &files {
                if file.tensors()?.contains_key(MID_NORM) {
                    config.mid_attention = MidAttention::Normed { groups };
                }
            }
        }
        Ok(Self { config, ignored, files })
    }

    /// What the network is built from.
    pub fn config(&self) -> &UNetSpec {
        &self.config
    }

    /// Keys of the configuration that UNet2DModel does not know in any version.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The weights of a network laid out as `layout`, as f32; the files must hold exactly its tensors, in f64, f32, f16 or
    /// bf16.
    ///
    /// # Errors
    /// A file is damaged, lacks a tensor, has one too many, or one of another shape or kind.
    pub fn load(&self, layout: &Layout, device: Device) -> Result<Weights, NnError> {
        let mut found: BTreeMap<String, (&Path, Stored)> = BTreeMap::new();
        for file in &self.files {
            for (name, tensor) in file.tensors()? {
                let name = current_name(&name);
                if let Some((first, _)) = found.get(&name) {
                    let what = format!("tensor {name} is in {} too", first.display());
                    return Err(NnError::Mismatch { path: file.path().into(), what });
                }
                found.insert(name, (file.path(), tensor));
            }
        }
        let path = self.path();
        // All shapes first: no more is then allocated than the files hold.
        for entry in layout.entries() {
            match found.get(&entry.name) {
                Some((path, tensor)) => check(path, entry, tensor)?,
                None => {
                    let unknown = found.keys().find(|name| !layout.entries().iter().any(|entry| entry.name == **name));
                    let instead = unknown.map_or(String::new(), |name| format!(", and there is one named {name}"));
                    let what = format!("tensor {} is missing{instead}", entry.name);
                    return Err(NnError::Mismatch { path, what });
                }
            }
        }
        let mut values = vec![0f32; layout.len() as usize];
        for entry in layout.entries() {
            let (path, tensor) = found.remove(&entry.name).expect("every tensor was found");
            let into = &mut values[entry.offset as usize..(entry.offset + entry.len()) as usize];
            tensor.floats(path, into)?;
        }
        if let Some((name, (path, _))) = found.first_key_value() {
            let what = format!("tensor {name} does not belong to it");
            return Err(NnError::Mismatch { path: (*path).into(), what });
        }
        Weights::over(layout, Tensor::from_slice(&values).to_device(device))
    }

    /// The weights' file, or their folder if there are several.
    fn path(&self) -> PathBuf {
        match self.files.as_slice() {
            [file] => file.path().into(),
            files => files.first().and_then(|file| file.path().parent()).unwrap_or(Path::new("")).into(),
        }
    }
}

/// The current name of a tensor.
fn current_name(name: &str) -> String {
    if name.contains(".attentions.") {
        for (old, new) in RENAMED {
            if name.contains(old) {
                return name.replacen(old, new, 1);
            }
        }
    }
    name.into()
}

/// Checks a tensor against the layout. Attention blocks used to be 1x1 convolutions, whose matrices have one or two more
/// dimensions, of length 1.
fn check(path: &Path, entry: &LayoutEntry, tensor: &Stored) -> Result<(), NnError> {
    let shape = tensor.shape();
    let of_convolution = entry.shape.len() == 2
        && entry.name.contains(".attentions.")
        && shape.len() <= 4
        && shape.strip_prefix(entry.shape.as_slice()).is_some_and(|rest| rest.iter().all(|length| *length == 1));
    let fault = if shape != entry.shape && !of_convolution {
        format!("{shape:?} where {:?} is needed", entry.shape)
    } else if !tensor.is_float() {
        format!("{shape:?} where F64, F32, F16 or BF16 is needed")
    } else {
        return Ok(());
    };
    let what = format!("tensor {} is {} {fault}", entry.name, tensor.kind());
    Err(NnError::Mismatch { path: path.into(), what })
}
