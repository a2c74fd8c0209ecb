//! How the images of a model are guided, for every command that draws.

use clap::Args;
use ddpm_comm::Collective;
use ddpm_model::{Arithmetic, Classifier, Failure, GuidanceOptions, Guides, Model, NoiseInterval, WeightChoice};

use super::numbers::{finite, from_0_to_1, noise_interval, not_negative};
use super::paths::address;

/// What guides the images, and how strongly.
#[derive(Debug, Args)]
pub struct GuidanceArgs {
    /// Scale of guidance away from the model's predictions without a class, or from a guide's: 0 is that prediction, 1 is
    /// the model's own, and more exaggerates the difference.
    #[arg(long, value_name = "W", value_parser = finite)]
    pub guidance: Option<f64>,
    /// Guide away from this weaker model, such as a smaller one or an earlier checkpoint (autoguidance), instead of from
    /// predictions without a class.
    #[arg(long, value_name = "SRC", requires = "guidance", value_parser = address)]
    pub guide_model: Option<String>,
    /// Guide only at noise levels sigma = sqrt(1/alphas_cumprod - 1) above LOW and up to HIGH, which may be `inf`.
    #[arg(long, value_name = "LOW,HIGH", requires = "guidance", value_parser = noise_interval)]
    pub guidance_interval: Option<NoiseInterval>,
    /// Move each guided prediction's standard deviation back towards the unguided one's, by a share from 0 to 1.
    #[arg(long, default_value = "0", value_name = "PHI", requires = "guidance", value_parser = from_0_to_1)]
    pub guidance_rescale: f64,
    /// The run of a classifier that guides the images to their class, trained by `train-classifier` on the same noise.
    #[arg(long, value_name = "SRC", value_parser = address)]
    pub classifier: Option<String>,
    /// Scale of the classifier's gradient: 0 is unguided, 1 follows Bayes' rule, and more exaggerates the class.
    #[arg(long, default_value = "1", value_name = "S", requires = "classifier", value_parser = not_negative)]
    pub classifier_scale: f64,
}

impl GuidanceArgs {
    /// Opens the models that guide, all ranks together; their slowest averages are used.
    pub fn open(&self, comm: &dyn Collective, on: Arithmetic) -> Result<Guides, Failure> {
        let weights = WeightChoice::SlowestAverage;
        let weaker = self.guide_model.as_ref().map(|source| Model::open(comm, source, weights, on));
        let classifier = self.classifier.as_ref().map(|source| {
            Classifier::open(comm, source, weights, on).map(|classifier| (classifier, self.classifier_scale))
        });
        let interval = self.guidance_interval.unwrap_or(NoiseInterval::ALL);
        let options = |scale| GuidanceOptions { scale, interval, rescale: self.guidance_rescale };
        Ok(Guides {
            guidance: self.guidance.map(options),
            weaker: weaker.transpose()?,
            classifier: classifier.transpose()?,
        })
    }
}
