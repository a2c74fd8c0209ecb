//! One export: checked before anything is drawn or written, then written as a whole.

use std::path::Path;

use ddpm_comm::Collective;
use ddpm_diffusion::{Ddim, Direction, Sampler, kept_timesteps};
use ddpm_telemetry::{Showing, Work, write_atomic};

use super::card::Card;
use super::contents::{Contents, Format};
use super::folder::ExportFolder;
use super::{diffusers, files, plain, recipe, variants};
use crate::draw::Generation;
use crate::error::{Error, Failure};
use crate::images::floats;
use crate::model::Model;
use crate::{pictures, steps};

/// Images of the model card, and how many of them are in a row.
const IMAGES: usize = 16;
const COLUMNS: usize = 4;

/// How to export a model.
#[derive(Clone, Copy, Debug)]
pub struct ExportOptions<'a> {
    /// What for.
    pub format: Format,
    /// Whether the other weights of the checkpoint are exported too, each as a variant.
    pub variants: bool,
    /// The licence's identifier, as the Hub spells it.
    pub license: &'a str,
}

/// An export of a model that can be written.
pub struct Export<'a> {
    model: &'a Model,
    options: ExportOptions<'a>,
    contents: Contents,
}

impl<'a> Export<'a> {
    /// Refuses a model that the format cannot describe.
    pub fn of(model: &'a Model, options: ExportOptions<'a>) -> Result<Self, Error> {
        let contents = match options.format {
            Format::Diffusers => diffusers::contents(model)?,
            Format::Safetensors => plain::contents(model),
        };
        Ok(Self { model, options, contents })
    }

    /// Draws the images of the model card, all ranks together: f32 `[16, C, H, W]` on rank 0, nothing on the others.
    /// The classes take turns.
    pub fn draw(&self, comm: &dyn Collective, showing: Showing) -> Result<Vec<f32>, Failure> {
        let model = self.model;
        let total = model.diffusion.timesteps();
        let kept = kept_timesteps(steps::spacing(None, &model.diffusion), total, self.steps())?;
        let process = model.diffusion.respaced(&kept)?;
        let sampler = Sampler::Ddim(Ddim { eta: 0.0, direction: Direction::FromModel });
        let labels: Option<Vec<i64>> =
            model.classes.map(|classes| (0..IMAGES as i64).map(|image| image % classes).collect());
        let generation = Generation { labels: labels.as_deref(), ..Generation::of(model, &process, sampler) };
        let drawn = Work::on_images("drawing", IMAGES, showing, |progress| generation.gather(comm, IMAGES, progress))?;
        Ok(drawn.samples)
    }

    /// Writes the export with the images of [`draw`](Self::draw), if any; returns the names of the variants.
    pub fn write(&self, folder: &ExportFolder, samples: Option<&[f32]>) -> Result<Vec<String>, Error> {
        let mut written = Vec::new();
        folder.fill(|path| {
            for (name, document) in &self.contents.documents {
                let text = serde_json::to_string_pretty(document).map_err(Error::internal)? + "\n";
                save(&path.join(name), text.as_bytes())?;
            }
            self.write_weights(path, &mut written)?;
            if let Some(settings) = &self.model.settings {
                save(&path.join("config.toml"), recipe::portable(settings).to_toml().as_bytes())?;
            }
            if let Some(samples) = samples {
                let image = self.model.network.image();
                let grid = pictures::grid(samples, image, COLUMNS)?;
                save(&path.join("samples.png"), &grid.encode_png())?;
            }
            let drawn = format!("DDIM in {} steps", self.steps());
            let card = Card {
                model: self.model,
                format: self.options.format,
                name: folder.name(),
                license: self.options.license,
                variants: &written,
                samples: samples.map(|_| drawn.as_str()),
            };
            save(&path.join("README.md"), card.text().as_bytes())
        })?;
        Ok(written)
    }

    fn write_weights(&self, path: &Path, written: &mut Vec<String>) -> Result<(), Error> {
        let Contents { weights, mean_only, .. } = self.contents;
        let layout = self.model.network.layout();
        let values = floats(self.model.weights.flat())?;
        files::write(&path.join(format!("{weights}.safetensors")), layout, &values, None)?;
        if let Some((weights, channels)) = mean_only {
            files::write(&path.join(format!("{weights}.safetensors")), layout, &values, Some(channels))?;
        }
        let Some(origin) = self.model.origin.as_ref().filter(|_| self.options.variants) else { return Ok(()) };
        variants::each(origin, |variant, values| {
            written.push(variant.into());
            files::write(&path.join(format!("{weights}.{variant}.safetensors")), layout, values, None)
        })
    }

    fn steps(&self) -> usize {
        steps::count(None, steps::DEFAULT_SAMPLING_STEPS, self.model.diffusion.timesteps())
    }
}

fn save(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_atomic(path, bytes).map_err(|e| Error::file(path, e))
}
