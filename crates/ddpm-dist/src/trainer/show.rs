//! What a step lets others see: its line in the metrics, and now and then samples and pictures of what was learned.

use std::time::Instant;

use ddpm_comm::Reduce;

use super::clock::timed;
use super::report::Means;
use super::step::{SampleTerms, Task};
use super::{Trainer, Update, monitor};
use crate::failure::{Exit, Failure};
use crate::images;
use crate::pictures;
use crate::process_charts::AtWork;
use crate::telemetry::{Accuracy, Metrics, rss_mb};

impl Trainer {
    /// Writes the metrics of the step just done, from the terms of its whole batch; all ranks together.
    pub(super) fn log(&mut self, terms: &[SampleTerms], update: &Update) {
        let mut corrupt = [self.loader.skipped() as f64];
        let sum = || self.comm.all_reduce_f64(&mut corrupt, Reduce::Sum);
        timed(c"sum corrupt", &mut self.clock.comm_wait, sum);
        let timesteps = self.task.diffusion.timesteps();
        let means = Means::of(terms, timesteps);
        let clock = self.take_clock();
        let Some(monitor) = &mut self.monitor else { return };
        let images = self.state.step * self.settings.train.global_batch as u64;
        let [loss_q0, loss_q1, loss_q2, loss_q3] = means.loss_quarters;
        let [vlb_q0, vlb_q1, vlb_q2, vlb_q3] = means.vb_quarters.map(|vb| vb * timesteps as f64);
        let [vlb_smoothed_q0, vlb_smoothed_q1, vlb_smoothed_q2, vlb_smoothed_q3] = self.state.bound.quarters();
        let [accuracy_q0, accuracy_q1, accuracy_q2, accuracy_q3] = means.accuracy_quarters;
        monitor.log(&Metrics {
            step: self.state.step,
            images,
            epoch: self.order.epochs_passed(images),
            loss: means.loss,
            mse: means.mse,
            vb: means.vb,
            vlb: means.vb * timesteps as f64,
            vlb_q0,
            vlb_q1,
            vlb_q2,
            vlb_q3,
            vlb_smoothed: self.state.bound.total(),
            vlb_smoothed_q0,
            vlb_smoothed_q1,
            vlb_smoothed_q2,
            vlb_smoothed_q3,
            loss_q0,
            loss_q1,
            loss_q2,
            loss_q3,
            accuracy: means.accuracy.map(|accuracy| Accuracy {
                accuracy,
                accuracy_q0,
                accuracy_q1,
                accuracy_q2,
                accuracy_q3,
            }),
            grad_norm: update.grad_norm,
            grad_variance: self.state.noise.variance(),
            grad_noise_scale: self.state.noise.scale(),
            lr: update.lr,
            images_per_s: clock.images_per_s(),
            data_wait_s: clock.data_wait.as_secs_f64(),
            comm_wait_s: clock.comm_wait.as_secs_f64(),
            ckpt_stall_s: clock.checkpoint_stall.as_secs_f64(),
            rss_mb: rss_mb(),
            skipped: self.state.skipped,
            corrupt: corrupt[0] as u64,
            ckpt_missed: self.saver.missed(),
        });
    }

    /// Draws the grid of samples, all ranks together, and the pictures that go with it.
    pub(super) fn draw_samples(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        let weights = self.state.preview_weights(&self.task.network)?;
        let name = format!("this run at step {}", self.state.step);
        let drawn = match monitor::draw_samples(&self.settings, self.comm.as_ref(), &self.task, &weights, &name) {
            Ok(drawn) => Some(drawn),
            // Watching never stops training. If these weights are beyond help, their gradient says so.
            Err(failure) if failure.exit == Exit::Diverged => {
                tracing::warn!("no grid of samples: {failure}");
                None
            }
            Err(failure) => return Err(failure),
        };
        if let Some(monitor) = &mut self.monitor {
            if let Some(drawn) = &drawn {
                monitor.show_samples(self.state.step, drawn);
            }
            let count = pictures::STRIP_IMAGES.min(self.source.len() as usize);
            match images::read(self.source.as_ref(), 0, count, self.task.diffusion.device()) {
                Ok(images) => {
                    let Task { network, diffusion: process, .. } = &self.task;
                    let model = AtWork { network, weights: &weights, process, images: &images };
                    monitor.show_learning(self.state.step, &self.state.bound, &model);
                }
                Err(failure) => tracing::warn!("no picture of what was learned: {failure}"),
            }
        }
        self.clock.drawing += started.elapsed();
        Ok(())
    }
}
