//! Where each parameter comes from in OpenAI's files.

use super::structure::Structure;

/// The tensor that a parameter comes from.
#[derive(Debug, PartialEq)]
pub(super) struct Origin {
    pub(super) name: String,
    /// Of a `qkv`: 0 for the queries, 1 for the keys, 2 for the values.
    pub(super) third: Option<usize>,
}

/// The layers of a residual block.
const RESIDUAL: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// The layers of an attention block; queries, keys and values are one there.
const ATTENTION: [(&str, &str); 5] =
    [("group_norm", "norm"), ("to_q", "qkv"), ("to_k", "qkv"), ("to_v", "qkv"), ("to_out.0", "proj_out")];

/// The origin of a parameter of the U-Net, by its name there; `None` if the U-Net has no such parameter.
pub(super) fn origin(structure: &Structure, name: &str) -> Option<Origin> {
    let parts: Vec<&str> = name.split('.').collect();
    let number = |text: &str| text.parse::<usize>().ok();
    let layers = structure.layers;
    let (block, layer, end) = match parts.as_slice() {
        ["conv_in", end] => return whole("input_blocks.0.0", end),
        ["time_embedding", "linear_1", end] => return whole("time_embed.0", end),
        ["time_embedding", "linear_2", end] => return whole("time_embed.2", end),
        ["class_embedding", end] => return whole("label_emb", end),
        ["conv_norm_out", end] => return whole("out.0", end),
        ["conv_out", end] => return whole("out.2", end),
        ["mid_block", "attentions", "0", layer @ .., end] => ("middle_block.1".into(), layer, end),
        ["mid_block", "resnets", index, layer @ .., end] => {
            (format!("middle_block.{}", 2 * number(index)?), layer, end)
        }
        ["down_blocks", level, "downsamplers", "0", layer @ .., end] => {
            let block = (number(level)? + 1) * (layers + 1);
            if *layer == ["conv"] {
                return whole(&format!("input_blocks.{block}.0.op"), end);
            }
            (format!("input_blocks.{block}.0"), layer, end)
        }
        ["down_blocks", level, part, index, layer @ .., end] => {
            let block = number(level)? * (layers + 1) + number(index)? + 1;
            (format!("input_blocks.{block}.{}", u8::from(*part == "attentions")), layer, end)
        }
        ["up_blocks", step, "upsamplers", "0", layer @ .., end] => {
            let step = number(step)?;
            let attends = *structure.attention.iter().rev().nth(step)?;
            let block = format!("output_blocks.{}.{}", step * (layers + 1) + layers, 1 + u8::from(attends));
            if *layer == ["conv"] {
                return whole(&format!("{block}.conv"), end);
            }
            (block, layer, end)
        }
        ["up_blocks", step, part, index, layer @ .., end] => {
            let block = number(step)? * (layers + 1) + number(index)?;
            (format!("output_blocks.{block}.{}", u8::from(*part == "attentions")), layer, end)
        }
        _ => return None,
    };
    let layer = layer.join(".");
    let (_, theirs) = RESIDUAL.iter().chain(&ATTENTION).find(|(ours, _)| *ours == layer)?;
    let third = ["to_q", "to_k", "to_v"].iter().position(|third| *third == layer);
    Some(Origin { name: format!("{block}.{theirs}.{end}"), third })
}

fn whole(layer: &str, end: &str) -> Option<Origin> {
    Some(Origin { name: format!("{layer}.{end}"), third: None })
}
