//! `eval classes`: the classes that a classifier predicts for samples, and how often they are the requested ones.

use ddpm_comm::{World, agree};
use ddpm_data::Split;
use ddpm_model::samples::{self, Samples};
use ddpm_model::{Classifier, Error, Failure, Guides, Predictions};
use serde_json::json;

use crate::cli::ClassesArgs;
use crate::commands::batch;
use crate::output::print;

/// Classifies the images, on rank 0 alone: a pass over a few thousand small images takes seconds.
pub fn run(args: &ClassesArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let classifier = Classifier::open(comm.as_ref(), &args.classifier, args.weights, args.on.resolve(world)?)?;
    let batch = batch::resolve(args.batch, world, classifier.model(), &Guides::default(), usize::MAX)?;
    Ok(agree::act_on_root(comm.as_ref(), || classify(args, &classifier, batch, json))?)
}

fn classify(args: &ClassesArgs, classifier: &Classifier, batch: usize, json: bool) -> Result<(), Error> {
    let model = classifier.model();
    let images = match (&args.samples, args.split) {
        (Some(path), _) => {
            let samples = Samples::open(path, model.network.image(), Some(classifier.classes()))?;
            samples.read(0, samples.count())?
        }
        (None, split) => {
            let split = split.unwrap_or(Split::Test);
            let source = model.open_data(&model.data_settings(None, &[])?, split)?;
            samples::first(source.as_ref(), args.count.min(source.len()))?
        }
    };
    let found = Predictions::of(classifier, images, args.timestep, batch)?;
    let Predictions { predicted, labels, .. } = &found;
    let (counts, accuracy, by_class) = (found.counts(), found.accuracy(), found.accuracy_by_class());
    if json {
        return print(json!({
            "images": predicted.len(), "classifier": model.description, "predicted": predicted,
            "labels": labels, "timestep": args.timestep, "predicted_counts": counts, "accuracy": accuracy,
            "accuracy_by_class": by_class,
        }));
    }
    for (i, class) in predicted.iter().enumerate() {
        match labels {
            Some(labels) => print(format_args!("{i:>6}  {class}  asked for {}", labels[i])),
            None => print(format_args!("{i:>6}  {class}")),
        }?;
    }
    let percent = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.1}%", 100.0 * share));
    for (class, count) in counts.iter().enumerate() {
        match &by_class {
            Some(shares) => {
                let share = percent(shares[class]);
                print(format_args!("# class {class}: found {count} times, {share} of those asked for"))
            }
            None => print(format_args!("# class {class}: found {count} times")),
        }?;
    }
    match labels {
        Some(_) => print(format_args!("# {} images, accuracy {}", predicted.len(), percent(accuracy))),
        None => print(format_args!("# {} images without labels", predicted.len())),
    }
}
