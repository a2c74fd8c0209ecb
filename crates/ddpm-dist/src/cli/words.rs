//! Options whose values are words of ddpm-spec's vocabulary, with the help for each word.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use ddpm_config::{Device, Precision, SamplerKind};
use ddpm_data::{PackFormat, Split};
use ddpm_diffusion::Spacing;
use ddpm_model::{Format, NoiseSchedule};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parses one of these words, spelt as in configuration files.
fn word<T>(words: &[(&'static str, &'static str)]) -> impl TypedValueParser<Value = T> + use<T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    let values = words.iter().map(|(name, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(values).try_map(|word| serde_json::from_value::<T>(Value::from(word)))
}

pub(super) fn device() -> impl TypedValueParser<Value = Device> {
    word(&[
        ("auto", "One GPU per rank if there are GPUs, else the CPU"),
        ("cpu", "The CPU"),
        ("cuda", "One GPU per rank"),
    ])
}

pub(super) fn precision() -> impl TypedValueParser<Value = Precision> {
    word(&[
        ("fp32", "32-bit floats"),
        ("bf16", "bfloat16 for convolutions, attention and what lies between them"),
        ("auto", "bf16 where the GPU or the CPU of every rank has instructions for it, else fp32"),
    ])
}

pub(super) fn format() -> impl TypedValueParser<Value = Format> {
    word(&[
        ("diffusers", "A directory that diffusers loads as a pipeline"),
        ("safetensors", "Tensors by name, and a description of the network and its process as JSON"),
    ])
}

pub(super) fn pack_format() -> impl TypedValueParser<Value = PackFormat> {
    word(&[("parquet", "Parquet in Hugging Face's layout"), ("webdataset", "WebDataset: tar files")])
}

pub(super) fn sampler() -> impl TypedValueParser<Value = SamplerKind> {
    word(&[
        ("ddpm", "Ancestral (Ho et al. 2020)"),
        ("ddim", "Song et al. 2020"),
        ("heun", "Heun's second-order method, two evaluations per step (Karras et al. 2022)"),
        ("dpmpp", "DPM-Solver++ 2M (Lu et al. 2022)"),
    ])
}

pub(super) fn noise_schedule() -> impl TypedValueParser<Value = NoiseSchedule> {
    word(&[("linear", "Betas evenly spaced, from 0.1/T to 20/T"), ("cosine", "Nichol & Dhariwal 2021")])
}

pub(super) fn spacing() -> impl TypedValueParser<Value = Spacing> {
    word(&[
        ("leading", "Multiples of the fraction T/N from 0, rounded down"),
        ("linspace", "N points from 0 to T-1; a single one is T-1"),
        ("trailing", "Multiples of T/N back from T-1"),
    ])
}

pub(super) fn split() -> impl TypedValueParser<Value = Split> {
    word(&[("train", "The training images"), ("valid", "CelebA's validation images"), ("test", "The held-out images")])
}
