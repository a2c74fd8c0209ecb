//! What is learned: to denoise images, or to classify them. Everything else in training is the same for both.

use ddpm_config::{ModelKind, Settings};
use ddpm_diffusion::{Diffusion, Draw, Stream, uniform};
use ddpm_model::Error;
use ddpm_model::images::upload;
use ddpm_nn::{DropoutKeys, Inputs, Network, Weights};
use tch::{Kind, TchError, Tensor};

/// One of the two objectives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// That of the diffusion model, as `[diffusion]` describes it.
    Denoise {
        /// Row of the class table that means "no class", where labels are dropped, and how often they are.
        label_dropout: Option<(i64, f64)>,
    },
    /// Cross-entropy of the class given x_t (Dhariwal & Nichol 2021, section 4).
    Classify,
}

/// A micro-batch on its device, noised.
pub struct Noised<'a> {
    /// Each sample's index in the run.
    pub positions: &'a [u64],
    /// The classes of the data.
    pub labels: &'a [i64],
    /// f32 `[B, C, H, W]` in `[-1, 1]`.
    pub x_start: Tensor,
    /// Of the same shape.
    pub noise: Tensor,
    /// i64 `[B]`.
    pub t: Tensor,
    /// x_start, noised to t.
    pub x_t: Tensor,
    /// Keys of the dropout masks, where the network drops activations.
    pub dropout: Option<DropoutKeys>,
}

/// What each sample of a micro-batch contributes, `[B]` each.
pub struct Terms {
    /// The loss, which goes backward.
    pub loss: Tensor,
    /// Squared error of the prediction.
    pub mse: Option<Tensor>,
    /// Its term of the bound.
    pub vb: Option<Tensor>,
    /// 1 where the likeliest class is the right one, else 0.
    pub correct: Option<Tensor>,
}

impl Terms {
    /// The loss of the micro-batch: the mean of the samples' losses by the weights of their draws.
    pub fn weighted_mean(&self, draws: &[Draw]) -> Result<Tensor, TchError> {
        let weights: Vec<f32> = draws.iter().map(|draw| draw.weight as f32).collect();
        let weights = upload(&Tensor::f_from_slice(&weights)?, self.loss.device())?;
        self.loss.f_mul(&weights)?.f_mean(Kind::Float)
    }

    /// Rows loss, mse, vb, correct, `[4, B]`, without their graph; NaN where the objective has no such term.
    pub fn detached(&self) -> Result<Tensor, TchError> {
        let absent = self.loss.f_full_like(f64::NAN)?;
        let row = |term: &Option<Tensor>| term.as_ref().unwrap_or(&absent).detach();
        Tensor::f_stack(&[self.loss.detach(), row(&self.mse), row(&self.vb), row(&self.correct)], 0)
    }
}

impl Objective {
    /// The objective that `settings` set.
    pub fn of(settings: &Settings) -> Self {
        match settings.model.kind {
            ModelKind::Classifier => Self::Classify,
            ModelKind::Unet | ModelKind::Small => Self::Denoise {
                label_dropout: settings.null_class().map(|null| (null, settings.diffusion.label_dropout)),
            },
        }
    }

    /// Whether it is the diffusion model's, of which images can be drawn and which has a variational bound.
    pub fn denoises(self) -> bool {
        matches!(self, Self::Denoise { .. })
    }

    /// The terms of a micro-batch under `network` with the numbers `weights`; `seed` is the key of all randomness.
    pub fn terms(
        self,
        network: &Network,
        weights: &Weights,
        diffusion: &Diffusion,
        seed: u64,
        noised: &Noised,
    ) -> Result<Terms, Error> {
        let Noised { x_start, noise, t, x_t, .. } = noised;
        let predict = |labels: Option<&Tensor>| {
            let model_t = diffusion.model_timesteps(t);
            network.forward(weights, &Inputs { x: x_t, t: &model_t, labels, dropout: noised.dropout.as_ref() })
        };
        let labels = || upload(&Tensor::f_from_slice(noised.labels)?, x_t.device());
        match self {
            Self::Denoise { label_dropout } => {
                let seen = network.classes().map(|_| match label_dropout {
                    Some(dropout) => upload(&drop_labels(seed, noised, dropout), x_t.device()),
                    None => labels(),
                });
                let terms = diffusion.training_terms(&predict(seen.transpose()?.as_ref())?, x_start, x_t, t, noise)?;
                Ok(Terms { loss: terms.loss, mse: Some(terms.mse), vb: Some(terms.vb), correct: None })
            }
            Self::Classify => {
                let (logits, labels) = (predict(None)?, labels()?);
                let log_p = logits.f_log_softmax(1, None)?;
                let loss = log_p.f_gather(1, &labels.unsqueeze(1), false)?.f_squeeze_dim(1)?.f_neg()?;
                let correct = logits.f_argmax(1, false)?.f_eq_tensor(&labels)?.f_to_kind(loss.kind())?;
                Ok(Terms { loss, mse: None, vb: None, correct: Some(correct) })
            }
        }
    }
}

/// The labels, some of them replaced by `null` with probability `rate`.
fn drop_labels(seed: u64, noised: &Noised, (null, rate): (i64, f64)) -> Tensor {
    let keep_or_drop = |(&label, &position): (&i64, &u64)| {
        if uniform(seed, Stream::LabelDropout, position) < rate { null } else { label }
    };
    Tensor::from_slice(&noised.labels.iter().zip(noised.positions).map(keep_or_drop).collect::<Vec<_>>())
}
