//! The spelling of words in files, and the errors of specifications written in code.

use std::fmt::Debug;

use ddpm_spec::{
    Alpha, Backend, BetaSchedule, Convolutions, CudaGraphs, DataKind, DataSpec, Device, Fit, FolderLabels, ImageShape,
    ImageSize, Labels, LossKind, LrShape, ModelKind, Naming, OnCorrupt, OnFailure, Precision, Prediction, SamplerKind,
    ScheduleKind, SourceKind, SpecError, Split, TimestepSampling, Variance, WeightingKind, WhenBusy,
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
    spelt(&[(CudaGraphs::Auto, "auto"), (CudaGraphs::Off, "off")]);
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
        (DataKind::Parquet, "parquet"),
        (DataKind::Webdataset, "webdataset"),
        (DataKind::Zip, "zip"),
        (DataKind::Synthetic, "synthetic"),
        (DataKind::Unknown, "unknown"),
    ]);
    spelt(&[
        (Labels::Auto, "auto"),
        (Labels::Attribute("Smiling".into()), "attribute:Smiling"),
        (Labels::Field("fine_label".into()), "field:fine_label"),
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
fn sizes_and_colours_are_written_as_briefly_as_possible() {
    fn read<T: DeserializeOwned>(json: &str) -> T {
        serde_json::from_str(json).unwrap()
    }
    for (json, size) in [("32", ImageSize::square(32)), ("[32,16]", ImageSize { height: 32, width: 16 })] {
        assert_eq!((serde_json::to_string(&size).unwrap().as_str(), read::<ImageSize>(json)), (json, size));
        assert_eq!(size.to_string(), json);
    }
    assert_eq!(read::<ImageSize>("[32, 32]"), ImageSize::square(32));
    spelt(&[(Alpha::BLACK, "black"), (Alpha::WHITE, "white"), (Alpha::Keep, "keep")]);
    spelt(&[(Fit::Crop, "crop"), (Fit::Pad, "pad"), (Fit::Stretch, "stretch")]);
    assert_eq!(read::<Alpha>("[255, 255, 255]"), Alpha::WHITE);
    assert_eq!(serde_json::to_string(&read::<Alpha>("[255, 0, 9]")).unwrap(), "[255,0,9]");
}

#[test]
fn data_sets_that_cannot_be_opened_are_refused() {
    let valid = DataSpec {
        kind: SourceKind::Synthetic { count: 10, seed: 0 },
        image: ImageShape::square(1, 8),
        crop: None,
        fit: Fit::Crop,
        alpha: Alpha::BLACK,
        range: None,
        jpeg_shrink: false,
        max_pixels: 100,
        on_corrupt: OnCorrupt::Error,
    };
    assert!(valid.validate(Naming::PLAIN).is_ok());
    let files = SourceKind::Folder { root: "images".into(), split: Split::Train, labels: FolderLabels::None };
    let folder = DataSpec { kind: files, ..valid.clone() };
    for channels in 1..=16 {
        let image = ImageShape { channels, height: 8, width: 24 };
        assert!(DataSpec { image, range: Some([-1.0, 2.5]), ..folder.clone() }.validate(Naming::PLAIN).is_ok());
        let kept = DataSpec { image, alpha: Alpha::Keep, ..folder.clone() };
        assert_eq!(kept.validate(Naming::PLAIN).is_ok(), matches!(channels, 2 | 4));
    }
    for (path, spec) in [
        ("count", DataSpec { kind: SourceKind::Synthetic { count: 0, seed: 0 }, ..valid.clone() }),
        ("image.height", DataSpec { image: ImageShape::square(1, 0), ..valid.clone() }),
        ("image.width", DataSpec { image: ImageShape { width: 4097, ..valid.image }, ..valid.clone() }),
        ("image.channels", DataSpec { image: ImageShape::square(2, 8), ..valid.clone() }),
        ("image.channels", DataSpec { image: ImageShape::square(17, 8), ..folder.clone() }),
        ("image.channels", DataSpec { image: ImageShape::square(0, 8), ..folder.clone() }),
        ("alpha", DataSpec { alpha: Alpha::Keep, ..folder.clone() }),
        ("alpha", DataSpec { alpha: Alpha::Over([1, 2, 3]), image: ImageShape::square(5, 8), ..folder.clone() }),
        ("range", DataSpec { range: Some([0.0, 1.0]), ..valid.clone() }),
        ("range", DataSpec { range: Some([1.0, 1.0]), ..folder.clone() }),
        ("range", DataSpec { range: Some([0.0, f64::INFINITY]), ..folder.clone() }),
        ("crop", DataSpec { crop: Some(0), ..valid.clone() }),
    ] {
        assert_eq!(spec.validate(Naming::PLAIN).unwrap_err().path, path);
    }
}
