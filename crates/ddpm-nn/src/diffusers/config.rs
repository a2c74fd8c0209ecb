//! `config.json` of a UNet2DModel: every argument of its constructor, in the meaning of the version that wrote it.

use std::path::Path;

use ddpm_spec::{Heads, ImageShape, MidAttention, UNetSpec};
use serde_json::Value;

use super::keys::Keys;
use crate::NnError;
use crate::error::EXPECTED;

/// A configuration as read.
pub(super) struct Described {
    pub(super) config: UNetSpec,
    /// Keys that no version of UNet2DModel knows.
    pub(super) ignored: Vec<String>,
    /// The groups of the norm before the bottom's attention, if only the weights show whether there is one.
    pub(super) norm_groups_if_present: Option<i64>,
}

/// Anything beyond these is a mistake in the file.
const WIDEST: i64 = 1 << 16;
const MOST_LAYERS: i64 = 1 << 10;
const MOST_CLASSES: i64 = 1 << 24;

/// Before this version most norms had 32 groups, whatever `norm_num_groups` said.
const FIRST_WITH_GROUPS: (u64, u64) = (0, 4);

/// How the resolution changes from one level to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Resampling {
    Convolution,
    Residual,
}

/// Reads the configuration at `path`.
pub(super) fn read(path: &Path) -> Result<Described, NnError> {
    let unreadable = |reason: String, fix: &str| NnError::Read { path: path.into(), reason, fix: fix.into() };
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string(), EXPECTED))?;
    // Some editors on Windows begin a file with this.
    let json: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|e| unreadable(e.to_string(), "it should be the JSON that diffusers writes"))?;
    let Value::Object(values) = json else {
        return Err(unreadable("it is not an object".into(), "it should be the JSON that diffusers writes"));
    };
    describe(Keys::new(path, values))
}

fn describe(mut keys: Keys) -> Result<Described, NnError> {
    match keys.take("_class_name") {
        Some(Value::String(class)) if class == "UNet2DModel" => {}
        Some(class) => return Err(keys.unsupported(format!("_class_name = {class}"))),
        None if keys.has("block_out_channels") => {}
        None => return Err(keys.unsupported("a model with neither _class_name nor block_out_channels".into())),
    }
    let version = keys.take("_diffusers_version").as_ref().and_then(Value::as_str).and_then(version);

    let [rows, columns] = image_size(&mut keys)?;
    let in_channels = keys.whole("in_channels", Some(3), 1..=WIDEST)?;
    let out_channels = keys.whole("out_channels", Some(3), 1..=WIDEST)?;
    let width = |value: &Value| value.as_i64().filter(|width| (1..=WIDEST).contains(width));
    let channels = keys.list("block_out_channels", vec![224, 448, 672, 896], width)?;
    let layers_per_block = keys.whole("layers_per_block", Some(2), 1..=MOST_LAYERS)?;
    let (attention, residual_resampling) = levels(&mut keys)?;
    if attention.len() != channels.len() {
        return Err(keys.unsupported(format!(
            "{} block types for the {} entries of block_out_channels",
            attention.len(),
            channels.len()
        )));
    }
    let norm_groups = keys.whole("norm_num_groups", Some(32), 1..=WIDEST)?;
    if version.is_some_and(|version| version < FIRST_WITH_GROUPS) && norm_groups != 32 {
        return Err(keys.unsupported(format!(
            "norm_num_groups = {norm_groups}, written by a version that used 32 in most layers whatever this key said"
        )));
    }
    let scales = [("default", false), ("scale_shift", true)];
    let time_scale_shift = keys.choice("resnet_time_scale_shift", false, &scales)?;
    let mid_groups = keys.whole_or_null("attn_norm_num_groups", None, 1..=WIDEST)?;
    let (mid_attention, norm_groups_if_present) = match (keys.flag("add_attention", true)?, mid_groups) {
        (false, _) => (MidAttention::Absent, None),
        (true, Some(groups)) => (MidAttention::Normed { groups }, None),
        (true, None) if time_scale_shift => (MidAttention::Unnormed, Some(norm_groups)),
        (true, None) => (MidAttention::Normed { groups: norm_groups }, None),
    };
    fixed(&mut keys, 4 * channels[0])?;
    let config = UNetSpec {
        image: ImageShape { channels: in_channels as usize, height: rows, width: columns },
        out_channels,
        channels,
        layers_per_block,
        attention,
        residual_resampling,
        heads: keys.whole_or_null("attention_head_dim", Some(8), 1..=WIDEST)?.map_or(Heads::One, Heads::Width),
        norm_groups,
        norm_eps: keys.float("norm_eps", 1e-5)?,
        mid_attention,
        dropout: keys.float("dropout", 0.0)?,
        time_scale_shift,
        downsample_padding: keys.whole("downsample_padding", Some(1), 0..=1)?,
        time_channels: None,
        time_scale: 1.0,
        flip_sin_to_cos: keys.flag("flip_sin_to_cos", true)?,
        freq_shift: keys.whole("freq_shift", Some(0), 0..=1)?,
        classes: keys.whole_or_null("num_class_embeds", None, 1..=MOST_CLASSES)?,
    };
    Ok(Described { config, ignored: keys.rest(), norm_groups_if_present })
}

/// Keys of which only the usual value is implemented.
fn fixed(keys: &mut Keys, time_width: i64) -> Result<(), NnError> {
    keys.only("act_fn", |value| matches!(value.as_str(), Some("silu" | "swish")))?;
    keys.only("center_input_sample", |value| value.as_bool() == Some(false))?;
    keys.only("class_embed_type", Value::is_null)?;
    keys.only("mid_block_scale_factor", |value| value.as_f64() == Some(1.0))?;
    // Null is a network without a bottom.
    keys.only("mid_block_type", |value| value.as_str() == Some("UNetMidBlock2D"))?;
    keys.only("time_embedding_dim", |value| value.is_null() || value.as_i64() == Some(time_width))?;
    keys.only("time_embedding_type", |value| value.as_str() == Some("positional"))?;
    // Rows of the learned table of timesteps, which is refused above.
    keys.only("num_train_timesteps", |_| true)
}

/// Height and width of the images: one number for squares, or both.
fn image_size(keys: &mut Keys) -> Result<[usize; 2], NnError> {
    let side = |value: &Value| {
        let side = value.as_i64().filter(|side| (1..=WIDEST).contains(side));
        side.map(|side| side as usize)
    };
    match keys.take("sample_size") {
        None | Some(Value::Null) => {
            Err(keys
                .unsupported("images of no particular size (add sample_size, the side of the training images)".into()))
        }
        Some(value) => {
            let sides = match &value {
                Value::Array(sides) if sides.len() == 2 => side(&sides[0]).zip(side(&sides[1])),
                single => side(single).map(|side| (side, side)),
            };
            sides.map(<[usize; 2]>::from).ok_or_else(|| keys.unsupported(format!("sample_size = {value}")))
        }
    }
}

/// Whether each level attends, highest resolution first; and whether residual blocks change the resolution.
fn levels(keys: &mut Keys) -> Result<(Vec<bool>, bool), NnError> {
    let kinds = [("conv", Resampling::Convolution), ("resnet", Resampling::Residual)];
    let attending = [
        keys.choice("downsample_type", Resampling::Convolution, &kinds)?,
        keys.choice("upsample_type", Resampling::Convolution, &kinds)?,
    ];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let defaults = [
        ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
        ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    ]
    .map(|types| types.map(str::to_owned).to_vec());
    let [down, up] = defaults;
    let down = keys.list("down_block_types", down, text)?;
    let mut up = keys.list("up_block_types", up, text)?;
    up.reverse();
    if down.len() != up.len() {
        return Err(keys.unsupported(format!("{} levels on the way down and {} on the way up", down.len(), up.len())));
    }
    let blocks = |types: &[String], side: &str, sampling: &str, attending: Resampling| {
        let known = [
            (format!("{side}Block2D"), (false, Resampling::Convolution)),
            (format!("Attn{side}Block2D"), (true, attending)),
            (format!("Resnet{sampling}sampleBlock2D"), (false, Resampling::Residual)),
        ];
        // Before 0.1 the names were UNetResDownBlock2D and so on.
        let find = |name: &str| {
            let plain = name.strip_prefix("UNetRes").unwrap_or(name);
            known.iter().find(|(known, _)| known == plain).map(|(_, block)| *block)
        };
        let found = types.iter().map(|name| find(name).ok_or_else(|| format!("block type {name}")));
        found.collect::<Result<Vec<_>, String>>()
    };
    let [at_down, at_up] = attending;
    let down = blocks(&down, "Down", "Down", at_down).map_err(|what| keys.unsupported(what))?;
    let up = blocks(&up, "Up", "Up", at_up).map_err(|what| keys.unsupported(what))?;
    let attention: Vec<bool> = down.iter().map(|(attends, _)| *attends).collect();
    if !attention.iter().eq(up.iter().map(|(attends, _)| attends)) {
        return Err(keys.unsupported("attention at different levels on the way down and up".into()));
    }
    // The lowest level does not shrink, and the highest does not grow.
    let steps = down[..down.len() - 1].iter().chain(&up[1..]).map(|(_, resampling)| *resampling);
    let mut steps = steps.collect::<Vec<_>>();
    steps.dedup();
    match steps.as_slice() {
        [] | [Resampling::Convolution] => Ok((attention, false)),
        [Resampling::Residual] => Ok((attention, true)),
        _ => Err(keys.unsupported("convolutions between some levels and residual blocks between others".into())),
    }
}

/// Major and minor number of a version such as `0.4.0.dev0`.
fn version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.').map(str::parse::<u64>);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}
