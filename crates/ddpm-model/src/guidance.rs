//! Guides each prediction of a model away from that of a weaker one: the same network without a class, or another model.

use ddpm_diffusion::{Diffusion, Direction, ModelError, NoiseInterval};
use tch::{TchError, Tensor};

use crate::agreement::disagreement;
use crate::error::{Error, Remedy};
use crate::model::Model;

/// How strongly to guide, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuidanceOptions {
    /// s in weaker + s (prediction - weaker): 1 is unguided, more goes further away from the weaker prediction.
    pub scale: f64,
    /// The noise levels at which to guide. At the others the scale is 1, and the weaker prediction is not computed.
    pub interval: NoiseInterval,
    /// phi in [0, 1]: how far the guided prediction's standard deviation is moved back to the unguided one's.
    pub rescale: f64,
}

/// Guidance of one model.
#[derive(Clone, Copy)]
pub(crate) struct Guidance<'a> {
    weaker: Weaker<'a>,
    options: GuidanceOptions,
}

/// Where the weaker prediction comes from.
#[derive(Clone, Copy)]
enum Weaker<'a> {
    /// The model's own network, given this row of the class table, which means "no class": classifier-free guidance.
    NullClass(i64),
    /// This model, given the same class if it knows classes: autoguidance (Karras et al. 2024).
    Model(&'a Model),
}

impl<'a> Guidance<'a> {
    /// Guidance of `model` by `guide`, or by its own predictions without a class if there is none. `process` is the
    /// model's own, respaced to the timesteps at which the network will be evaluated. `None` at scale 1, which is the
    /// plain prediction.
    ///
    /// # Errors
    /// The guide does not fit the model, the model has no row for "no class", or the interval contains no timestep.
    pub(crate) fn of(
        model: &Model,
        process: &Diffusion,
        guide: Option<&'a Model>,
        options: GuidanceOptions,
    ) -> Result<Option<Self>, Error> {
        let weaker = match (guide, model.null_class) {
            (Some(guide), _) => {
                check_guide(guide, model)?;
                Weaker::Model(guide)
            }
            (None, Some(null)) => Weaker::NullClass(null),
            (None, None) => {
                let message = "this model cannot be guided: it was trained without diffusion.label_dropout";
                return Err(Error::config(message).or(Remedy::GuideByModel).or(Remedy::LeaveGuidanceOut));
            }
        };
        let NoiseInterval { low, high } = options.interval;
        if !(0..process.timesteps()).any(|index| options.interval.contains(process.sigma(index))) {
            return Err(Error::config(format!(
                "no timestep has a noise level above {low} and up to {high}: those of this process go from {:.4} to {:.4}; \
                 give an interval that contains some of them",
                process.sigma(0),
                process.sigma(process.timesteps() - 1),
            )));
        }
        Ok((options.scale != 1.0).then_some(Self { weaker, options }))
    }

    /// Where DDIM's direction leads back from the clipped image: where guided predictions do not lie between those of the
    /// two networks.
    pub(crate) fn direction(&self) -> Direction {
        let interpolates = (0.0..=1.0).contains(&self.options.scale) && self.options.rescale == 0.0;
        if interpolates { Direction::FromModel } else { Direction::FromXStart(self.options.interval) }
    }

    /// The guidance in a phrase, for logs and reports.
    pub(crate) fn describe(&self) -> String {
        let GuidanceOptions { scale, interval: NoiseInterval { low, high }, rescale } = self.options;
        let weaker = match self.weaker {
            Weaker::NullClass(_) => "no class",
            Weaker::Model(model) => &model.description,
        };
        let within = if self.options.interval == NoiseInterval::ALL {
            String::new()
        } else {
            format!(" where sigma is in ({low}, {high}]")
        };
        let rescaled = if rescale == 0.0 { String::new() } else { format!(", rescaled by {rescale}") };
        format!("scale {scale} away from {weaker}{within}{rescaled}")
    }

    /// The guided prediction at images `x` `[B, C, H, W]` and original timesteps `t` `[B]`, which are all the same.
    /// `labels` `[B]` are the images' classes, if there are any; `own` is the model's network as a function of all three.
    /// Its predictions with and without a class come from one pass.
    ///
    /// # Errors
    /// A network fails.
    pub(crate) fn predict(
        &self,
        process: &Diffusion,
        (x, t): (&Tensor, &Tensor),
        labels: Option<&Tensor>,
        own: impl Fn(&Tensor, &Tensor, Option<&Tensor>) -> Result<Tensor, TchError>,
    ) -> Result<Tensor, ModelError> {
        if !self.acts_at(process, t) {
            return Ok(own(x, t, labels)?);
        }
        let (output, weaker) = match self.weaker {
            Weaker::NullClass(null) => {
                let twice = |half: &Tensor| Tensor::f_cat(&[half, half], 0);
                let with_and_without = |labels: &Tensor| Tensor::f_cat(&[labels, &labels.f_full_like(null)?], 0);
                let both = own(&twice(x)?, &twice(t)?, labels.map(with_and_without).transpose()?.as_ref())?;
                let count = x.size()[0];
                (both.f_narrow(0, 0, count)?, both.f_narrow(0, count, count)?)
            }
            Weaker::Model(guide) => {
                let weaker = guide.predict(x, t, labels.filter(|_| guide.classes.is_some()))?;
                (own(x, t, labels)?, guide.diffusion.prediction_as(process.spec().prediction, &weaker, x, t)?)
            }
        };
        Ok(process.guide(&output, &weaker, self.options.scale, self.options.rescale)?)
    }

    fn acts_at(&self, process: &Diffusion, t: &Tensor) -> bool {
        // Reading t makes the CPU wait for the GPU.
        if self.options.interval == NoiseInterval::ALL {
            return true;
        }
        let t = t.int64_value(&[0]);
        let index = process.timestep_map.iter().position(|original| *original == t);
        index.is_some_and(|index| self.options.interval.contains(process.sigma(index)))
    }
}

/// Refuses to guide a model by one of other images, another noise schedule, or other classes.
fn check_guide(guide: &Model, model: &Model) -> Result<(), Error> {
    let classes = |count: Option<i64>| count.map_or("no classes".into(), |count| format!("{count} classes"));
    let what = disagreement(guide, model).or_else(|| {
        let fits = guide.classes.is_none() || guide.classes == model.classes;
        (!fits)
            .then(|| format!("it was trained on {}, the model on {}", classes(guide.classes), classes(model.classes)))
    });
    match what {
        None => Ok(()),
        Some(what) => Err(Error::config(format!(
            "the guide does not fit the model: {what}; guide by a model of the same [data] and noise schedule"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ddpm_diffusion::{BetaSchedule, DiffusionSpec, Loss, Prediction, Variance, Weighting, betas};
    use tch::{Device, Kind};

    use super::*;

    /// How often the weaker prediction is computed at each timestep of a process respaced to t = 0, 30, 60 and 99.
    fn evaluations(interval: NoiseInterval) -> Vec<usize> {
        let spec = DiffusionSpec {
            prediction: Prediction::V,
            variance: Variance::FixedSmall,
            loss: Loss::Simple,
            weighting: Weighting::None,
        };
        let schedule = BetaSchedule::ZeroTerminalSnr(Box::new(BetaSchedule::Cosine));
        let whole = Diffusion::new(betas(&schedule, 100).unwrap(), spec, Device::Cpu).unwrap();
        let process = whole.respaced(&[0, 30, 60, 99]).unwrap();
        let options = GuidanceOptions { scale: 2.0, interval, rescale: 0.0 };
        let guidance = Guidance { weaker: Weaker::NullClass(7), options };
        let x = Tensor::ones([2, 1, 2, 2], (Kind::Float, Device::Cpu));
        let labels = Tensor::from_slice(&[1i64, 2]);
        let mut counts = Vec::new();
        for index in 0..4 {
            let t = process.model_timesteps(&process.full_t(index, 2));
            let images = Cell::new(0);
            // 0 without a class.
            let own = |x: &Tensor, _: &Tensor, labels: Option<&Tensor>| {
                images.set(images.get() + x.size()[0]);
                Ok(x * labels.unwrap().ne(7).to_kind(Kind::Float).view([-1, 1, 1, 1]))
            };
            let guided = guidance.predict(&process, (&x, &t), Some(&labels), own).unwrap();
            let weaker = images.get() / 2 - 1;
            assert_eq!(guided, &x * (1.0 + weaker as f64));
            counts.push(weaker as usize);
        }
        counts
    }

    #[test]
    fn the_weaker_prediction_is_computed_within_the_interval_only() {
        // tan(pi/2 (t + 1)/100) is about the noise level of the cosine schedule: 0.02, 0.5, 1.4, infinite.
        assert_eq!(evaluations(NoiseInterval::ALL), [1, 1, 1, 1]);
        assert_eq!(evaluations(NoiseInterval { low: 0.3, high: f64::INFINITY }), [0, 1, 1, 1]);
        assert_eq!(evaluations(NoiseInterval { low: 0.3, high: 1e9 }), [0, 1, 1, 0]);
        assert_eq!(evaluations(NoiseInterval { low: 0.0, high: 0.3 }), [1, 0, 0, 0]);
    }
}
