//! What `eval fid`, `eval kid` and `eval pr` have in common: opening the two sets of images, and printing a result.

use std::path::Path;

use ddpm_comm::{World, agree};
use ddpm_config::Settings;
use ddpm_model::compare::{Against, Comparison, DrawOptions, Evaluated};
use ddpm_model::{Error, Failure, Guides, Model, Remedy};
use serde_json::Value;

use crate::cli::CompareArgs;
use crate::commands::batch;
use crate::commands::patience::PATIENCE;
use crate::failure::relieve_by_batch;
use crate::output::print;

/// Number of images that a model draws by default.
const DRAWN: usize = 10_000;

/// Images of which features are computed at once, if nobody says; a model may draw more or fewer.
const BATCH: usize = 64;

/// Opens both sides on all ranks; the images are compared with a file of `statistics`, or else with a data set.
pub fn open(args: &CompareArgs, statistics: Option<&Path>, world: &World) -> Result<Comparison, Failure> {
    let comm = world.collective();
    let comm = comm.as_ref();
    world.watch(PATIENCE);
    relieve_by_batch(args.batch.unwrap_or(BATCH));
    let on = args.on.resolve(world)?;
    let open = |source: &String| Model::open(comm, source, args.evaluated.weights, on);
    let model = args.evaluated.from.model.as_ref().map(open).transpose()?;
    let guides = args.evaluated.guidance.open(comm, on)?;
    let drawn = args.evaluated.count.unwrap_or(DRAWN).div_ceil(world.size());
    let batch = match &model {
        Some(model) => batch::resolve(args.batch, world, model, &guides, drawn)?,
        None => args.batch.unwrap_or(BATCH),
    };
    let sides = || {
        let against = against(args, statistics, model.as_ref())?;
        Ok::<_, Error>((evaluated(args, model, guides, &against, batch)?, against))
    };
    let (evaluated, against) = agree::unanimous(comm, sides())?;
    Comparison::open(comm, evaluated, against, &args.features, on.device, args.batch.unwrap_or(batch.min(BATCH)))
}

fn against(args: &CompareArgs, statistics: Option<&Path>, model: Option<&Model>) -> Result<Against, Error> {
    let settings = match (statistics, model, &args.data) {
        (Some(path), _, _) => return Ok(Against::File(path.into())),
        (None, Some(model), config) => model.data_settings(config.as_deref(), &args.overrides)?,
        (None, None, Some(config)) => Settings::load(config, &args.overrides)?,
        (None, None, None) => {
            return Err(Error::config("there is nothing to compare the images with").or(Remedy::NameData));
        }
    };
    Against::data(&settings, args.split, args.reference_count)
}

fn evaluated(
    args: &CompareArgs,
    model: Option<Model>,
    guides: Guides,
    against: &Against,
    batch: usize,
) -> Result<Evaluated, Error> {
    let wanted = &args.evaluated;
    match (model, &wanted.from.samples, &wanted.from.images) {
        (Some(model), _, _) => {
            let options = DrawOptions {
                count: wanted.count.unwrap_or(DRAWN),
                sampler: wanted.sampler,
                steps: wanted.steps,
                eta: wanted.eta,
                seed: args.seed,
                batch,
            };
            Evaluated::drawn(model, guides, options)
        }
        (None, Some(path), _) => Evaluated::samples(path, against.image(), wanted.count),
        (None, None, config) => {
            let settings = Settings::load(config.as_deref().unwrap_or_default(), &wanted.images_set)?;
            Evaluated::data(&settings, wanted.images_split, wanted.count)
        }
    }
}

/// Prints a result and everything that it depends on, on rank 0: as one JSON object, or as text that starts with
/// `text`.
pub fn report(world: &World, comparison: &Comparison, json: bool, result: Value, text: &str) -> Result<(), Error> {
    if world.rank() != 0 {
        return Ok(());
    }
    if !json {
        return print(format_args!("{text}\n{}", comparison.describe()));
    }
    let mut object = comparison.to_json();
    if let (Some(object), Value::Object(result)) = (object.as_object_mut(), result) {
        object.extend(result);
    }
    print(object)
}
