//! `eval nll`: the variational bound on images; the work is spread over the ranks.

use std::sync::Arc;
use std::time::Duration;

use ddpm_comm::{World, agree};
use ddpm_config::Settings;
use ddpm_data::Source;
use ddpm_diffusion::{Clip, Diffusion, space_timesteps};
use ddpm_eval::{Likelihood, Strata};
use ddpm_model::{BoundTask, Error, Failure, Guides, Model, data, kind_name};
use ddpm_telemetry::{Showing, Work};
use serde_json::{Value, json};

use crate::cli::NllArgs;
use crate::commands::batch;
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
}

/// Evaluates the bound and prints it.
pub fn run(args: &NllArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    world.watch(PATIENCE);
    let model = Model::open(comm, &args.model, args.weights, args.on.resolve(world)?)?;
    let task = agree::unanimous(comm, Task::of(args, model))?;
    data::check_same(comm, task.source.as_ref())?;
    let batch = batch::resolve(args.batch, world, &task.model, &Guides::default(), task.count)?;
    let bound = task.bound(batch.min(task.count));
    let (images, units) = (task.count, bound.units(task.count));
    tracing::info!(
        "{images} of {} under {}: {} in {units} forward passes",
        task.source.describe(),
        task.model.description,
        task.kind(args),
    );
    let sums = Work::on_images("evaluating", images, Showing::on(world.rank()), |progress| {
        bound.evaluate(comm, &task.source, images, task.settings.data.workers, |done| progress(done, units))
    })?;
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
            (None, Some(count)) => Strata::sampled(timesteps, count)?,
            (None, None) => Strata::every(timesteps),
        };
        let settings = model.data_settings(args.data.data.as_deref(), &args.data.overrides)?;
        let source = model.open_data(&settings, args.data.split)?;
        let count = data::count(args.count, source.len(), source.describe())?;
        Ok(Self { model, settings, source, count, respaced, strata, seed: args.seed })
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

    fn bound(&self, batch: usize) -> BoundTask<'_> {
        BoundTask {
            name: &self.model.description,
            network: &self.model.network,
            weights: &self.model.weights,
            process: self.process(),
            strata: &self.strata,
            clip: if self.model.clips { Clip::Unit } else { Clip::None },
            seed: self.seed,
            batch,
        }
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
            "precision": kind_name(self.model.network.precision()),
            "timesteps": self.strata.timesteps(),
            "timesteps_per_image": self.strata.len(),
            "respacing": args.respacing,
            "bits_per_dim": found.bits_per_dim,
            "standard_error": found.standard_error,
            "prior": found.prior,
            "decoder": found.decoder,
            "kl": found.kl,
            "loss": found.loss,
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
