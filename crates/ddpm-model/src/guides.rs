//! What guides the images of a model: a weaker prediction, a classifier, or both.

use ddpm_diffusion::{Diffusion, Direction, NoiseInterval};

use crate::classifier::Classifier;
use crate::error::Error;
use crate::guidance::{Guidance, GuidanceOptions};
use crate::model::Model;

/// The opened models that guide another one, and how strongly.
#[derive(Default)]
pub struct Guides {
    /// Guidance away from a weaker prediction.
    pub guidance: Option<GuidanceOptions>,
    /// The model that makes the weaker prediction; without one, the guided model itself does, without a class.
    pub weaker: Option<Model>,
    /// A classifier, and the scale of its gradient.
    pub classifier: Option<(Classifier, f64)>,
}

/// How each step of drawing is guided.
#[derive(Clone, Copy, Default)]
pub struct Guided<'a> {
    /// Guidance away from a weaker prediction.
    pub(crate) guidance: Option<Guidance<'a>>,
    /// A classifier that guides each image towards its class, and the scale of its gradient.
    pub(crate) classifier: Option<(&'a Classifier, f64)>,
}

impl Guides {
    /// Number of classes that images of `model` can have: its own, or else the classifier's.
    pub fn classes(&self, model: &Model) -> Option<i64> {
        model.classes.or(self.classifier.as_ref().map(|(classifier, _)| classifier.classes()))
    }

    /// The guidance of `model`, whose own process, respaced to the timesteps at which the network will be evaluated, is
    /// `process`. Scales that change nothing are no guidance.
    ///
    /// # Errors
    /// A guide does not fit the model, or the model cannot be guided like this.
    pub fn of(&self, model: &Model, process: &Diffusion) -> Result<Guided<'_>, Error> {
        let guidance = match self.guidance {
            Some(options) => Guidance::of(model, process, self.weaker.as_ref(), options)?,
            None => None,
        };
        if let Some((classifier, _)) = &self.classifier {
            classifier.check_guides(model)?;
        }
        let classifier = self.classifier.as_ref().filter(|(_, scale)| *scale != 0.0);
        Ok(Guided { guidance, classifier: classifier.map(|(classifier, scale)| (classifier, *scale)) })
    }
}

impl Guided<'_> {
    /// Which eps gives DDIM its direction after the predicted image was clipped.
    ///
    /// The network's own, as long as the prediction is one of the network's or lies between two of them, and so at every
    /// noise level at which nothing is guided. Stronger guidance, and that of a classifier, takes the predicted image far
    /// out of [-1, 1]; once it is clipped, the guided eps is no longer consistent with it, and following that eps destroys
    /// the image.
    pub fn direction(&self) -> Direction {
        match &self.guidance {
            _ if self.classifier.is_some() => Direction::FromXStart(NoiseInterval::ALL),
            Some(guidance) => guidance.direction(),
            None => Direction::FromModel,
        }
    }

    /// The guidance in a phrase, for logs and reports; `None` if there is none.
    pub fn describe(&self) -> Option<String> {
        let guidance = self.guidance.as_ref().map(Guidance::describe);
        let towards = |(by, scale): (&Classifier, f64)| format!("scale {scale} by {}", by.model().description);
        let phrases: Vec<String> = guidance.into_iter().chain(self.classifier.map(towards)).collect();
        (!phrases.is_empty()).then(|| phrases.join("; "))
    }
}
