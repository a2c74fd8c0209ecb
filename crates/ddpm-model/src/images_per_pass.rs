//! How many images a forward pass takes if nobody says: as many as fit into memory, by a measurement on a few.

use std::fs;

use ddpm_comm::{World, agree};
use ddpm_diffusion::{DiffusionError, ModelError};
use ddpm_telemetry::machine_mb;
use tch::{Device, Kind, Tensor};
use tch_ext::{GpuMemory, MemoryWatch};

use crate::error::{Error, Failure};
use crate::guides::Guides;
use crate::model::Model;

/// More images do not make a pass more efficient.
const MOST_ON_CPU: usize = 64;
const MOST_ON_GPU: usize = 256;

/// The share of the memory that a pass may take. The rest is for other programs, for what the allocator cannot use, and for
/// the images themselves.
const SHARE: f64 = 0.5;

/// Numbers of images in the two measured passes, from which those of more images follow.
const PROBES: [usize; 2] = [1, 3];

/// Images per forward pass of `model` and what guides it, the same number on all ranks, of which each computes `ours` images
/// at most. It depends on the size of the memory, not on what is free of it, so that the same command chooses the same
/// number each time, except where the measured need of a pass is at the edge. Where several ranks share a machine, each takes its part.
///
/// # Errors
/// A network fails on a single image.
pub fn images_per_pass(world: &World, model: &Model, guides: &Guides, ours: usize) -> Result<usize, Failure> {
    let device = model.weights.flat().device();
    let most = ours.clamp(1, if device == Device::Cpu { MOST_ON_CPU } else { MOST_ON_GPU });
    let fitting = || match memory(device, world.local_size()) {
        // One image, or memory of unknown size: there is nothing to choose by.
        None => Ok::<_, Error>(most),
        Some(_) if most == 1 => Ok(1),
        Some(bytes) => {
            let [few, more] = measured(device, |images| evaluate(model, guides, images))?;
            let of_an_image = (more - few) / (PROBES[1] - PROBES[0]) as f64;
            let fixed = few - PROBES[0] as f64 * of_an_image;
            Ok(fit(SHARE * bytes - fixed, of_an_image, most))
        }
    };
    let comm = world.collective();
    let fitting = agree::unanimous(comm.as_ref(), fitting())?;
    let all = agree::exchange(comm.as_ref(), Some(&fitting))?;
    Ok(all.into_iter().flatten().min().unwrap_or(fitting))
}

/// The largest power of two, or `most`, of images that fit into `bytes`; at least one.
fn fit(bytes: f64, of_an_image: f64, most: usize) -> usize {
    let fits = |images: usize| images as f64 * of_an_image <= bytes;
    if fits(most) {
        return most;
    }
    (0..usize::BITS).map(|bit| 1 << bit).take_while(|images| *images < most && fits(*images)).last().unwrap_or(1)
}

/// Bytes at the peak of a pass of each number of [`PROBES`]. A pass before them makes what is kept for all passes.
fn measured(device: Device, pass: impl Fn(usize) -> Result<(), ModelError>) -> Result<[f64; 2], Error> {
    let pass = |images| pass(images).map_err(|error| Error::from(DiffusionError::Model { t: 0, source: error }));
    pass(PROBES[0])?;
    if device == Device::Cpu {
        let mut watch = MemoryWatch::begin()?;
        let mut peak = |images| {
            watch.take_peak();
            pass(images)?;
            Ok::<_, Error>(watch.take_peak() as f64)
        };
        return Ok([peak(PROBES[0])?, peak(PROBES[1])?]);
    }
    // libtorch knows the peak since the process began. If loading the model took more than a pass, all of it counts.
    let peak = || Ok::<_, Error>(GpuMemory::peak(device)?.map_or(0.0, |peak| peak.allocated as f64));
    let few = peak()?;
    pass(PROBES[1])?;
    let more = peak()?;
    Ok(if more > few { [few, more] } else { [0.0, more] })
}

/// One evaluation of all networks at a step of drawing, on `images` black images.
fn evaluate(model: &Model, guides: &Guides, images: usize) -> Result<(), ModelError> {
    let device = model.weights.flat().device();
    let without_class = guides.guidance.is_some() && guides.weaker.is_none();
    let count = images as i64 * if without_class { 2 } else { 1 };
    let [channels, height, width] = model.network.image().sizes();
    let x = Tensor::f_zeros([count, channels, height, width], (Kind::Float, device))?;
    let t = Tensor::f_zeros([count], (Kind::Int64, device))?;
    let labels = guides.classes(model).map(|_| t.shallow_clone());
    let labels_of = |other: &Model| labels.as_ref().filter(|_| other.network.classes().is_some());
    tch::no_grad(|| {
        let _ = model.predict(&x, &t, labels_of(model))?;
        if let Some(weaker) = &guides.weaker {
            let _ = weaker.predict(&x, &t, labels_of(weaker))?;
        }
        if let Some((classifier, scale)) = &guides.classifier {
            let _ = classifier.gradient(&x, &t, &t, *scale)?;
        }
        Ok(())
    })
}

/// Bytes of memory for one of `ranks` ranks on a machine: of the machine, or of the container if that may use less; on a GPU,
/// of the rank's own. None if they are not known.
fn memory(device: Device, ranks: usize) -> Option<f64> {
    if device != Device::Cpu {
        return GpuMemory::total(device).map(|bytes| bytes as f64);
    }
    let of_machine = 1e6 * machine_mb("MemTotal")?;
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let of_container = limits.iter().find_map(|file| fs::read_to_string(file).ok()?.trim().parse::<f64>().ok());
    Some(of_container.map_or(of_machine, |limit| limit.min(of_machine)) / ranks.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_images_as_fit_are_taken() {
        assert_eq!(fit(100.0, 1.0, 64), 64);
        assert_eq!(fit(63.0, 1.0, 64), 32);
        assert_eq!(fit(60.0, 1.0, 10), 10, "all of a rank's images at once");
        assert_eq!(fit(9.5, 1.0, 10), 8);
        assert_eq!(fit(0.5, 1.0, 64), 1, "one image is tried in any case");
        assert_eq!(fit(-3.0, 1.0, 64), 1, "what every pass needs does not fit");
        assert_eq!(fit(5.0, 0.0, 64), 64);
    }

    #[test]
    fn this_machine_s_memory_is_shared_by_its_ranks() {
        let [whole, half] = [1, 2].map(|ranks| memory(Device::Cpu, ranks).unwrap());
        assert!((whole / half - 2.0).abs() < 1e-9 && whole > 1e8, "{whole} and {half} bytes");
    }
}
