//! `eval nll`: the variational bound on images; the work is spread over the ranks.
//!
//! A unit of work is a batch of images in one stratum of timesteps, so that the contents of a forward pass do not
//! depend on the number of ranks. Rank `u % ranks` computes unit u.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ddpm_comm::{Collective, Reduce, World, agree};
use ddpm_config::Settings;
use ddpm_data::Source;
use ddpm_diffusion::{Clip, Diffusion, space_timesteps};
use ddpm_eval::{BoundSums, EvalError, Evaluation, Images, Likelihood, Strata};
use ddpm_model::{Error, Failure, ImageBatch, Model, ShuffledImages, data};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::error::of_eval;
use crate::cli::NllArgs;
use crate::failure::relieve_by_batch;
use crate::model_data::check_count;
use crate::output::print;

/// How long a rank waits for another at most: enough for a batch read from a slow disk, and a forward pass.
const PATIENCE: Duration = Duration::from_secs(600);

/// An evaluation with all arguments checked.
struct Task {
    model: Model,
    settings: Settings,
    source: Arc<dyn Source>,
    count: usize,
    /// The process evaluated, if it is not the model's own.
    respaced: Option<Diffusion>,
    strata: Strata,
    seed: u64,
    batch: usize,
}

/// Evaluates the bound and prints it.
pub fn run(args: &NllArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    world.watch(PATIENCE);
    relieve_by_batch(args.batch);
    let device = args.on.resolve(world)?;
    let model = Model::open(comm, &args.model, args.weights, device)?;
    let task = agree::unanimous(comm, Task::of(args, model))?;
    data::check_same(comm, task.source.as_ref())?;
    let (images, units) = (task.count, task.units());
    tracing::info!(
        "{images} of {} under {}: {} in {units} forward passes",
        task.source.describe(),
        task.model.description,
        task.kind(args),
    );
    let bar = if world.rank() == 0 { ProgressBar::new(units as u64) } else { ProgressBar::hidden() };
    let sums = task.evaluate(comm, |done| {
        bar.set_position(done as u64);
        let tenth = |done: usize| done * 10 / units;
        if bar.is_hidden() && tenth(done) > tenth(done.saturating_sub(comm.size())) {
            tracing::info!("{done} of {units} passes");
        }
    })?;
    bar.finish_and_clear();
    if world.rank() == 0 {
        let found = sums.likelihood();
        if json { print(task.to_json(args, &found))? } else { show(&found)? }
    }
    Ok(())
}

impl Task {
    fn of(args: &NllArgs, model: Model) -> Result<Self, Error> {
        let timesteps = model.diffusion.timesteps();
        let respaced = match &args.respacing {
            Some(spec) => Some(model.diffusion.respaced(&space_timesteps(timesteps, spec)?)?),
            None => None,
        };
        let strata = match (&respaced, args.timesteps) {
            (Some(process), _) => Strata::every(process.timesteps()),
            (None, Some(count)) => Strata::sampled(timesteps, count).map_err(of_eval)?,
            (None, None) => Strata::every(timesteps),
        };
        let settings = model.data_settings(args.data.data.as_deref(), &args.data.overrides)?;
        let source = model.open_data(&settings, args.data.split)?;
        let count = args.count.unwrap_or(source.len());
        check_count(source.as_ref(), count)?;
        let (count, batch) = (count as usize, args.batch.min(count as usize));
        Ok(Self { model, settings, source, count, respaced, strata, seed: args.seed, batch })
    }

    fn process(&self) -> &Diffusion {
        self.respaced.as_ref().unwrap_or(&self.model.diffusion)
    }

    /// What is computed, as a phrase for the log.
    fn kind(&self, args: &NllArgs) -> String {
        let (count, timesteps) = (self.strata.len(), self.strata.timesteps());
        match (&args.respacing, args.timesteps) {
            (Some(spec), _) => format!("the bound of the process respaced to {timesteps} timesteps ({spec})"),
            (None, Some(_)) => format!("an estimate of the bound from {count} of {timesteps} timesteps each"),
            (None, None) => format!("the bound over all {timesteps} timesteps"),
        }
    }

    fn units(&self) -> usize {
        self.count.div_ceil(self.batch) * self.strata.len()
    }

    /// The sums over all ranks, on every rank; `progress` gets the number of units done by all ranks together.
    fn evaluate(&self, comm: &dyn Collective, progress: impl Fn(usize)) -> Result<BoundSums, Failure> {
        let units = self.units();
        let mut sums = BoundSums::new(&self.strata, self.count);
        let (workers, device) = (self.settings.data.workers, self.model.weights.flat().device());
        let images = ShuffledImages::new(&self.source, self.seed, self.batch, workers, device);
        let mut images = agree::unanimous(comm, images)?;
        for round in (0..units).step_by(comm.size()) {
            let unit = round + comm.rank();
            // Exchanged in every round, so that all ranks end as soon as one fails.
            agree::unanimous(comm, if unit < units { self.add(&mut sums, &mut images, unit) } else { Ok(()) })?;
            progress((round + comm.size()).min(units));
        }
        sums.merge(|values| comm.all_reduce_f64(values, Reduce::Sum));
        Ok(sums)
    }

    fn add(&self, sums: &mut BoundSums, images: &mut ShuffledImages, unit: usize) -> Result<(), Error> {
        let (number, stratum) = (unit / self.strata.len(), unit % self.strata.len());
        let first = number * self.batch;
        let ImageBatch { ids, x_start, labels } = images.batch(number, self.batch.min(self.count - first))?;
        let evaluation = Evaluation {
            process: self.process(),
            strata: &self.strata,
            clip: if self.model.clips { Clip::Unit } else { Clip::None },
            seed: self.seed,
        };
        let labels = self.model.classes.map(|_| labels);
        let added = evaluation
            .add(sums, &Images { x_start, ids, first }, stratum, |x, t| Ok(self.model.predict(x, t, labels)?));
        added.map_err(|error| match error {
            EvalError::NotFinite { .. } => of_eval(error).within(Path::new(&self.model.description)),
            error => of_eval(error),
        })
    }

    fn to_json(&self, args: &NllArgs, found: &Likelihood) -> Value {
        let terms = &found.by_timestep;
        let column = |value: fn(&ddpm_eval::TimestepMeans) -> f64| terms.iter().map(value).collect::<Vec<f64>>();
        json!({
            "model": self.model.description,
            "data": self.source.describe(),
            "split": args.data.split.to_string(),
            "images": self.count,
            "seed": self.seed,
            "timesteps": self.strata.timesteps(),
            "timesteps_per_image": self.strata.len(),
            "respacing": args.respacing,
            "bits_per_dim": found.bits_per_dim,
            "standard_error": found.standard_error,
            "prior": found.prior,
            "decoder": found.decoder,
            "kl": found.kl,
            "mse_quarters": found.mse_quarters,
            "terms": {
                "t": terms.iter().map(|term| self.process().timestep_map[term.t]).collect::<Vec<i64>>(),
                "images": terms.iter().map(|term| term.images).collect::<Vec<u64>>(),
                "vb": column(|term| term.vb),
                "mse": column(|term| term.mse),
                "xstart_mse": column(|term| term.xstart_mse),
            },
        })
    }
}

fn show(found: &Likelihood) -> Result<(), Error> {
    let error = found.standard_error.map(|error| format!(" ± {error:.4}")).unwrap_or_default();
    print(format_args!("bits/dim  {:.4}{error} (standard error)", found.bits_per_dim))?;
    print(format_args!("prior     {:.4}", found.prior))?;
    print(format_args!("decoder   {:.4} (t = 0)", found.decoder))?;
    print(format_args!("kl        {:.4} (all other t)", found.kl))?;
    let quarters = found.mse_quarters.map(|mse| mse.map_or("-".into(), |mse| format!("{mse:.5}")));
    print(format_args!("mse       {} (of eps, by quarter of t)", quarters.join("  ")))
}
