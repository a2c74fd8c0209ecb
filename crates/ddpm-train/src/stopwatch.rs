//! How long a rank computes in a step, without waiting for the others.

use std::fmt::Display;
use std::time::{Duration, Instant};

use nccl_rs::{Cuda, Error, Event, StreamHandle};
use tch::Device;
use tch_ext::compute_stream;

/// Measures the passes of a step. If the GPU's timer fails, the time is unknown, and training goes on.
pub struct Stopwatch {
    device: Option<OnDevice>,
    /// Whether the passes run on a GPU.
    is_gpu: bool,
    started: Instant,
    host: Duration,
}

/// A GPU, which computes after the host has enqueued the work, and later waits for other ranks while the host does not
/// notice. So events on its compute stream take the time: work that waits for other ranks is on that stream only after
/// the second one.
struct OnDevice {
    stream: StreamHandle,
    begin: Event,
    end: Event,
}

/// What a stopwatch has measured, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Of the passes; NaN if that is not known.
    pub compute: f64,
    /// Waiting for other ranks where the host only seems to wait for its GPU.
    pub unseen: f64,
}

impl Stopwatch {
    /// For passes on `device`.
    pub fn on(device: Device) -> Self {
        let on_gpu = match device {
            Device::Cuda(index) => OnDevice::find(index).inspect_err(unknown).ok(),
            _ => None,
        };
        Self { device: on_gpu, is_gpu: device.is_cuda(), started: Instant::now(), host: Duration::ZERO }
    }

    /// Call this before the first pass.
    pub fn start(&mut self) {
        self.record(|device| &device.begin);
        self.started = Instant::now();
    }

    /// The last pass is done or, on a GPU, enqueued. What waits for other ranks is enqueued after this.
    pub fn stop(&mut self) {
        self.record(|device| &device.end);
        self.host = self.started.elapsed();
    }

    /// Reads the time between `start` and `stop`, once the host has read a result that was enqueued after `stop`.
    /// `seen` is the time that the host has spent in communication since `start`.
    pub fn read(&mut self, seen: Duration) -> Measured {
        if !self.is_gpu {
            return Measured { compute: self.host.as_secs_f64(), unseen: 0.0 };
        }
        let elapsed = self.device.as_ref().map(|device| device.end.since(&device.begin));
        let Some(compute) = elapsed.and_then(|elapsed| self.known(elapsed)) else {
            return Measured { compute: f64::NAN, unseen: 0.0 };
        };
        let (all, compute) = (self.started.elapsed(), compute.as_secs_f64());
        Measured { compute, unseen: (all.saturating_sub(seen).as_secs_f64() - compute).max(0.0) }
    }

    fn record(&mut self, which: impl Fn(&OnDevice) -> &Event) {
        if let Some(device) = &self.device {
            let recorded = which(device).record(device.stream);
            self.known(recorded);
        }
    }

    /// What the GPU has answered. After a failure it is not asked again; libtorch meets the same failure, and ends the
    /// run.
    fn known<T>(&mut self, answer: Result<T, Error>) -> Option<T> {
        if let Err(why) = &answer {
            unknown(why);
            self.device = None;
        }
        answer.ok()
    }
}

impl OnDevice {
    fn find(index: usize) -> Result<Self, String> {
        let event = || Event::timing(Cuda::load()?, index);
        let [begin, end] = [event(), event()].map(|event| event.map_err(|error| error.to_string()));
        let stream = compute_stream(Device::Cuda(index)).map_err(|error| error.to_string())?;
        Ok(Self { stream, begin: begin?, end: end? })
    }
}

fn unknown(why: &impl Display) {
    tracing::debug!("how long the GPU computes in a step is not known: {why}");
}
