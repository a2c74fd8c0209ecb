//! Reading a U-Net from a diffusers directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use tch::{Device, Tensor};

use crate::arena::{Layout, Weights};
use crate::{NnError, UNetConfig};

/// A U-Net's two files in a diffusers directory.
#[derive(Clone, Debug)]
pub struct UNetFile {
    /// `unet/config.json`.
    pub config: PathBuf,
    /// `unet/diffusion_pytorch_model.safetensors`.
    pub weights: PathBuf,
}

impl UNetFile {
    /// The files' places under `directory`; they need not exist.
    pub fn within(directory: &Path) -> Self {
        let unet = directory.join("unet");
        Self { config: unet.join("config.json"), weights: unet.join("diffusion_pytorch_model.safetensors") }
    }
}

// Keys that are absent take the defaults that UNet2DModel had when it began to write them all.
#[derive(Deserialize)]
struct RawConfig {
    sample_size: i64,
    in_channels: i64,
    out_channels: i64,
    block_out_channels: Vec<i64>,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    layers_per_block: i64,
    #[serde(default = "default_head_dim")]
    attention_head_dim: Option<i64>,
    norm_num_groups: i64,
    norm_eps: f64,
    #[serde(default)]
    attn_norm_num_groups: Option<i64>,
    #[serde(default)]
    dropout: f64,
    resnet_time_scale_shift: String,
    downsample_padding: i64,
    flip_sin_to_cos: bool,
    freq_shift: i64,
    #[serde(default)]
    num_class_embeds: Option<i64>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

fn default_head_dim() -> Option<i64> {
    Some(8)
}

/// Keys of which only one value is implemented; absent or null is that value.
const FIXED: [(&str, &str); 9] = [
    ("_class_name", "UNet2DModel"),
    ("act_fn", "silu"),
    ("add_attention", "true"),
    ("center_input_sample", "false"),
    ("downsample_type", "conv"),
    ("mid_block_scale_factor", "1"),
    ("mid_block_type", "UNetMidBlock2D"),
    ("time_embedding_type", "positional"),
    ("upsample_type", "conv"),
];

/// Keys that must be null or absent.
const ABSENT: [&str; 2] = ["class_embed_type", "time_embedding_dim"];

/// Reads `unet/config.json`.
///
/// # Errors
/// The file is missing or malformed, or asks for a part of UNet2DModel that is not implemented.
pub fn read_unet_config(path: &Path) -> Result<UNetConfig, NnError> {
    let unreadable = |reason: String| NnError::Read { path: path.into(), reason };
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
    let raw: RawConfig = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    let unsupported = |what: String| NnError::Unsupported { path: path.into(), what };

    for (key, only) in FIXED {
        match raw.rest.get(key) {
            None | Some(serde_json::Value::Null) => {}
            Some(value) if value.to_string().trim_matches('"') == only => {}
            Some(value) => return Err(unsupported(format!("{key} = {value}"))),
        }
    }
    for key in ABSENT {
        if let Some(value) = raw.rest.get(key).filter(|v| !v.is_null()) {
            return Err(unsupported(format!("{key} = {value}")));
        }
    }
    let attends = |types: &[String], side: &str| {
        let plain = format!("{side}Block2D");
        let attending = format!("Attn{side}Block2D");
        types
            .iter()
            .map(|t| match t {
                t if *t == plain => Ok(false),
                t if *t == attending => Ok(true),
                other => Err(unsupported(format!("block type {other}"))),
            })
            .collect::<Result<Vec<bool>, NnError>>()
    };
    let attention = attends(&raw.down_block_types, "Down")?;
    let mut upwards = attends(&raw.up_block_types, "Up")?;
    upwards.reverse();
    if attention != upwards {
        return Err(unsupported("attention at different levels on the way down and up".into()));
    }
    let time_scale_shift = match raw.resnet_time_scale_shift.as_str() {
        "default" => false,
        "scale_shift" => true,
        other => return Err(unsupported(format!("resnet_time_scale_shift = {other:?}"))),
    };
    // With scale and shift, UNetMidBlock2D leaves the norm out unless told otherwise.
    let mid_attention_groups =
        raw.attn_norm_num_groups.or(if time_scale_shift { None } else { Some(raw.norm_num_groups) });
    Ok(UNetConfig {
        image_size: raw.sample_size,
        in_channels: raw.in_channels,
        out_channels: raw.out_channels,
        channels: raw.block_out_channels,
        layers_per_block: raw.layers_per_block,
        attention,
        head_dim: raw.attention_head_dim,
        norm_groups: raw.norm_num_groups,
        norm_eps: raw.norm_eps,
        mid_attention_groups,
        dropout: raw.dropout,
        time_scale_shift,
        downsample_padding: raw.downsample_padding,
        flip_sin_to_cos: raw.flip_sin_to_cos,
        freq_shift: raw.freq_shift,
        classes: raw.num_class_embeds,
    })
}

/// Reads the weights of a network laid out as `layout`; the file must hold exactly its tensors, as f32.
///
/// # Errors
/// The file is missing or malformed, or lacks a tensor, has one too many, or one of another shape or dtype.
pub fn read_unet_weights(path: &Path, layout: &Layout, device: Device) -> Result<Weights, NnError> {
    let unreadable = |reason: String| NnError::Read { path: path.into(), reason };
    let mismatch = |what: String| NnError::Mismatch { path: path.into(), what };
    let bytes = std::fs::read(path).map_err(|e| unreadable(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| unreadable(e.to_string()))?;
    let mut values = vec![0f32; layout.len() as usize];
    for entry in layout.entries() {
        let tensor = file.tensor(&entry.name).map_err(|_| mismatch(format!("tensor {} is missing", entry.name)))?;
        let shape: Vec<i64> = tensor.shape().iter().map(|n| *n as i64).collect();
        if shape != entry.shape || tensor.dtype() != Dtype::F32 {
            return Err(mismatch(format!(
                "tensor {} is {:?} {shape:?} where F32 {:?} is needed",
                entry.name,
                tensor.dtype(),
                entry.shape
            )));
        }
        let into = &mut values[entry.offset as usize..(entry.offset + entry.len()) as usize];
        for (value, bytes) in into.iter_mut().zip(tensor.data().as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }
    if file.len() != layout.entries().len() {
        let known = |name: &str| layout.entries().iter().any(|entry| entry.name == name);
        let extra = file.names().into_iter().find(|name| !known(name)).unwrap_or("?");
        return Err(mismatch(format!("tensor {extra} does not belong to it")));
    }
    Weights::over(layout, Tensor::from_slice(&values).to_device(device))
}
