//! A trained classifier: guides sampling towards given classes, and classifies images.

use ddpm_comm::Collective;
use ddpm_diffusion::ModelError;
use ddpm_nn::Inputs;
use tch::{Kind, TchError, Tensor};

use crate::agreement::disagreement;
use crate::arithmetic::Arithmetic;
use crate::error::{Error, Failure};
use crate::finite;
use crate::learner::Learner;
use crate::model::Model;
use crate::weights::WeightChoice;

/// A classifier with its weights and the diffusion process that noised its training images.
pub struct Classifier(Model);

impl Classifier {
    /// Opens SRC, all ranks together; see [`Model::open`].
    pub fn open(
        comm: &dyn Collective,
        source: &str,
        choice: WeightChoice,
        on: impl Into<Arithmetic>,
    ) -> Result<Self, Failure> {
        Model::open_as(Learner::Classifier, comm, source, choice, on).map(Self)
    }

    /// The network, its weights, and the settings it was trained with.
    pub fn model(&self) -> &Model {
        &self.0
    }

    /// Number of classes that the classifier distinguishes.
    pub fn classes(&self) -> i64 {
        self.0.classes.unwrap_or(0)
    }

    /// Refuses to guide a model whose image shape, noise schedule or number of classes differs from the classifier's.
    pub fn check_guides(&self, model: &Model) -> Result<(), Error> {
        let refuse = |what: String| {
            let fix = "train a classifier on the model's own [data] and [diffusion]";
            Err(Error::config(format!("the classifier does not fit the model: {what}; {fix}")))
        };
        if let Some(what) = disagreement(&self.0, model) {
            return refuse(what);
        }
        match model.classes {
            Some(classes) if classes != self.classes() => {
                refuse(format!("it distinguishes {} classes, the model has {classes}", self.classes()))
            }
            _ => Ok(()),
        }
    }

    /// `scale` times the gradient of log p(y | x_t) at images `x` `[B, C, H, W]`, timesteps `t` `[B]` and classes
    /// `labels` `[B]`, with respect to the images.
    pub fn gradient(&self, x: &Tensor, t: &Tensor, labels: &Tensor, scale: f64) -> Result<Tensor, ModelError> {
        // The sampling loop runs without gradients, but this one is needed.
        tch::with_grad(|| {
            let x = x.detach().set_requires_grad(true);
            let log_p = self.log_p(&x, t)?.f_gather(1, &labels.unsqueeze(1), false)?.sum(Kind::Float);
            Ok(Tensor::f_run_backward(&[log_p], &[&x], false, false)?.remove(0) * scale)
        })
    }

    /// The most likely class `[B]` of images `x` `[B, C, H, W]` at timestep `t`; for clean images use t = 0. `first`
    /// is the index of the first of them among all images, for messages.
    pub fn classify(&self, x: &Tensor, t: usize, first: usize) -> Result<Tensor, Error> {
        let t = self.0.diffusion.full_t(t, x.size()[0]);
        let log_p = tch::no_grad(|| self.log_p(x, &t))?;
        finite::check_images(&log_p, first, &format!("probabilities of classes from {}", self.0.description))?;
        Ok(log_p.f_argmax(1, false)?)
    }

    fn log_p(&self, x: &Tensor, t: &Tensor) -> Result<Tensor, TchError> {
        let logits = self.0.network.forward(&self.0.weights, &Inputs { x, t, labels: None, dropout: None })?;
        logits.f_log_softmax(1, None)
    }
}
