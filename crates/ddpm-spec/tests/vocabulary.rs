//! The spelling of words in files, and the errors of specifications written in code.

use std::fmt::Debug;

use ddpm_spec::{
    Backend, BetaSchedule, Convolutions, DataKind, DataSpec, Device, ImageShape, Labels, LossKind, LrShape, ModelKind,
    Naming, OnCorrupt, OnFailure, Precision, Prediction, SamplerKind, ScheduleKind, SourceKind, SpecError, Split,
    TimestepSampling, Variance, WeightingKind, WhenBusy,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn spelt<T: Serialize + DeserializeOwned + PartialEq + Debug>(words: &[(T, &str)]) {
    for (word, text) in words {
        let json = format!("\"{text}\"");
        assert_eq!(serde_json::to_string(word).unwrap(), json);
        assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), word);
    }
}

#[test]
fn words_keep_their_spelling_in_files() {
    spelt(&[(Prediction::Eps, "eps"), (Prediction::XStart, "x_start"), (Prediction::V, "v")]);
    spelt(&[
        (Variance::FixedSmall, "fixed_small"),
        (Variance::FixedLarge, "fixed_large"),
        (Variance::LearnedRange, "learned_range"),
    ]);
    spelt(&[(LossKind::Simple, "simple"), (LossKind::Vlb, "vlb"), (LossKind::Hybrid, "hybrid")]);
    assert_eq!(serde_json::from_str::<LossKind>("\"kl\"").unwrap(), LossKind::Vlb);
    spelt(&[(WeightingKind::None, "none"), (WeightingKind::MinSnr, "min_snr"), (WeightingKind::P2, "p2")]);
    spelt(&[
        (ScheduleKind::Linear, "linear"),
        (ScheduleKind::Quadratic, "quadratic"),
        (ScheduleKind::Cosine, "cosine"),
        (ScheduleKind::Sigmoid, "sigmoid"),
        (ScheduleKind::Constant, "constant"),
        (ScheduleKind::List, "list"),
    ]);
    spelt(&[
        (TimestepSampling::Uniform, "uniform"),
        (TimestepSampling::Stratified, "stratified"),
        (TimestepSampling::LossSecondMoment, "loss_second_moment"),
    ]);
    spelt(&[(ModelKind::Unet, "unet"), (ModelKind::Small, "small"), (ModelKind::Classifier, "classifier")]);
    spelt(&[(LrShape::Constant, "constant"), (LrShape::Cosine, "cosine")]);
    spelt(&[(Precision::Fp32, "fp32"), (Precision::Bf16, "bf16"), (Precision::Auto, "auto")]);
    spelt(&[(Convolutions::Auto, "auto"), (Convolutions::Direct, "direct")]);
    spelt(&[(Device::Auto, "auto"), (Device::Cpu, "cpu"), (Device::Cuda, "cuda")]);
    spelt(&[(Backend::Auto, "auto"), (Backend::Solo, "solo"), (Backend::Mpi, "mpi"), (Backend::Nccl, "nccl")]);
    spelt(&[(OnFailure::Warn, "warn"), (OnFailure::Abort, "abort")]);
    spelt(&[(WhenBusy::Wait, "wait"), (WhenBusy::Skip, "skip")]);
    spelt(&[
        (SamplerKind::Ddpm, "ddpm"),
        (SamplerKind::Ddim, "ddim"),
        (SamplerKind::Heun, "heun"),
        (SamplerKind::Dpmpp, "dpmpp"),
    ]);
    spelt(&[(Split::Train, "train"), (Split::Valid, "valid"), (Split::Test, "test")]);
    spelt(&[(OnCorrupt::Error, "error"), (OnCorrupt::Skip, "skip")]);
    spelt(&[
        (DataKind::Idx, "idx"),
        (DataKind::Folder, "folder"),
        (DataKind::Packed, "packed"),
        (DataKind::Synthetic, "synthetic"),
        (DataKind::Unknown, "unknown"),
    ]);
    spelt(&[
        (Labels::Auto, "auto"),
        (Labels::Attribute("Smiling".into()), "attribute:Smiling"),
        (Labels::Path("./labels".into()), "./labels"),
    ]);
}

#[test]
fn errors_carry_the_path_that_the_caller_gives() {
    let schedule = BetaSchedule::List(vec![0.1, 1.5]);
    let named = |naming| schedule.validate(2, naming).unwrap_err();
    let SpecError { path, problem, fix } = named(Naming::PLAIN);
    assert_eq!(path, "betas[1]");
    assert_eq!(format!("{problem}. {fix}"), "betas[1] = 1.5 is out of range. It must be above 0 and below 1");
    assert_eq!(named(Naming(|field| format!("diffusion.{field}"))).path, "diffusion.betas[1]");
}

#[test]
fn data_sets_that_cannot_be_opened_are_refused() {
    let valid = DataSpec {
        kind: SourceKind::Synthetic { count: 10, seed: 0 },
        image: ImageShape::square(1, 8),
        crop: None,
        max_pixels: 100,
        on_corrupt: OnCorrupt::Error,
    };
    assert!(valid.validate(Naming::PLAIN).is_ok());
    for (path, spec) in [
        ("count", DataSpec { kind: SourceKind::Synthetic { count: 0, seed: 0 }, ..valid.clone() }),
        ("image.height", DataSpec { image: ImageShape::square(1, 0), ..valid.clone() }),
        ("image.width", DataSpec { image: ImageShape { width: 9, ..valid.image }, ..valid.clone() }),
        ("image.channels", DataSpec { image: ImageShape::square(2, 8), ..valid.clone() }),
        ("crop", DataSpec { crop: Some(0), ..valid.clone() }),
    ] {
        assert_eq!(spec.validate(Naming::PLAIN).unwrap_err().path, path);
    }
}
