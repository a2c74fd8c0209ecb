//! What the names and shapes of the tensors reveal of the architecture.

use std::collections::BTreeMap;

use crate::stored::Stored;

/// The architecture, as far as shapes reveal it.
#[derive(Debug, PartialEq)]
pub(super) struct Structure {
    pub(super) in_channels: i64,
    pub(super) out_channels: i64,
    /// Width of each level, highest resolution first.
    pub(super) channels: Vec<i64>,
    /// Residual blocks per level on the way down.
    pub(super) layers: usize,
    /// Whether each level has attention.
    pub(super) attention: Vec<bool>,
    pub(super) residual_resampling: bool,
    pub(super) time_scale_shift: bool,
    /// Width of the sinusoids, which `channel_mult` does not affect.
    pub(super) sinusoids: i64,
    pub(super) classes: Option<i64>,
}

/// Names and shapes.
struct Shapes<'a>(&'a BTreeMap<String, Stored<'a>>);

impl Shapes<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The length of a tensor in one dimension.
    fn length(&self, name: &str, dimension: usize) -> Result<i64, String> {
        let tensor = self.0.get(name).ok_or_else(|| format!("its tensor {name} is missing"))?;
        let shape = tensor.shape();
        let length = shape.get(dimension).copied().filter(|length| *length > 0);
        length.ok_or_else(|| format!("its tensor {name} is {shape:?}"))
    }
}

/// Infers the architecture, or says why this is not such a U-Net. The way up reveals most: a level there ends with what
/// doubles the resolution, in the same block as its last layer. On the way down, a residual block that halves it looks
/// like any other.
pub(super) fn infer(tensors: &BTreeMap<String, Stored>) -> Result<Structure, String> {
    let shapes = Shapes(tensors);
    refuse_others(&shapes)?;
    let blocks = (0..).take_while(|block| shapes.has(&format!("output_blocks.{block}.0.in_layers.2.weight"))).count();
    let mut ends = Vec::new();
    let mut kinds = Vec::new();
    for block in 0..blocks {
        let at = |part: &str| (1..=2).any(|index| shapes.has(&format!("output_blocks.{block}.{index}.{part}.weight")));
        if at("conv") || at("in_layers.2") {
            ends.push(block);
            kinds.push(at("in_layers.2"));
        }
    }
    kinds.dedup();
    let levels = ends.len() + 1;
    let per_level = blocks / levels;
    let expected = (1..levels).map(|level| level * per_level - 1);
    if per_level < 2 || blocks % levels != 0 || !ends.iter().copied().eq(expected) || kinds.len() > 1 {
        return Err(format!("its {blocks} output_blocks are not levels of equal length"));
    }
    // The way up begins with the lowest resolution.
    let firsts = (0..levels).rev().map(|step| step * per_level);
    let width = |block: usize| shapes.length(&format!("output_blocks.{block}.0.in_layers.2.weight"), 0);
    let channels = firsts.clone().map(width).collect::<Result<Vec<_>, _>>()?;
    let attention = firsts.map(|block| shapes.has(&format!("output_blocks.{block}.1.qkv.weight"))).collect();
    let projected = shapes.length("middle_block.0.emb_layers.1.weight", 0)?;
    let classes = shapes.has("label_emb.weight").then(|| shapes.length("label_emb.weight", 0)).transpose()?;
    Ok(Structure {
        in_channels: shapes.length("input_blocks.0.0.weight", 1)?,
        out_channels: shapes.length("out.2.weight", 0)?,
        layers: per_level - 1,
        attention,
        residual_resampling: kinds == [true],
        sinusoids: shapes.length("time_embed.0.weight", 1)?,
        time_scale_shift: projected == 2 * channels[levels - 1],
        channels,
        classes,
    })
}

/// Recognises other models by their names.
fn refuse_others(shapes: &Shapes) -> Result<(), String> {
    let other = if shapes.has("conv_in.weight") {
        "its tensors have the names that diffusers uses; give the folder with its config.json instead"
    } else if !shapes.has("input_blocks.0.0.weight") {
        "it has no tensor input_blocks.0.0.weight"
    } else if !shapes.has("output_blocks.0.0.in_layers.2.weight") {
        "it has no output_blocks, as a classifier; only diffusion models can be imported"
    } else {
        return Ok(());
    };
    Err(other.into())
}
