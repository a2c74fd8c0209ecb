//! `unet/config.json`: every argument of UNet2DModel's constructor, so that no default of a later version applies.

use ddpm_nn::{Heads, MidAttention, UNetSpec};
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
        heads,
        norm_groups,
        norm_eps,
        mid_attention,
        dropout,
        time_scale_shift,
        downsample_padding,
        time_channels,
        time_scale,
        flip_sin_to_cos,
        freq_shift,
        classes,
    } = spec;
    check_time_embedding(*time_channels, *time_scale, channels[0])?;
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
        "attention_head_dim": head_dim(*heads, &attending(channels, attention, *mid_attention))?,
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

/// Refuses a time embedding that `UNet2DModel` does not have.
fn check_time_embedding(time_channels: Option<i64>, time_scale: f64, first: i64) -> Result<(), Error> {
    let unsupported = if time_scale != 1.0 {
        format!(
            "UNet2DModel embeds t itself, and this network t times {time_scale}, because its timesteps were rescaled"
        )
    } else if let Some(width) = time_channels.filter(|width| *width != first) {
        format!("UNet2DModel embeds t in as many sinusoids as its first level has channels, {first}, not in {width}")
    } else {
        return Ok(());
    };
    Err(Error::config(unsupported).or(Remedy::ExportTensors))
}

/// The widths of all layers of attention.
fn attending(channels: &[i64], attention: &[bool], mid: MidAttention) -> Vec<i64> {
    let levels = channels.iter().zip(attention).filter(|(_, attends)| **attends).map(|(width, _)| *width);
    levels.chain(channels.last().copied().filter(|_| mid != MidAttention::Absent)).collect()
}

/// `attention_head_dim`: channels of a head in layers of these `widths`, the same in all, or null for a single head.
fn head_dim(heads: Heads, widths: &[i64]) -> Result<Option<i64>, Error> {
    let number = match heads {
        Heads::One | Heads::Number(1) => return Ok(None),
        Heads::Width(width) => return Ok(Some(width)),
        Heads::Number(number) => number,
    };
    match widths {
        [] => Ok(None),
        [first, rest @ ..] if rest.iter().all(|width| width == first) => Ok(Some(heads.width(*first))),
        _ => Err(Error::config(format!(
            "UNet2DModel has heads of one width, and this network {number} heads in each of its layers of attention, \
             which have {} channels",
            widths.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
        ))
        .or(Remedy::ExportTensors)),
    }
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
            heads: Heads::One,
            norm_groups: 4,
            norm_eps: 1e-6,
            mid_attention: MidAttention::Normed { groups: 4 },
            dropout: 0.1,
            time_scale_shift: false,
            downsample_padding: 0,
            time_channels: None,
            time_scale: 1.0,
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
    fn heads_have_one_width_or_are_refused() {
        let of = |heads, attention| config(&UNetSpec { heads, attention, ..spec() });
        let bottom = vec![false, false, true];
        assert_eq!(of(Heads::Width(4), bottom.clone()).unwrap()["attention_head_dim"], 4);
        assert_eq!(of(Heads::Number(4), bottom).unwrap()["attention_head_dim"], 8);
        let several = vec![false, true, true];
        assert_eq!(of(Heads::Number(1), several.clone()).unwrap()["attention_head_dim"], Value::Null);
        assert!(of(Heads::Number(4), several).unwrap_err().to_string().contains("which have 16, 32, 32 channels"));
    }

    #[test]
    fn time_embeddings_that_the_family_lacks() {
        let rescaled = config(&UNetSpec { time_scale: 0.25, ..spec() }).unwrap_err().to_string();
        assert!(rescaled.contains("this network t times 0.25"), "{rescaled}");
        let narrow = config(&UNetSpec { time_channels: Some(4), ..spec() }).unwrap_err().to_string();
        assert!(narrow.contains("has channels, 8, not in 4"), "{narrow}");
        assert!(config(&UNetSpec { time_channels: Some(8), ..spec() }).is_ok());
    }

    #[test]
    fn images_that_are_not_square() {
        let image = ImageShape { channels: 1, height: 16, width: 32 };
        assert_eq!(config(&UNetSpec { image, ..spec() }).unwrap()["sample_size"], json!([16, 32]));
    }
}
