//! `eval fid`: the Fréchet distance between samples and images; the images are spread over the ranks.

use std::fmt;
use std::path::{Path, PathBuf};

use ddpm_comm::{Agreed, Collective, Reduce, World, agree, partition};
use ddpm_config::Settings;
use ddpm_eval::FeatureMoments;
use ddpm_model::{Error, ErrorKind, Failure, data, images, samples};
use serde_json::json;
use tch::{CModule, Device, TchError, Tensor};

use super::error::of_eval;
use crate::cli::{Features, FidArgs};
use crate::failure::{relieve_by_batch, relieve_with};
use crate::model_data::check_count;
use crate::output::print;

/// From this many features on, their covariances take gigabytes, whatever the batch.
const MANY_FEATURES: i64 = 8192;

/// Computes features `[B, D]` of images.
enum Extractor {
    Pixels,
    Module(PathBuf, CModule),
}

/// Computes the distance and prints it.
pub fn run(args: &FidArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    world.watch(crate::commands::patience::PATIENCE);
    relieve_by_batch(args.batch);
    let device = args.on.resolve(world)?;
    let open = || {
        let settings = Settings::load(&args.data, &args.overrides)?;
        let source = data::open(&settings, args.split)?;
        let count = args.count.unwrap_or(source.len());
        check_count(source.as_ref(), count)?;
        let samples = samples::read(&args.samples, source.image(), None)?;
        Ok::<_, Error>((source, count as usize, grey_levels(&samples.images), Extractor::open(&args.features, device)?))
    };
    let (source, count, samples, extractor) = agree::unanimous(comm, open())?;
    data::check_same(comm, source.as_ref())?;
    let image = |first: usize, count| Ok(images::read(source.as_ref(), first as u64, count, device)?.x_start);
    let sample =
        |first: usize, count: usize| Ok(samples.f_narrow(0, first as i64, count as i64)?.f_to_device(device)?);
    let drawn = samples.size()[0] as usize;
    // Each rank reads the samples, and runs the extractor on one of them to find its number of features.
    let dim = agree::unanimous(comm, extractor.features(&samples.narrow(0, 0, 1).to_device(device)))?.size()[1];
    let all = comm.gather_bytes([drawn as u64, dim as u64].map(u64::to_le_bytes).as_flattened());
    if all.iter().any(|ranks| *ranks != all[0]) {
        let message = "the ranks found different samples or features; give all of them the same files";
        return Err(Agreed::known_to_all(Error::config(message)).into());
    }
    if dim > MANY_FEATURES {
        relieve_with(format!(
            "Give fewer features by --features FILE.pt: {dim} of them have {dim} x {dim} covariances"
        ));
    }
    let theirs = extractor.add(comm, dim, drawn, args.batch, sample)?;
    let ours = extractor.add(comm, dim, count, args.batch, image)?;
    let distance = ours.frechet_distance(&theirs).map_err(of_eval)?;
    if world.rank() == 0 {
        let (split, features) = (args.split.to_string(), args.features.to_string());
        if json {
            print(json!({
                "frechet_distance": distance, "samples": drawn, "images": count, "data": source.describe(),
                "split": split, "features": features, "dim": ours.dim(),
            }))?;
        } else {
            let (dim, data) = (ours.dim(), source.describe());
            let what = format!("{drawn} samples, {count} of {data}; {dim} features: {features}");
            print(format_args!("frechet   {distance:.4} ({what})"))?;
        }
    }
    Ok(())
}

impl Extractor {
    /// The extractor, on `device`.
    fn open(features: &Features, device: Device) -> Result<Self, Error> {
        let Features::File(path) = features else { return Ok(Self::Pixels) };
        std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
        let module = CModule::load_on_device(path, device)
            .map_err(|error| refused(path, &format!("is not a valid TorchScript module ({})", first_line(&error))))?;
        Ok(Self::Module(path.clone(), module))
    }

    fn features(&self, images: &Tensor) -> Result<Tensor, Error> {
        let features = match self {
            Self::Pixels => images.shallow_clone(),
            Self::Module(path, module) => tch::no_grad(|| module.forward_ts(&[images])).map_err(|error| {
                let words = first_line(&error);
                match Error::from(error) {
                    // An error of the machine, or about determinism, is not the module's fault.
                    error if error.kind() != ErrorKind::Internal => error,
                    _ => refused(path, &format!("does not take images {:?} ({words})", images.size())),
                }
            })?,
        };
        let features = features.f_flatten(1, -1)?;
        if features.f_isfinite()?.f_all()?.int64_value(&[]) == 0 {
            return Err(Error::config(format!(
                "{self} gives features that are not finite; give another, or other images"
            )));
        }
        Ok(features)
    }

    /// The moments of the `dim` features of images `0..count`. Each rank reads its share, given as the first index and
    /// the number of images.
    fn add(
        &self,
        comm: &dyn Collective,
        dim: i64,
        count: usize,
        batch: usize,
        read: impl Fn(usize, usize) -> Result<Tensor, Error>,
    ) -> Result<FeatureMoments, Failure> {
        let ours = partition(count, comm.rank(), comm.size());
        let add = || {
            let mut moments = FeatureMoments::new(dim).map_err(of_eval)?;
            for first in ours.clone().step_by(batch) {
                moments.add(&self.features(&read(first, batch.min(ours.end - first))?)?).map_err(of_eval)?;
            }
            Ok::<_, Error>(moments)
        };
        let mut moments = agree::unanimous(comm, add())?;
        moments.merge(|values| comm.all_reduce_f64(values, Reduce::Sum)).map_err(of_eval)?;
        Ok(moments)
    }
}

/// Samples, presented as a source of images.
fn grey_levels(samples: &Tensor) -> Tensor {
    ((samples.clamp(-1.0, 1.0) + 1.0) * 127.5).round() / 127.5 - 1.0
}

impl fmt::Display for Extractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pixels => f.write_str("the file of samples"),
            Self::Module(path, _) => path.display().fmt(f),
        }
    }
}

/// The first line of libtorch's message; the rest is a stack trace.
fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn refused(path: &Path, what: &str) -> Error {
    Error::config(format!(
        "{} {what}; give one that takes f32 images [B, C, H, W], saved by torch.jit.save",
        path.display()
    ))
}
