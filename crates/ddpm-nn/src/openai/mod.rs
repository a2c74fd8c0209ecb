//! Reads a U-Net of OpenAI's improved-diffusion (Nichol & Dhariwal 2021) or guided-diffusion (Dhariwal & Nichol 2021):
//! a file of weights, whose shapes reveal most of the architecture.

mod names;
mod structure;

use std::collections::BTreeMap;
use std::path::Path;

use ddpm_spec::{Architecture, Heads, ImageShape, MidAttention, UNetSpec};
use tch::{Device, Tensor};

use crate::NnError;
use crate::arena::{LayoutEntry, Weights};
use crate::network::Network;
use crate::stored::{Stored, WeightFile};
use names::{Origin, origin};
use structure::Structure;

/// Groups of every norm in that code.
const NORM_GROUPS: i64 = 32;

/// In which order an attention layer's `qkv` holds its channels. Both orders have the same shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionOrder {
    /// Heads first, and within each its queries, keys and values.
    HeadsFirst,
    /// Queries, keys and values first, and within each the heads (`use_new_attention_order`).
    HeadsLast,
}

/// A U-Net in a file by `torch.save` or of safetensors.
#[derive(Debug)]
pub struct OpenAiUNet {
    structure: Structure,
    file: WeightFile,
}

impl OpenAiUNet {
    /// Reads the file at `path` and infers the architecture from the names and shapes of its tensors.
    ///
    /// # Errors
    /// The file is damaged, requires code to be run, or does not hold such a U-Net.
    pub fn open(path: &Path) -> Result<Self, NnError> {
        let file = WeightFile::read(path.into())?;
        let structure = structure::infer(&file.tensors()?).map_err(|what| not_openai(path, what))?;
        Ok(Self { structure, file })
    }

    /// What the network is built from, given what the shapes do not reveal: the side of the square images, the heads of
    /// its attention, and the factor by which its timesteps were rescaled.
    pub fn config(&self, image_size: usize, heads: Heads, time_scale: f64) -> UNetSpec {
        let s = &self.structure;
        UNetSpec {
            image: ImageShape::square(s.in_channels as usize, image_size),
            out_channels: s.out_channels,
            channels: s.channels.clone(),
            layers_per_block: s.layers as i64,
            attention: s.attention.clone(),
            residual_resampling: s.residual_resampling,
            heads,
            norm_groups: NORM_GROUPS,
            norm_eps: 1e-5,
            mid_attention: MidAttention::Normed { groups: NORM_GROUPS },
            dropout: 0.0,
            time_scale_shift: s.time_scale_shift,
            downsample_padding: 1,
            time_channels: Some(s.sinusoids).filter(|width| *width != s.channels[0]),
            time_scale,
            flip_sin_to_cos: true,
            freq_shift: 0,
            classes: s.classes,
        }
    }

    /// The network of `config`, which comes from [`config`](Self::config), and its weights as f32.
    ///
    /// # Errors
    /// The network cannot be built, or the file is damaged or does not hold exactly its tensors.
    pub fn build(
        &self,
        config: &UNetSpec,
        order: AttentionOrder,
        device: Device,
    ) -> Result<(Network, Weights), NnError> {
        let network = Network::new(Architecture::UNet(config.clone()))?;
        let layout = network.layout();
        let mut found = self.file.tensors()?;
        let refuse = |what| not_openai(self.file.path(), what);
        let mut sources = Vec::new();
        // All shapes first: no more is then allocated than the file holds.
        for entry in layout.entries() {
            let origin = origin(&self.structure, &entry.name);
            let origin = origin.ok_or_else(|| refuse(format!("it has no {}", entry.name)))?;
            check(entry, &origin, &found).map_err(refuse)?;
            sources.push((entry, origin));
        }
        let mut values = vec![0f32; layout.len() as usize];
        for (entry, Origin { name, third }) in &sources {
            let into = &mut values[entry.offset as usize..(entry.offset + entry.len()) as usize];
            let tensor = &found[name];
            match third {
                None => tensor.floats(self.file.path(), into)?,
                Some(third) => {
                    let mut joint = vec![0f32; 3 * into.len()];
                    tensor.floats(self.file.path(), &mut joint)?;
                    take_third(&joint, *third, config.heads, order, entry.shape[0], into);
                }
            }
        }
        for (_, Origin { name, .. }) in &sources {
            found.remove(name);
        }
        if let Some(name) = found.keys().next() {
            return Err(refuse(format!("its tensor {name} belongs to no part of one")));
        }
        let weights = Weights::over(layout, Tensor::from_slice(&values).to_device(device))?;
        Ok((network, weights))
    }
}

/// Copies the queries (`third` 0), keys (1) or values (2) out of a `qkv` of `3 * channels` rows.
fn take_third(joint: &[f32], third: usize, heads: Heads, order: AttentionOrder, channels: i64, into: &mut [f32]) {
    let (channels, width) = (channels as usize, heads.width(channels) as usize);
    let row = into.len() / channels;
    let block = width * row;
    for (head, target) in into.chunks_exact_mut(block).enumerate() {
        let start = match order {
            AttentionOrder::HeadsFirst => (3 * head + third) * block,
            AttentionOrder::HeadsLast => third * channels * row + head * block,
        };
        target.copy_from_slice(&joint[start..start + block]);
    }
}

/// Checks the shape and the kind of the tensor that a parameter comes from. Attention is made of convolutions there,
/// whose matrices have one more dimension, of length 1.
fn check(entry: &LayoutEntry, origin: &Origin, found: &BTreeMap<String, Stored>) -> Result<(), String> {
    let name = &origin.name;
    let Some(tensor) = found.get(name) else { return Err(format!("its tensor {name} is missing")) };
    let mut needed = entry.shape.clone();
    if origin.third.is_some() {
        needed[0] *= 3;
    }
    let shape = tensor.shape();
    let rest = shape.strip_prefix(needed.as_slice());
    let is_attention = entry.name.contains(".attentions.") && entry.shape.len() == 2;
    if !rest.is_some_and(|rest| rest.is_empty() || (is_attention && rest.iter().all(|length| *length == 1))) {
        return Err(format!("its tensor {name} is {shape:?}, where the other tensors imply {needed:?}"));
    }
    if !tensor.is_float() {
        return Err(format!("its tensor {name} is of {}, and weights are F64, F32, F16 or BF16", tensor.kind()));
    }
    Ok(())
}

fn not_openai(path: &Path, what: String) -> NnError {
    NnError::NotOpenAi { path: path.into(), what }
}
