//! Statistics of features in the `.npz` files that pytorch-fid and ADM's evaluator exchange: arrays `mu` `[D]` and
//! `sigma` `[D, D]`. Other arrays of a file (ADM's `mu_s`, `sigma_s`, `mu_clip`, `sigma_clip`, `arr_0`) are left alone.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use ddpm_eval::Gaussian;
use ddpm_telemetry::write_atomic;
use tch::Tensor;
use zip::result::ZipError;
use zip::write::FileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::npy;
use crate::error::Error;

/// The mean's array.
const MEAN: &str = "mu";
/// The covariance's array.
const COVARIANCE: &str = "sigma";

/// Reads statistics, stored or compressed, of f32 or f64.
///
/// # Errors
/// The file cannot be read, lacks one of the arrays, or these are of another kind or shape.
pub fn read(path: &Path) -> Result<Gaussian, Error> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    let mut archive =
        ZipArchive::new(BufReader::new(file)).map_err(|e| unfit(path, &format!("is not an .npz file ({e})")))?;
    let (mean, covariance) = (array(path, &mut archive, MEAN)?, array(path, &mut archive, COVARIANCE)?);
    Gaussian::new(mean, covariance).map_err(|error| Error::from(error).within(path))
}

/// Writes statistics as `numpy.savez(path, mu=..., sigma=...)` does.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, statistics: &Gaussian) -> Result<(), Error> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // The same bytes each time.
    let stored =
        FileOptions::default().compression_method(CompressionMethod::Stored).last_modified_time(DateTime::default());
    for (name, values) in [(MEAN, statistics.mean()), (COVARIANCE, statistics.covariance())] {
        archive.start_file(format!("{name}.npy"), stored).map_err(Error::internal)?;
        npy::write(&mut archive, values).map_err(Error::internal)?;
    }
    let bytes = archive.finish().map_err(Error::internal)?.into_inner();
    write_atomic(path, &bytes).map_err(|e| Error::file(path, e))
}

/// One array of an archive, as f64.
fn array(path: &Path, archive: &mut ZipArchive<BufReader<File>>, name: &str) -> Result<Tensor, Error> {
    let mut held: Vec<&str> = archive.file_names().map(|name| name.trim_end_matches(".npy")).collect();
    held.sort_unstable();
    let held = held.join(", ");
    let unpacked = archive.by_name(&format!("{name}.npy")).and_then(|mut entry| {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let bytes = unpacked.map_err(|error| match error {
        ZipError::FileNotFound => unfit(path, &format!("has no array `{name}`, only: {held}")),
        error => unfit(path, &format!("cannot be unpacked ({error})")),
    })?;
    npy::read(&bytes).map_err(|what| unfit(path, &format!("has an array `{name}` {what}")))
}

fn unfit(path: &Path, what: &str) -> Error {
    Error::config(format!("{} {what}; give a file with arrays `{MEAN}` [D] and `{COVARIANCE}` [D, D]", path.display()))
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::path::PathBuf;
    use std::process::Command;

    use ddpm_eval::FeatureMoments;

    use super::*;

    fn golden(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
    }

    /// The statistics that the golden files hold.
    fn statistics() -> Gaussian {
        let tensors = Tensor::read_safetensors(golden("comparisons.safetensors")).unwrap();
        let (_, features) = tensors.into_iter().find(|(name, _)| name == "reference").unwrap();
        let mut moments = FeatureMoments::new(features.size()[1]).unwrap();
        moments.add(&features).unwrap();
        moments.gaussian().unwrap()
    }

    fn check(what: &str, found: &Gaussian, expected: &Gaussian, tolerance: f64) {
        for (found, expected) in [(found.mean(), expected.mean()), (found.covariance(), expected.covariance())] {
            assert_eq!(found.size(), expected.size(), "{what}");
            let off = (found - expected).abs().max().double_value(&[]);
            assert!(off <= tolerance, "{what}: off by {off}");
        }
    }

    #[test]
    fn files_of_numpy_are_read_stored_or_compressed_in_single_or_double_precision() {
        let expected = statistics();
        for (file, tolerance) in [("pytorch-fid", 1e-12), ("edm", 1e-12), ("adm", 1e-12), ("single", 1e-6)] {
            check(file, &read(&golden(&format!("npz/{file}.npz"))).unwrap(), &expected, tolerance);
        }
    }

    #[test]
    fn pytorch_fid_has_read_what_is_written_and_its_answer_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (path, given) = (dir.path().join("again.npz"), golden("npz/ours.npz"));
        let ours = read(&given).unwrap();
        write(&path, &ours).unwrap();
        assert!(
            std::fs::read(&path).unwrap() == std::fs::read(&given).unwrap(),
            "another form than pytorch-fid was given"
        );
        check("pytorch-fid's answer", &read(&golden("npz/returned.npz")).unwrap(), &ours, 0.0);
    }

    #[test]
    fn numpy_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ours.npz");
        let ours = statistics();
        write(&path, &ours).unwrap();
        check("our own file", &read(&path).unwrap(), &ours, 0.0);

        let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache/ddpm-dist"));
        let cache = env::var_os("DDPM_CACHE").map(PathBuf::from).or_else(home).unwrap();
        let program = "import json, numpy, sys\n\
                       with numpy.load(sys.argv[1]) as f: print(json.dumps([f['mu'].tolist(), f['sigma'].tolist()]))";
        let mut python = Command::new("python3");
        python.args(["-c", program]).arg(&path).env("PYTHONPATH", cache.join("numpy"));
        let output = python.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "numpy (scripts/setup.sh --tests) refuses the file: {said}");
        let (mean, covariance): (Vec<f64>, Vec<Vec<f64>>) = serde_json::from_slice(&output.stdout).unwrap();
        let theirs = Gaussian::new(Tensor::from_slice(&mean), Tensor::from_slice2(&covariance)).unwrap();
        check("numpy", &theirs, &ours, 1e-15);
    }
}
