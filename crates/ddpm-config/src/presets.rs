//! The presets of `configs/`, built into the program so that they work away from the repository.

/// A built-in configuration file.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// Its name, as [`Settings::load`](crate::Settings::load) takes it.
    pub name: &'static str,
    /// The file's text; its first comment says what it is for.
    pub text: &'static str,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        &[$(Preset { name: $name, text: include_str!(concat!("../../../configs/", $name, ".toml")) }),*]
    };
}

/// Every preset, in the order a newcomer would try them.
pub const PRESETS: &[Preset] = presets![
    "smoke",
    "digits",
    "mnist-small",
    "mnist",
    "mnist-conditional",
    "mnist-classifier",
    "mnist-hybrid",
    "mnist-vlb",
    "fashion-mnist",
    "emoji64",
    "emoji64-conditional",
    "tutorial",
    "cifar10",
    "improved-cifar10",
    "improved-imagenet64",
    "celeba64",
    "su-ddpm",
];

impl Preset {
    /// The preset written as `NAME`, `NAME.toml` or `configs/NAME.toml`.
    pub fn named(given: &str) -> Option<&'static Self> {
        let given = given.strip_prefix("./").unwrap_or(given);
        let name = given.strip_prefix("configs/").unwrap_or(given);
        let name = name.strip_suffix(".toml").unwrap_or(name);
        PRESETS.iter().find(|preset| preset.name == name)
    }
}
