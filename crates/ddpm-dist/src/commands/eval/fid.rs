//! `eval fid`: the Fréchet distance between samples and images, their features spread over the ranks.

use std::fmt;
use std::path::{Path, PathBuf};

use ddpm_checkpoint::share;
use ddpm_comm::{Collective, Reduce, World};
use ddpm_config::Settings;
use ddpm_data::Split;
use ddpm_eval::FeatureMoments;
use serde_json::json;
use tch::{CModule, Device, TchError, Tensor};

use super::samples;
use crate::cli::{Features, FidArgs};
use crate::coordinator::{same_data, unanimous};
use crate::failure::{Exit, Failure, relieve_by_batch, relieve_with};
use crate::output::print;
use crate::{assemble, device, images};

/// So many features take gigabytes for their covariances, whatever the batch.
const MANY_FEATURES: i64 = 8192;

/// What makes features `[B, D]` of images.
enum Extractor {
    Pixels,
    Module(PathBuf, CModule),
}

/// Tells the distance.
pub fn run(args: &FidArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    world.watch(crate::commands::PATIENCE);
    relieve_by_batch(args.batch);
    let device = device::place_as_typed(world, &args.on)?;
    let open = || {
        let settings = Settings::load(&args.data, &args.overrides)?;
        let source = assemble::open_data(&settings, args.split.into())?;
        let count = args.count.unwrap_or(source.len());
        images::check_count(source.as_ref(), count)?;
        let samples = samples::read(&args.samples, source.image(), None)?;
        Ok((source, count as usize, grey_levels(&samples.images), Extractor::open(&args.features, device)?))
    };
    let (source, count, samples, extractor) = unanimous(comm, open())?;
    same_data(comm, source.as_ref())?;
    let image = |first: usize, count| Ok(images::read(source.as_ref(), first as u64, count, device)?.x_start);
    let sample =
        |first: usize, count: usize| Ok(samples.f_narrow(0, first as i64, count as i64)?.f_to_device(device)?);
    let drawn = samples.size()[0] as usize;
    // Each rank reads the samples, and tries the extractor on one, which tells its number of features.
    let dim = unanimous(comm, extractor.features(&samples.narrow(0, 0, 1).to_device(device)))?.size()[1];
    let all = comm.gather_bytes([drawn as u64, dim as u64].map(u64::to_le_bytes).as_flattened());
    if all.iter().any(|ranks| *ranks != all[0]) {
        let message = "the ranks found different samples or features; give all of them the same files";
        return Err(Failure::usage(message).everywhere());
    }
    if dim > MANY_FEATURES {
        relieve_with(format!(
            "Give fewer features by --features FILE.pt: {dim} of them have {dim} x {dim} covariances"
        ));
    }
    let theirs = extractor.add(comm, dim, drawn, args.batch, sample)?;
    let ours = extractor.add(comm, dim, count, args.batch, image)?;
    let distance = ours.frechet_distance(&theirs)?;
    if world.rank() == 0 {
        let (split, features) = (Split::from(args.split).to_string(), args.features.to_string());
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
    fn open(features: &Features, device: Device) -> Result<Self, Failure> {
        let Features::File(path) = features else { return Ok(Self::Pixels) };
        std::fs::File::open(path).map_err(|e| Failure::file(path, e))?;
        let module = CModule::load_on_device(path, device)
            .map_err(|error| refused(path, &format!("is no TorchScript module that loads ({})", first_line(&error))))?;
        Ok(Self::Module(path.clone(), module))
    }

    fn features(&self, images: &Tensor) -> Result<Tensor, Failure> {
        let features = match self {
            Self::Pixels => images.shallow_clone(),
            Self::Module(path, module) => tch::no_grad(|| module.forward_ts(&[images])).map_err(|error| {
                let words = first_line(&error);
                match Failure::from(error) {
                    failure if failure.exit == Exit::OutOfMemory => failure,
                    _ => refused(path, &format!("does not take images {:?} ({words})", images.size())),
                }
            })?,
        };
        let features = features.f_flatten(1, -1)?;
        if features.f_isfinite()?.f_all()?.int64_value(&[]) == 0 {
            return Err(Failure::usage(format!(
                "{self} gives features that are not finite; give another, or other images"
            )));
        }
        Ok(features)
    }

    /// The moments of the `dim` features of images `0..count`, of which each rank reads its share by their first and their
    /// number.
    fn add(
        &self,
        comm: &dyn Collective,
        dim: i64,
        count: usize,
        batch: usize,
        read: impl Fn(usize, usize) -> Result<Tensor, Failure>,
    ) -> Result<FeatureMoments, Failure> {
        let ours = share(count, comm.rank(), comm.size());
        let add = || {
            let mut moments = FeatureMoments::new(dim)?;
            for first in ours.clone().step_by(batch) {
                moments.add(&self.features(&read(first, batch.min(ours.end - first))?)?)?;
            }
            Ok(moments)
        };
        let mut moments = unanimous(comm, add())?;
        moments.merge(|values| comm.all_reduce_f64(values, Reduce::Sum))?;
        Ok(moments)
    }
}

/// Samples as a file of images would hold them.
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

/// Of libtorch's own words; a trace of its calls follows.
fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn refused(path: &Path, what: &str) -> Failure {
    Failure::usage(format!(
        "{} {what}; give one that takes f32 images [B, C, H, W], saved by torch.jit.save",
        path.display()
    ))
}
