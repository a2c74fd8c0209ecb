//! The evaluations of a run while it trains: loss and bound on held-out images, and the Fréchet distance of samples.
//!
//! Both use the slowest average of the weights and the same seed each time, so that their figures differ between steps
//! only by what was learned.

use std::path::Path;
use std::sync::Arc;

use ddpm_comm::{Agreed, agree};
use ddpm_config::Settings;
use ddpm_data::Source;
use ddpm_diffusion::Clip;
use ddpm_eval::Strata;
use ddpm_model::compare::{Extractor, ImageSet, MOST_FEATURES, Reference, Statistics};
use ddpm_model::{BoundTask, Error, ErrorKind, Failure, data};
use ddpm_nn::Weights;
use ddpm_telemetry::{Metrics, Showing};

use crate::observer::Run;
use crate::preview::{Preview, batch, step_name};

/// Seed of the noise, of the timesteps drawn, and of the choice of held-out images.
const SEED: u64 = 0;

/// The bar on the terminal shows the progress of training.
const QUIETLY: Showing = Showing::Nothing;

/// What the evaluations of a run need.
pub struct Evaluations {
    /// The held-out images.
    held_out: Option<Arc<dyn Source>>,
    extractor: Option<Extractor>,
    /// The statistics to compare with; those of the training images from the first distance on.
    reference: Option<Statistics>,
}

/// Which evaluations are due after a step.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    held_out: bool,
    distance: bool,
}

/// The results of a step's evaluations; `None` for those that were not due or not possible.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evaluated {
    held_out: Option<HeldOut>,
    distance: Option<f64>,
}

/// Results on the held-out images.
#[derive(Clone, Copy, Debug)]
struct HeldOut {
    /// The training objective's loss, the mean over images and t.
    loss: f64,
    /// An estimate of the bound, in bits per dimension.
    bits_per_dim: f64,
}

impl Due {
    /// Whether any is due.
    pub fn any(self) -> bool {
        self.held_out || self.distance
    }
}

impl Evaluations {
    /// Opens the held-out images and the features that `[monitor]` asks for; collective over all ranks.
    pub fn open(run: &Run) -> Result<Self, Failure> {
        let (settings, comm) = (run.settings, run.comm.as_ref());
        let held_out = match settings.monitor.eval_every {
            0 => None,
            _ => {
                let source = agree::unanimous(comm, held_out(settings))?;
                data::check_same(comm, source.as_ref())?;
                Some(source)
            }
        };
        if settings.monitor.fid_every == 0 {
            return Ok(Self { held_out, extractor: None, reference: None });
        }
        let (features, image) = (&settings.monitor.fid_features, settings.data.image());
        let extractor = Extractor::open(comm, features, image, run.task.diffusion.device())?;
        let dim = extractor.dim();
        if dim > MOST_FEATURES {
            let message = format!(
                "monitor.fid_every with {dim} features would let all ranks wait for the roots of {dim} x {dim} \
                 covariances, which one rank computes; set monitor.fid_features to a file of at most {MOST_FEATURES} \
                 features, or monitor.fid_every to 0"
            );
            return Err(Agreed::known_to_all(Error::config(message)).into());
        }
        let given = settings.monitor.fid_reference.as_ref();
        let given = given.map(|path| Reference::File(Path::new(path)));
        let given = given.map(|given| given.statistics(comm, &extractor, batch(settings), QUIETLY));
        Ok(Self { held_out, extractor: Some(extractor), reference: given.transpose()? })
    }

    /// Which evaluations are due after the current step.
    pub fn due(&self, run: &Run) -> Due {
        let monitor = &run.settings.monitor;
        Due { held_out: run.is_due(monitor.eval_every), distance: run.is_due(monitor.fid_every) }
    }

    /// Evaluates what is `due`, all ranks together.
    pub fn run(&mut self, run: &Run, due: Due) -> Result<Evaluated, Failure> {
        let weights = run.state.preview_weights(&run.task.network)?;
        let held_out = match &self.held_out {
            Some(source) if due.held_out => {
                unless_diverged("figures on held-out images", evaluate_held_out(run, &weights, source))?
            }
            _ => None,
        };
        let distance = if due.distance {
            unless_diverged("Fréchet distance", self.measure_distance(run, &weights))?.flatten()
        } else {
            None
        };
        Ok(Evaluated { held_out, distance })
    }

    fn measure_distance(&mut self, run: &Run, weights: &Weights) -> Result<Option<f64>, Failure> {
        let Some(extractor) = &self.extractor else { return Ok(None) };
        let (comm, batch) = (run.comm.as_ref(), batch(run.settings));
        let reference = match self.reference.take() {
            Some(statistics) => statistics,
            None => {
                let images = Reference::Images { source: run.source, count: run.source.len() as usize };
                images.statistics(comm, extractor, batch, QUIETLY)?
            }
        };
        let reference = self.reference.insert(reference);
        let count = run.settings.monitor.fid_count;
        let preview = agree::unanimous(comm, Preview::of(run, weights, count))?;
        let depth = run.settings.data.depth();
        let drawn = ImageSet::Drawn { generation: &preview.generation(0), count, depth };
        Ok(Some(reference.distance(comm, &drawn.moments(comm, extractor, batch, QUIETLY)?)?))
    }
}

/// The result, or none with a warning if the weights gave values that are not finite: observing never stops training.
/// If they have diverged for good, the gradient of the next steps shows it.
pub fn unless_diverged<T>(what: &str, result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Err(failure) if failure.kind() == ErrorKind::Diverged => {
            tracing::warn!("no {what}: {failure}");
            Ok(None)
        }
        result => result.map(Some),
    }
}

impl Evaluated {
    /// Adds the figures of the evaluations that `[monitor]` asks for; absent where there are none.
    pub fn add_to(&self, run: &Run, metrics: &mut Metrics) {
        let monitor = &run.settings.monitor;
        if monitor.eval_every > 0 {
            metrics.optional("eval_loss", "eval/loss", self.held_out.map(|found| found.loss));
            metrics.optional("eval_bits_per_dim", "eval/bits_per_dim", self.held_out.map(|found| found.bits_per_dim));
        }
        if monitor.fid_every > 0 {
            // Only of Inception's features is the distance what others call FID.
            let features = &monitor.fid_features;
            metrics.optional("fid", format!("eval/fid/{}", features.name()), self.distance);
            metrics.text("fid_features", features.to_string());
        }
    }
}

fn held_out(settings: &Settings) -> Result<Arc<dyn Source>, Error> {
    let source = data::open_unchecked(settings, settings.monitor.eval_split)?;
    data::check_fits(settings, source.as_ref())?;
    Ok(source)
}

fn evaluate_held_out(run: &Run, weights: &Weights, source: &Arc<dyn Source>) -> Result<HeldOut, Failure> {
    let (settings, process) = (run.settings, &run.task.diffusion);
    let monitor = &settings.monitor;
    let count = monitor.eval_count.min(source.len()) as usize;
    let strata = Strata::sampled(process.timesteps(), monitor.eval_timesteps as usize).map_err(Error::from);
    let strata = agree::unanimous(run.comm.as_ref(), strata)?;
    let task = BoundTask {
        name: &step_name(run),
        network: &run.task.network,
        weights,
        process,
        strata: &strata,
        clip: Clip::Unit,
        seed: SEED,
        batch: batch(settings).min(count),
    };
    let sums = task.evaluate(run.comm.as_ref(), source, count, settings.data.workers, |_| ())?;
    let found = sums.likelihood();
    Ok(HeldOut { loss: found.loss, bits_per_dim: found.bits_per_dim })
}
