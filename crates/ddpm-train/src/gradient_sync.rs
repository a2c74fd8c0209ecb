//! Groups libtorch's gradients into buckets and averages them over the ranks while backward is still running.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ddpm_comm::{Averager, Buffer, Collective, Memory, abort};
use ddpm_config::CommSettings;
use ddpm_model::{Error, Failure};
use ddpm_nn::{Gradients, Layout};
use tch::{Device, Kind, Tensor};
use tch_ext::{Grouped, in_range};

use crate::clock::{Lap, timed};
use crate::program::Program;

/// What the ranks exchange once the gradients are averaged: L2 norms, and their times.
pub struct Norms {
    /// The norm of each rank's own gradient, by rank.
    pub per_rank: Vec<f64>,
    /// The norm of the average, as computed by rank 0. All ranks use this value: with another processor or number of
    /// threads the last bits could differ, and the ranks' weights would diverge from then on.
    pub average: f64,
    /// How each rank spent its last step, by rank; empty if the ranks passed none.
    pub laps: Vec<Lap>,
}

/// The gradients of a run, averaged once per step.
pub struct GradientSync {
    comm: Arc<dyn Collective>,
    averager: Averager,
    flat: Tensor,
    /// Squared norm of this rank's share of the gradient, over the buckets averaged in host memory.
    squares: f64,
    norms: BucketNorms,
    overlaps: bool,
    /// Backward adds to a bucket as a whole.
    _grouped: Grouped,
}

/// For each bucket that is averaged in GPU memory, keyed by the index of its first element: the norm of this rank's
/// share, still on the GPU.
type BucketNorms = Arc<Mutex<BTreeMap<usize, Tensor>>>;

impl GradientSync {
    /// Sets up averaging of `gradients`, which are in `memory`, in buckets of `comm.bucket_mb` MiB. A
    /// bucket that cannot be averaged ends the run as `program` ends failures.
    pub fn new(
        comm: &Arc<dyn Collective>,
        memory: Memory,
        settings: &CommSettings,
        layout: &Layout,
        gradients: &Gradients,
        program: &Program,
    ) -> Result<Self, Error> {
        let Program { word, exit_code, .. } = *program;
        let lens: Vec<usize> = layout.entries().iter().map(|entry| entry.len() as usize).collect();
        let bucket_len = settings.bucket_bytes() / size_of::<f32>();
        let [flat, lent] = [(); 2].map(|()| gradients.flat().shallow_clone());
        let norms = BucketNorms::default();
        let (ours, stays) = (Arc::clone(&norms), comm.reaches_gpus());
        let lend = move |range: Range<usize>, average: &mut dyn FnMut(Buffer<'_>)| {
            let mut bucket = lent.narrow(0, range.start as i64, range.len() as i64);
            let lend = || match memory {
                Memory::Host => tch_ext::with_f32_mut(&mut bucket, |values| average(Buffer::Host(values))),
                Memory::Device(_) if stays => {
                    tch_ext::make_current(bucket.device())?;
                    // Enqueued before the collective, which waits for it on the stream.
                    let norm = bucket.f_norm()?;
                    ours.lock().unwrap_or_else(PoisonError::into_inner).insert(range.start, norm);
                    tch_ext::with_f32_on_gpu(&mut bucket, |values| average(Buffer::Device(values)))
                }
                Memory::Device(_) => {
                    tch_ext::make_current(bucket.device())?;
                    let mut copy = bucket.f_to_device_(Device::Cpu, Kind::Float, false, true)?;
                    tch_ext::with_f32_mut(&mut copy, |values| average(Buffer::Host(values)))?;
                    bucket.f_copy_(&copy)
                }
            };
            // The other ranks are in the collective of this bucket, or will be, so there is no way to report the
            // failure to them.
            in_range(c"gradient bucket", lend).unwrap_or_else(|error| {
                let error = Error::from(error);
                abort(exit_code(error.kind()), &format!("error: {}", word(&error)))
            });
        };
        let averager = Averager::new(Arc::clone(comm), &lens, bucket_len, lend);
        // Without overlap, all parameters become ready together when backward is over. One rank has nothing to overlap.
        let (ready, overlaps) = (averager.ready(), settings.overlap && comm.size() > 1);
        let grouped = gradients.sinks().grouped(averager.bucket_of(), move |param| {
            if overlaps {
                ready(param);
            }
        })?;
        Ok(Self { comm: Arc::clone(comm), averager, flat, squares: 0.0, norms, overlaps, _grouped: grouped })
    }

    /// Number of buckets.
    pub fn buckets(&self) -> usize {
        self.averager.buckets()
    }

    /// Number of ranks. The loss is divided by it before backward, so that each rank's gradient is its share of the
    /// average.
    pub fn ranks(&self) -> usize {
        self.comm.size()
    }

    /// Whether gradients are averaged while the last backward pass of a step computes others.
    pub fn overlaps(&self) -> bool {
        self.overlaps
    }

    /// Begins averaging for a step. Call this before the backward pass of the last micro-batch, when the gradients of
    /// the others are complete.
    pub fn begin(&mut self) {
        self.averager.begin();
    }

    /// Waits until the gradients are those of the global batch or, on a GPU, until all work for that is enqueued. Call
    /// this when those of the last micro-batch are complete.
    pub fn finish(&mut self) {
        self.squares = self.averager.finish();
        tracing::debug!("{} of {} buckets were ready during backward", self.averager.early(), self.averager.buckets());
    }

    /// Gathers the norms of all ranks, and how each spent its last step, which all ranks pass or none. Call this after
    /// `finish`, once per step; the time spent is added to `waiting`.
    pub fn norms(&self, lap: Option<Lap>, waiting: &mut Duration) -> Result<Norms, Failure> {
        let times = lap.map(Lap::into_array);
        let ours = self.own_norms()?.into_iter().chain(times.into_iter().flatten());
        let ours: Vec<u8> = ours.flat_map(f64::to_le_bytes).collect();
        let all = timed(c"gather norms", waiting, || self.comm.gather_bytes(&ours));
        let number = |rank: &[u8], index: usize| {
            let bytes = rank.get(size_of::<f64>() * index..).and_then(|bytes| bytes.first_chunk());
            bytes.map_or(f64::NAN, |bytes| f64::from_le_bytes(*bytes))
        };
        let lap = |rank: &Vec<u8>| Lap::from_array([2, 3, 4, 5].map(|index| number(rank, index)));
        Ok(Norms {
            per_rank: all.iter().map(|rank| number(rank, 0)).collect(),
            average: number(&all[0], 1),
            laps: if times.is_some() { all.iter().map(lap).collect() } else { Vec::new() },
        })
    }

    /// The norm of this rank's own gradient (of its loss before the division by the number of ranks), and that of the
    /// average.
    fn own_norms(&self) -> Result<[f64; 2], Error> {
        let of_buckets = std::mem::take(&mut *self.norms.lock().unwrap_or_else(PoisonError::into_inner));
        // Stacked into one tensor, so that the host waits for the GPU only once.
        let norms: Vec<Tensor> = [self.flat.norm()].into_iter().chain(of_buckets.into_values()).collect();
        let norms: Vec<f64> = Vec::try_from(&Tensor::f_stack(&norms, 0)?.to_kind(Kind::Double))?;
        let squares = self.squares + norms[1..].iter().map(|norm| norm * norm).sum::<f64>();
        Ok([squares.sqrt() * self.ranks() as f64, norms[0]])
    }
}
