//! From libtorch's gradients to buckets that are averaged over the ranks while backward goes on.

use std::sync::Arc;

use ddpm_comm::{Averager, Collective};
use ddpm_config::CommSettings;
use ddpm_nn::{Gradients, Layout, Weights};
use tch_ext::{GradHooks, in_range};

use crate::failure::Failure;

/// The gradients of a run, averaged once per step.
pub struct GradientAverage {
    averager: Averager,
    /// With `comm.overlap`; without, all parameters are ready at once when backward is over.
    _hooks: Option<GradHooks>,
}

impl GradientAverage {
    /// For the gradients of `weights`, in buckets of `comm.bucket_mb`.
    pub fn new(
        comm: &Arc<dyn Collective>,
        settings: &CommSettings,
        layout: &Layout,
        weights: &Weights,
        gradients: &Gradients,
    ) -> Result<Self, Failure> {
        let lens: Vec<usize> = layout.entries().iter().map(|entry| entry.len() as usize).collect();
        let bucket_len = (settings.bucket_mb * f64::from(1 << 20)) as usize / size_of::<f32>();
        let flat = gradients.flat().shallow_clone();
        let averager = Averager::new(Arc::clone(comm), &lens, bucket_len, move |range, average| {
            let mut values = flat.narrow(0, range.start as i64, range.len() as i64);
            in_range(c"gradient bucket", || tch_ext::with_f32_mut(&mut values, average))
                .expect("gradients are f32 on the CPU, and lent bucket by bucket");
        });
        let hooks = settings.overlap.then(|| GradHooks::attach(weights.views(), averager.ready())).transpose()?;
        Ok(Self { averager, _hooks: hooks })
    }

    /// How many buckets there are.
    pub fn buckets(&self) -> usize {
        self.averager.buckets()
    }

    /// Begins a step's average; to be called before the last micro-batch goes backward.
    pub fn begin(&mut self) {
        self.averager.begin();
    }

    /// Waits until the gradients are those of the global batch; gives the norm of this rank's own.
    pub fn finish(&mut self) -> f64 {
        let norm = self.averager.finish().sqrt();
        tracing::debug!("{} of {} buckets were ready during backward", self.averager.early(), self.averager.buckets());
        norm
    }
}
