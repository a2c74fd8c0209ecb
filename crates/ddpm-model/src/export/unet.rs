//! `unet/config.json`: every argument of UNet2DModel's constructor, so that no default of a later version applies.

use ddpm_nn::{MidAttention, UNetSpec};
use serde_json::{Value, json};

use super::contents::DIFFUSERS_VERSION;
use crate::error::{Error, Remedy};

/// The arguments that give UNet2DModel the network of `spec`.
pub(super) fn config(spec: &UNetSpec) -> Result<Value, Error> {
    // Every option by name: one that is added to our network must be given a meaning here, or be refused.
    let UNetSpec {
        image,
        out_channels,
        channels,
        layers_per_block,
        attention,
        residual_resampling,
        head_dim,
        norm_groups,
        norm_eps,
        mid_attention,
        dropout,
        time_scale_shift,
        downsample_padding,
        flip_sin_to_cos,
        freq_shift,
        classes,
    } = spec;
    let resampling = if *residual_resampling { "resnet" } else { "conv" };
    let down = block_types(attention, *residual_resampling, "Down", channels.len() - 1);
    let mut up = block_types(attention, *residual_resampling, "Up", 0);
    up.reverse();
    let square = image.height == image.width;
    Ok(json!({
        "_class_name": "UNet2DModel",
        "_diffusers_version": DIFFUSERS_VERSION,
        "act_fn": "silu",
        "add_attention": *mid_attention != MidAttention::Absent,
        "attention_head_dim": head_dim,
        "attn_norm_num_groups": mid_norm_groups(*mid_attention, *norm_groups, *time_scale_shift)?,
        "block_out_channels": channels,
        "center_input_sample": false,
        "class_embed_type": null,
        "down_block_types": down,
        "downsample_padding": downsample_padding,
        "downsample_type": resampling,
        "dropout": dropout,
        "flip_sin_to_cos": flip_sin_to_cos,
        "freq_shift": freq_shift,
        "in_channels": image.channels,
        "layers_per_block": layers_per_block,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2D",
        "norm_eps": norm_eps,
        "norm_num_groups": norm_groups,
        "num_class_embeds": classes,
        "num_train_timesteps": null,
        "out_channels": out_channels,
        "resnet_time_scale_shift": if *time_scale_shift { "scale_shift" } else { "default" },
        "sample_size": if square { json!(image.height) } else { json!([image.height, image.width]) },
        "time_embedding_dim": null,
        "time_embedding_type": "positional",
        "up_block_types": up,
        "upsample_type": resampling,
    }))
}

/// The blocks of one direction, highest resolution first. The level `last` does not change the resolution.
fn block_types(attention: &[bool], residual_resampling: bool, direction: &str, last: usize) -> Vec<String> {
    let kind = |(level, attends): (usize, &bool)| match (attends, residual_resampling && level != last) {
        (true, _) => format!("Attn{direction}Block2D"),
        (false, true) => format!("Resnet{direction}sampleBlock2D"),
        (false, false) => format!("{direction}Block2D"),
    };
    attention.iter().enumerate().map(kind).collect()
}

/// `attn_norm_num_groups`. Null means a norm with `norm_num_groups`, but with scale and shift it means no norm.
fn mid_norm_groups(mid: MidAttention, norm_groups: i64, time_scale_shift: bool) -> Result<Option<i64>, Error> {
    match mid {
        MidAttention::Absent => Ok(None),
        MidAttention::Normed { groups } if groups == norm_groups && !time_scale_shift => Ok(None),
        MidAttention::Normed { groups } => Ok(Some(groups)),
        MidAttention::Unnormed if time_scale_shift => Ok(None),
        MidAttention::Unnormed => Err(Error::config(
            "UNet2DModel cannot leave out the norm of the bottom's attention without resnet_time_scale_shift",
        )
        .or(Remedy::ExportTensors)),
    }
}

#[cfg(test)]
mod tests {
    use ddpm_nn::ImageShape;

    use super::*;

    fn spec() -> UNetSpec {
        UNetSpec {
            image: ImageShape::square(3, 32),
            out_channels: 3,
            channels: vec![8, 16, 32],
            layers_per_block: 2,
            attention: vec![false, true, false],
            residual_resampling: false,
            head_dim: None,
            norm_groups: 4,
            norm_eps: 1e-6,
            mid_attention: MidAttention::Normed { groups: 4 },
            dropout: 0.1,
            time_scale_shift: false,
            downsample_padding: 0,
            flip_sin_to_cos: false,
            freq_shift: 1,
            classes: None,
        }
    }

    #[test]
    fn levels_run_from_the_highest_resolution_down_and_back_up() {
        let config = config(&spec()).unwrap();
        assert_eq!(config["down_block_types"], json!(["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"]));
        let residual = UNetSpec { residual_resampling: true, ..spec() };
        let config = super::config(&residual).unwrap();
        assert_eq!(config["down_block_types"], json!(["ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"]));
        assert_eq!(config["up_block_types"], json!(["ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"]));
        assert_eq!([&config["downsample_type"], &config["upsample_type"]], ["resnet", "resnet"]);
    }

    #[test]
    fn the_norm_of_the_bottom_s_attention() {
        let of = |mid_attention, time_scale_shift| {
            config(&UNetSpec { mid_attention, time_scale_shift, ..spec() })
                .map(|config| (config["add_attention"].as_bool().unwrap(), config["attn_norm_num_groups"].as_i64()))
        };
        let normed = |groups| MidAttention::Normed { groups };
        assert_eq!(of(MidAttention::Absent, false).unwrap(), (false, None));
        assert_eq!(of(normed(4), false).unwrap(), (true, None));
        assert_eq!(of(normed(8), false).unwrap(), (true, Some(8)));
        assert_eq!(of(normed(4), true).unwrap(), (true, Some(4)));
        assert_eq!(of(MidAttention::Unnormed, true).unwrap(), (true, None));
        assert!(of(MidAttention::Unnormed, false).unwrap_err().to_string().contains("cannot leave out the norm"));
    }

    #[test]
    fn images_that_are_not_square() {
        let image = ImageShape { channels: 1, height: 16, width: 32 };
        assert_eq!(config(&UNetSpec { image, ..spec() }).unwrap()["sample_size"], json!([16, 32]));
    }
}
