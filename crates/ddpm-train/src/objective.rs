//! The training objective: denoising images, or classifying them. Everything else in training is the same for both.

use ddpm_config::{ModelKind, Settings};
use ddpm_diffusion::Diffusion;
use ddpm_model::Error;
use ddpm_nn::{DropoutKeys, Inputs, Network, Weights};
use tch::{Kind, TchError, Tensor};

/// One of the two objectives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// The objective of a diffusion model, as `[diffusion]` configures it.
    Denoise {
        /// If labels are dropped: the row of the class table that means "no class", and the probability of dropping a
        /// label.
        label_dropout: Option<(i64, f64)>,
    },
    /// Cross-entropy of the class given x_t (Dhariwal & Nichol 2021, section 4).
    Classify,
}

/// A noised micro-batch on its device.
pub struct Noised<'a> {
    /// The class of each image, as the network sees it, i64 `[B]`, if the objective [takes](Objective::takes_labels) it.
    pub labels: Option<&'a Tensor>,
    /// f32 `[B, C, H, W]` in `[-1, 1]`.
    pub x_start: Tensor,
    /// The noise, of the shape of `x_start`.
    pub noise: &'a Tensor,
    /// Timesteps in `0..T`, i64 `[B]`.
    pub t: &'a Tensor,
    /// `x_start` noised to `t`, of the same shape.
    pub x_t: Tensor,
    /// Keys of the dropout masks, if the network uses dropout.
    pub dropout: Option<&'a DropoutKeys>,
}

/// The per-sample terms of a micro-batch, each `[B]`.
pub struct Terms {
    /// The loss, which is backpropagated.
    pub loss: Tensor,
    /// Squared error of the prediction.
    pub mse: Option<Tensor>,
    /// The sample's term of the variational bound, in bits per dimension.
    pub vb: Option<Tensor>,
    /// 1 if the most likely class is the correct one, else 0.
    pub correct: Option<Tensor>,
}

impl Terms {
    /// The number of terms.
    pub const ROWS: i64 = 4;

    /// The loss of the micro-batch: the mean of each sample's loss times its weight; `weights` is f32 `[B]`.
    pub fn weighted_mean(&self, weights: &Tensor) -> Result<Tensor, TchError> {
        self.loss.f_mul(weights)?.f_mean(Kind::Float)
    }

    /// The rows loss, mse, vb and correct as `[ROWS, B]`, detached from the graph; NaN where the objective has no such
    /// term.
    pub fn detached(&self) -> Result<Tensor, TchError> {
        let absent = self.loss.f_full_like(f64::NAN)?;
        let row = |term: &Option<Tensor>| term.as_ref().unwrap_or(&absent).detach();
        Tensor::f_stack(&[self.loss.detach(), row(&self.mse), row(&self.vb), row(&self.correct)], 0)
    }
}

impl Objective {
    /// The objective that `settings` select.
    pub fn of(settings: &Settings) -> Self {
        match settings.model.kind {
            ModelKind::Classifier => Self::Classify,
            ModelKind::Unet | ModelKind::Small => Self::Denoise {
                label_dropout: settings.null_class().map(|null| (null, settings.diffusion.label_dropout)),
            },
        }
    }

    /// Whether this is the objective of a diffusion model, which has a variational bound and can be sampled from.
    pub fn denoises(self) -> bool {
        matches!(self, Self::Denoise { .. })
    }

    /// Whether the terms depend on the images' classes.
    pub fn takes_labels(self, network: &Network) -> bool {
        self == Self::Classify || network.classes().is_some()
    }

    /// Computes the terms of a micro-batch with `network` and `weights`.
    pub fn terms(
        self,
        network: &Network,
        weights: &Weights,
        diffusion: &Diffusion,
        noised: &Noised,
    ) -> Result<Terms, Error> {
        let Noised { x_start, noise, t, x_t, .. } = noised;
        let predict = |labels: Option<&Tensor>| {
            let model_t = diffusion.model_timesteps(t);
            network.forward(weights, &Inputs { x: x_t, t: &model_t, labels, dropout: noised.dropout })
        };
        match self {
            Self::Denoise { .. } => {
                let terms = diffusion.training_terms(&predict(noised.labels)?, x_start, x_t, t, noise)?;
                Ok(Terms { loss: terms.loss, mse: Some(terms.mse), vb: Some(terms.vb), correct: None })
            }
            Self::Classify => {
                let (logits, labels) = (predict(None)?, noised.labels.expect("it takes labels"));
                let log_p = logits.f_log_softmax(1, None)?;
                let loss = log_p.f_gather(1, &labels.unsqueeze(1), false)?.f_squeeze_dim(1)?.f_neg()?;
                let correct = logits.f_argmax(1, false)?.f_eq_tensor(labels)?.f_to_kind(loss.kind())?;
                Ok(Terms { loss, mse: None, vb: None, correct: Some(correct) })
            }
        }
    }
}
