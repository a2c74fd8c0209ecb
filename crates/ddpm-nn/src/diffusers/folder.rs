//! Which files of a folder make up a model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::NnError;
use crate::error::EXPECTED;

/// How the names of all weight files begin.
const STEM: &str = "diffusion_pytorch_model";

/// Formats, in the order of preference.
const FORMATS: [&str; 2] = ["safetensors", "bin"];

/// Whether a folder contains a model, complete or not.
pub(super) fn contains_model(directory: &Path) -> bool {
    let has_weights = FORMATS.iter().any(|format| directory.join(format!("{STEM}.{format}")).is_file());
    has_weights || config(directory).is_file() || directory.join("unet").is_dir()
}

/// The configuration of the U-Net: in its folder of a pipeline, or at the root, as in the oldest pipelines and for a
/// model that was saved alone.
pub(super) fn config(directory: &Path) -> PathBuf {
    let [inner, own] = [directory.join("unet/config.json"), directory.join("config.json")];
    if own.is_file() && !inner.is_file() { own } else { inner }
}

/// The files that hold the weights of the model in `folder`. Those without a variant go first: a variant, as in
/// `diffusion_pytorch_model.fp16.safetensors`, is taken if it is the only one.
pub(super) fn weights(folder: &Path) -> Result<Vec<PathBuf>, NnError> {
    let fault = |reason: String, fix: &str| NnError::Read { path: folder.into(), reason, fix: fix.into() };
    let entries = std::fs::read_dir(folder).map_err(|e| fault(e.to_string(), EXPECTED))?;
    let names: BTreeSet<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let mut variants: BTreeSet<&str> = names.iter().filter_map(|name| variant(name)).collect();
    let plain = variants.take("");
    let variant = match (plain, variants.len()) {
        (Some(_), _) => "",
        (None, 1) => variants.first().expect("there is one"),
        (None, 0) => return Err(fault(format!("there is no {STEM}.safetensors or {STEM}.bin in it"), EXPECTED)),
        (None, _) => {
            let all: Vec<&str> = variants.into_iter().collect();
            let fix = format!("rename the file to use to {STEM}.safetensors or .bin");
            return Err(fault(format!("its weights come in the variants {}", all.join(", ")), &fix));
        }
    };
    for format in FORMATS {
        let [whole, index, old_index] = match variant {
            "" => [format!("{STEM}.{format}"), format!("{STEM}.{format}.index.json"), String::new()],
            _ => [
                format!("{STEM}.{variant}.{format}"),
                format!("{STEM}.{format}.index.{variant}.json"),
                format!("{STEM}.{variant}.{format}.index.json"),
            ],
        };
        if names.contains(&whole) {
            return Ok(vec![folder.join(whole)]);
        }
        if let Some(index) = [index, old_index].iter().find(|index| names.contains(*index)) {
            return shards(&folder.join(index));
        }
    }
    unreachable!("every variant comes from a file that is looked for here")
}

/// The variant of a whole file or an index, "" if it has none; shards do not count.
fn variant(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(STEM)?.strip_prefix('.')?;
    for format in FORMATS {
        let index = format!("{format}.index.");
        if rest == format || rest.strip_prefix(&index) == Some("json") {
            return Some("");
        }
        // FORMAT.index.VARIANT.json, VARIANT.FORMAT, VARIANT.FORMAT.index.json
        let between = rest.strip_prefix(&index).and_then(|rest| rest.strip_suffix(".json"));
        let before = rest.strip_suffix(".index.json").unwrap_or(rest);
        let variant = between.or_else(|| before.strip_suffix(format)?.strip_suffix('.'));
        // `diffusion_pytorch_model.fp16-00001-of-00002.safetensors` is a shard.
        if let Some(variant) = variant.filter(|variant| !variant.is_empty() && !variant.contains("-of-")) {
            return Some(variant);
        }
    }
    None
}

/// The files that an index names.
fn shards(index: &Path) -> Result<Vec<PathBuf>, NnError> {
    let fault = |reason: String| NnError::Read {
        path: index.into(),
        reason,
        fix: "it should map each tensor's name to a file beside it, in `weight_map`".into(),
    };
    let text = std::fs::read_to_string(index).map_err(|e| fault(e.to_string()))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| fault(e.to_string()))?;
    let map = json.get("weight_map").and_then(|map| map.as_object()).filter(|map| !map.is_empty());
    let map = map.ok_or_else(|| fault("it has no weight_map".into()))?;
    let files: Option<BTreeSet<&str>> = map.values().map(|file| file.as_str()).collect();
    let files = files.ok_or_else(|| fault("a value of its weight_map is not a name".into()))?;
    // An index must not reach out of its folder.
    if let Some(file) = files.iter().find(|file| file.is_empty() || file.contains(['/', '\\']) || **file == "..") {
        return Err(fault(format!("it names {file:?}, which is not a file beside it")));
    }
    Ok(files.into_iter().map(|file| index.with_file_name(file)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_by_name() {
        let cases = [
            ("diffusion_pytorch_model.safetensors", Some("")),
            ("diffusion_pytorch_model.bin.index.json", Some("")),
            ("diffusion_pytorch_model.fp16.safetensors", Some("fp16")),
            ("diffusion_pytorch_model.non_ema.bin", Some("non_ema")),
            ("diffusion_pytorch_model.safetensors.index.fp16.json", Some("fp16")),
            ("diffusion_pytorch_model.fp16.safetensors.index.json", Some("fp16")),
            ("diffusion_pytorch_model-00001-of-00002.safetensors", None),
            ("diffusion_pytorch_model.fp16-00001-of-00002.safetensors", None),
            ("diffusion_pytorch_model.msgpack", None),
            ("config.json", None),
        ];
        for (name, expected) in cases {
            assert_eq!(variant(name), expected, "{name}");
        }
    }
}
