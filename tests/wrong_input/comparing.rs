//! Comparing sets of images: features, statistics and numbers of images that do not fit.

use std::path::Path;

use tch::{CModule, Device, Kind, Tensor};
use tempfile::TempDir;

use super::data::pictures;
use super::{check, check_each};
use crate::common::mpirun;

/// Traces a module of images f32 `[2, channels, 16, 16]` into a file.
fn module(path: &Path, channels: i64, mut output: impl FnMut(&Tensor) -> Tensor) {
    let images = Tensor::zeros([2, channels, 16, 16], (Kind::Float, Device::Cpu));
    let mut traced = |images: &[Tensor]| vec![output(&images[0])];
    CModule::create_by_tracing("module", "forward", &[images], &mut traced).unwrap().save(path).unwrap();
}

#[test]
fn features_that_do_not_fit() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let rows = |images: &Tensor| images.mean_dim([1i64, 2].as_slice(), false, Kind::Float);
    module(&at("flat.pt"), 1, |images| rows(images).mean_dim(1, false, Kind::Float));
    module(&at("pooled.pt"), 1, |images| rows(images).mean_dim(0, true, Kind::Float));
    module(&at("infinite.pt"), 1, |images| rows(images).log());
    module(&at("colour.pt"), 3, |images| {
        images.conv2d(&Tensor::ones([4, 3, 16, 16], (Kind::Float, Device::Cpu)), None::<&Tensor>, 1, 0, 1, 1)
    });
    let cases = [
        ("DIR/flat.pt", 2, "flat.pt returns [2] for 2 images", "whose output is [B, D]"),
        ("DIR/pooled.pt", 2, "pooled.pt returns [1, 16] for 2 images", "one row for each image"),
        ("DIR/infinite.pt", 2, "infinite.pt gives features that are not finite", "give another, or other images"),
        ("DIR/colour.pt", 2, "does not take images [2, 1, 16, 16]", "f32 images [B, C, H, W]"),
        ("DIR/absent.pt", 4, "absent.pt: No such file", "check the path"),
    ];
    check(dir.path(), "eval fid --images smoke --data smoke -n 8 --reference-count 8 --features", &cases);
    check_each(dir.path(), "eval pr --images smoke --data smoke -n 8 --reference-count 8 --features", &cases, || {
        mpirun(2)
    });
    let prefix =
        "train --config smoke --steps 1 --set run.dir=DIR/run --set monitor.fid_every=1 --set monitor.fid_features=";
    let cases = [
        ("DIR/flat.pt", 2, "flat.pt returns [2] for 2 images", "whose output is [B, D]"),
        ("DIR/absent.pt", 4, "absent.pt: No such file", "check the path"),
    ];
    for case in cases {
        let (features, ..) = case;
        let whole = format!("{prefix}{features}");
        check(dir.path(), &whole, &[("", case.1, case.2, case.3)]);
    }
}

#[test]
fn statistics_that_do_not_fit() {
    let dir = TempDir::new().unwrap();
    module(&dir.path().join("twelve.pt"), 1, |images| images.flatten(1, -1).narrow(1, 0, 12));
    std::fs::write(dir.path().join("text.npz"), "mu, sigma").unwrap();
    let cases = [
        ("DIR/absent.npz", 4, "absent.npz: No such file", "check the path"),
        ("DIR/text.npz", 2, "text.npz is not an .npz file", "arrays `mu` [D] and `sigma` [D, D]"),
        ("tests/golden/npz/no-sigma.npz", 2, "has no array `sigma`, only: cov, mu", "arrays `mu` [D]"),
        ("tests/golden/npz/integers.npz", 2, "has an array `mu` of '<i8', not of floats", "arrays `mu` [D]"),
        ("tests/golden/npz/not-square.npz", 2, "mean has shape [12] and the covariance [12, 11]", "[D, D] are needed"),
        ("tests/golden/npz/not-finite.npz", 2, "mean or the covariance is not finite", "Compute them again"),
        ("tests/golden/npz/edm.npz --data smoke", 2, "cannot be used with", "--help"),
        ("tests/golden/npz/edm.npz --write-reference DIR/a.npz", 2, "cannot be used with", "--help"),
    ];
    check(dir.path(), "eval fid --images smoke -n 8 --features DIR/twelve.pt --reference", &cases);
    let pixels = [("", 2, "holds statistics of 12 features, but pixels gives 256", "of the same features")];
    check(dir.path(), "eval fid --images smoke -n 8 --reference tests/golden/npz/edm.npz", &pixels);
}

#[test]
fn sets_of_images_that_cannot_be_compared() {
    let dir = TempDir::new().unwrap();
    let cases = [
        ("fid", 2, "not provided", "--model <SRC>|--samples <FILE|FOLDER>|--images <FILE>"),
        ("fid --images smoke", 2, "there is nothing to compare the images with", "with --data"),
        ("fid --images smoke --samples DIR --data smoke", 2, "cannot be used with", "--help"),
        ("fid --images smoke --data smoke --steps 5", 2, "cannot be used with", "--help"),
        ("fid --samples DIR --data smoke --images-split train", 2, "cannot be used with", "--help"),
        ("fid --images smoke --data smoke -n 513", 2, "513 images are requested of ", "give at most 512"),
        ("fid --images smoke --data smoke -n 1", 2, "1 images have no covariance", "at least 2"),
        ("fid --images smoke --data smoke --reference-count 1", 2, "1 images have no covariance", "at least 2"),
        (
            "fid --images smoke --data smoke --set data.image_size=8",
            2,
            "images are 1x16x16",
            "must have the same shape",
        ),
        ("kid --images smoke --data smoke", 2, "subsets of 1000 vectors cannot be drawn from 512", "from 2 to 512"),
        ("kid --images smoke --data smoke --subset-size 1", 2, "subsets of 1 vectors", "from 2 to 512"),
        ("kid --images smoke --data smoke --subsets 0", 2, "'0' for '--subsets", "at least 1"),
        ("pr --images smoke --data smoke -n 3", 2, "each of 3 images has fewer than 3 others.", "fewer neighbours"),
        (
            "pr --images smoke --data smoke -k 600",
            2,
            "each of 512 images has fewer than 600 others",
            "fewer neighbours",
        ),
        ("pr --images smoke --data smoke --reference a.npz", 2, "unexpected argument '--reference'", "--help"),
        ("fid --model tests/golden/pipeline-digits", 2, "does not say what it was trained on", "with --data"),
        ("fid --model tests/golden/pipeline-digits --data smoke", 2, "images are 1x28x28", "the same shape"),
        (
            "fid --model tests/golden/pipeline-digits --data smoke --set data.image_size=28 --guidance 2",
            2,
            "cannot be guided",
            "leave --guidance out",
        ),
    ];
    check(dir.path(), "eval", &cases);
}

#[test]
fn evaluations_during_training_that_do_not_fit() {
    let dir = TempDir::new().unwrap();
    pictures(&dir.path().join("pictures"), 3);
    let cases = [
        (
            "--set monitor.log_every=10 --set monitor.eval_every=25",
            2,
            "monitor.eval_every = 25 is not a multiple of monitor.log_every = 10",
            "Use 20 or 30",
        ),
        (
            "--set monitor.log_every=10 --set monitor.fid_every=5",
            2,
            "monitor.fid_every = 5 is not a multiple",
            "Use 10",
        ),
        (
            "--set monitor.eval_timesteps=101",
            2,
            "monitor.eval_timesteps = 101 is out of range",
            "from 2 to diffusion.timesteps = 100",
        ),
        ("--set monitor.eval_split=held", 2, "monitor.eval_split", "test"),
        ("--set monitor.fid_count=1", 2, "monitor.fid_count = 1 is out of range", "at least 2"),
        ("--set monitor.fid_features=~/a.pt", 2, "starts with ~", "Write /"),
        (
            "--set monitor.fid_every=1 --set data.image_size=96",
            2,
            "monitor.fid_every with 9216 features",
            "set monitor.fid_features to a file of at most 8192",
        ),
        ("--set monitor.fid_every=1 --set monitor.fid_reference=DIR/a.npz", 4, "a.npz: No such file", "check the path"),
        (
            "--set monitor.fid_every=1 --set monitor.fid_reference=tests/golden/npz/edm.npz",
            2,
            "12 features, but pixels gives 256",
            "the same features",
        ),
        (
            "--set monitor.eval_every=1 --set data.kind=folder --set data.path=DIR/pictures",
            4,
            "the test split is requested",
            "request the train split",
        ),
    ];
    check(dir.path(), "train --config smoke --steps 1 --set run.dir=DIR/run --set monitor.sample_every=0", &cases);
    let classifier =
        [("monitor.eval_every=10", 2, "a classifier has no bound and draws no samples", "Set monitor.eval_every to 0")];
    check(dir.path(), "train-classifier --config mnist-classifier --set run.dir=DIR/run --set", &classifier);
}
