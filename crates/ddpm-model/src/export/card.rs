//! The model card: `README.md` with the fields that the Hub reads, for a reader who has only the folder.

use std::path::Path;

use ddpm_config::Settings;
use ddpm_spec::{BetaSchedule, Prediction, Variance};

use super::contents::Format;
use super::recipe;
use super::usage::usage;
use super::variants;
use crate::model::{Model, Origin};

/// What the card describes.
pub(super) struct Card<'a> {
    pub(super) model: &'a Model,
    pub(super) format: Format,
    /// The folder's name, which is also the model's.
    pub(super) name: &'a str,
    pub(super) license: &'a str,
    /// Names of the variants.
    pub(super) variants: &'a [String],
    /// How the images in `samples.png` were drawn, if there are any.
    pub(super) samples: Option<&'a str>,
}

impl Card<'_> {
    /// The text of the card, in Markdown.
    pub(super) fn text(&self) -> String {
        let Self { model, name, license, .. } = self;
        let library = match self.format {
            Format::Diffusers => "library_name: diffusers\n",
            Format::Safetensors => "",
        };
        let made = match self.trained() {
            Some((_, origin, _)) => format!("trained by {}", origin.program),
            None => "exported by ddpm-dist".into(),
        };
        let samples = self.samples.map_or(String::new(), |drawn| {
            format!("![Images drawn from this model](samples.png)\n\n*Not selected; {drawn}.*\n\n")
        });
        let description = [
            format!("---\nlicense: {license}\n{library}pipeline_tag: unconditional-image-generation\n"),
            "tags:\n- ddpm\n- ddpm-dist\n---\n\n".into(),
            format!("# {name}\n\nA denoising diffusion model for {} images ", model.network.image()),
            format!("(channels, height, width), {made}.\n\n{samples}"),
            format!("## Use\n\n{}\n", usage(model, self.format, name)),
            format!("## Model\n\n{}\n", table(&self.properties())),
            format!("## Training\n\n{}", self.training()),
        ];
        description.concat()
    }

    fn properties(&self) -> Vec<(&'static str, String)> {
        let model = self.model;
        let spec = model.diffusion.spec();
        let mut rows = vec![("parameters", model.network.layout().len().to_string())];
        if let Some(origin) = &model.origin {
            rows.push(("weights", format!("step {}, {}", origin.step, variants::phrase(&origin.buffer))));
        }
        if !self.variants.is_empty() {
            let names: Vec<String> = self.variants.iter().map(|name| format!("`{name}`")).collect();
            rows.push(("variants", format!("{}: other weights of the same step", names.join(", "))));
        }
        let predicts = match spec.prediction {
            Prediction::Eps => "the noise (eps)",
            Prediction::XStart => "the image (x_start)",
            Prediction::V => "the velocity (v)",
        };
        let variance = match spec.variance {
            Variance::FixedSmall => "the posterior's (small)",
            Variance::FixedLarge => "beta (large)",
            Variance::LearnedRange => {
                "learned, between the posterior's and beta, in the second half of the output's channels"
            }
        };
        rows.extend([
            ("predicts", predicts.into()),
            ("variance", variance.into()),
            ("timesteps", model.diffusion.timesteps().to_string()),
            ("betas", schedule(&model.schedule)),
        ]);
        if let Some(classes) = model.classes {
            let null = model.null_class.map_or(String::new(), |null| format!("; row {null} means \"no class\""));
            rows.push(("classes", format!("0 to {}{null}", classes - 1)));
        }
        rows
    }

    /// The run that trained the model, and on what; `None` if it was trained elsewhere.
    fn trained(&self) -> Option<(&Settings, &Origin, String)> {
        let (settings, origin) = self.model.settings.as_ref().zip(self.model.origin.as_ref())?;
        Some((settings, origin, recipe::data(settings)?))
    }

    fn training(&self) -> String {
        let Some((settings, origin, data)) = self.trained() else {
            return "Converted from files that do not say how it was trained.\n".into();
        };
        let mut rows = vec![
            ("data", data),
            ("images seen", origin.images.to_string()),
            ("batch", settings.train.global_batch.to_string()),
            ("learning rate", settings.train.lr.to_string()),
        ];
        if let Some(model) = &settings.train.init_from {
            let name = Path::new(model).file_name().unwrap_or_default().to_string_lossy();
            rows.insert(0, ("started from the weights of", name.into()));
        }
        rows.extend(
            recipe::metrics(settings, origin.step).into_iter().map(|(name, value)| (name, format!("{value:.4}"))),
        );
        format!(
            "    ddpm-dist train --config config.toml\n\nrepeats it, once `data.path` in `config.toml` is where the \
             data is.\n\n{}",
            table(&rows)
        )
    }
}

fn schedule(of: &BetaSchedule) -> String {
    match of {
        BetaSchedule::Linear { start, end } => format!("linear, {start} to {end}"),
        BetaSchedule::Quadratic { start, end } => format!("quadratic, {start} to {end}"),
        BetaSchedule::Sigmoid { start, end } => format!("sigmoid, {start} to {end}"),
        BetaSchedule::Cosine => "cosine".into(),
        BetaSchedule::Constant(beta) => format!("constant, {beta}"),
        BetaSchedule::List(_) => "a list".into(),
        BetaSchedule::ZeroTerminalSnr(base) => format!("{}, rescaled to zero terminal SNR", schedule(base)),
    }
}

fn table(rows: &[(&str, String)]) -> String {
    let rows: Vec<String> = rows.iter().map(|(name, value)| format!("| {name} | {value} |\n")).collect();
    format!("| | |\n|---|---|\n{}", rows.concat())
}
