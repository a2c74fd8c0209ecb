//! `eval classes`: the classes that a classifier predicts for samples, and how often they are the requested ones.

use ddpm_comm::{World, agree};
use ddpm_data::Split;
use ddpm_diffusion::{Diffusion, Stream, noise_batch};
use ddpm_model::samples::{self, Labelled, Samples};
use ddpm_model::{Classifier, Error, Failure, Guides};
use serde_json::json;
use tch::Tensor;

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
    let Labelled { images, labels } = match (&args.samples, args.split) {
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
    let images = match args.timestep {
        Some(t) => noised(&images, t, &model.diffusion)?,
        None => images,
    };
    let batches = images.split(batch as i64, 0);
    let device = model.diffusion.device();
    let t = args.timestep.unwrap_or(0);
    let classify = |(i, images): (usize, &Tensor)| classifier.classify(&images.f_to_device(device)?, t, i * batch);
    let found = batches.iter().enumerate().map(classify).collect::<Result<Vec<_>, Error>>()?;
    let predicted: Vec<i64> = Vec::try_from(&Tensor::f_cat(&found, 0)?)?;
    let classes = classifier.classes() as usize;
    let mut counts = vec![0u64; classes];
    predicted.iter().for_each(|class| counts[*class as usize] += 1);
    let accuracy = labels.as_ref().map(|labels| share(labels.iter().zip(&predicted)));
    let by_class = labels.as_ref().map(|labels| {
        let of = |class: i64| share(labels.iter().zip(&predicted).filter(move |(label, _)| **label == class));
        (0..classes as i64).map(of).collect::<Vec<_>>()
    });
    if json {
        return print(json!({
            "images": predicted.len(), "classifier": classifier.model().description, "predicted": predicted,
            "labels": labels, "timestep": args.timestep, "predicted_counts": counts, "accuracy": accuracy.flatten(),
            "accuracy_by_class": by_class,
        }));
    }
    for (i, class) in predicted.iter().enumerate() {
        match &labels {
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
    match accuracy {
        Some(accuracy) => print(format_args!("# {} images, accuracy {}", predicted.len(), percent(accuracy))),
        None => print(format_args!("# {} images without labels", predicted.len())),
    }
}

/// The images noised to timestep `t`; image i always gets the same noise there.
fn noised(images: &Tensor, t: usize, process: &Diffusion) -> Result<Tensor, Error> {
    let last = process.timesteps() - 1;
    if t > last {
        return Err(Error::config(format!(
            "--timestep {t} is out of range: the classifier knows timesteps 0 to {last}; name one of them"
        )));
    }
    let size = images.size();
    let ids: Vec<u64> = (0..size[0] as u64).collect();
    let device = process.device();
    let noise = noise_batch(0, Stream::Bound(t as u64), &ids, &size[1..]).to_device(device);
    Ok(process.q_sample(&images.to_device(device), &process.full_t(t, size[0]), &noise))
}

/// The share of pairs that agree; None if there are no pairs.
fn share<'a>(pairs: impl Iterator<Item = (&'a i64, &'a i64)>) -> Option<f64> {
    let (agreeing, all) = pairs.fold((0, 0), |(agreeing, all), (a, b)| (agreeing + u32::from(a == b), all + 1));
    (all > 0).then(|| f64::from(agreeing) / f64::from(all))
}
