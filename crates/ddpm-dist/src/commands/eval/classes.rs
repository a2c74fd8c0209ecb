//! `eval classes`: which classes a classifier sees in samples, and how often it is the one that was asked for.

use std::path::Path;

use ddpm_comm::World;
use ddpm_data::{DataSpec, FolderLabels, OnCorrupt, Source, SourceKind, Split};
use serde_json::json;
use tch::{Device, Tensor};

use crate::classifier::Classifier;
use crate::cli::ClassesArgs;
use crate::coordinator::unanimous;
use crate::device;
use crate::failure::Failure;
use crate::{images, tensors};

/// Images f32 `[N, C, H, W]` in `[-1, 1]`, and the class of each where that is known.
struct Labelled {
    images: Tensor,
    labels: Option<Vec<i64>>,
}

/// Tells the classes, on rank 0 alone: a pass over a few thousand small images takes seconds.
pub fn run(args: &ClassesArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    let device = device::place_as_typed(world, &args.on)?;
    let classifier = Classifier::open(comm.as_ref(), &args.classifier, args.weights, device)?;
    let done = if world.rank() == 0 { judge(args, &classifier, device, json) } else { Ok(()) };
    unanimous(comm.as_ref(), done)
}

fn judge(args: &ClassesArgs, classifier: &Classifier, device: Device, json: bool) -> Result<(), Failure> {
    let Labelled { images, labels } = match (&args.samples, args.split) {
        (Some(path), _) if path.is_dir() => read_folder(path, classifier)?,
        (Some(path), _) => read_samples(path, classifier)?,
        (None, split) => {
            let split = split.map_or(Split::Test, Split::from);
            let model = classifier.model();
            let source = model.open_data(&model.data_settings(None, &[])?, split)?;
            preview(source.as_ref(), args.count.min(source.len()))?
        }
    };
    let batches = images.split(args.batch as i64, 0);
    let told: Vec<Tensor> = batches.iter().map(|batch| classifier.tell(&batch.to_device(device))).collect();
    let predicted: Vec<i64> = Vec::try_from(&Tensor::f_cat(&told, 0)?)?;
    let classes = classifier.classes() as usize;
    let mut counts = vec![0u64; classes];
    predicted.iter().for_each(|class| counts[*class as usize] += 1);
    let accuracy = labels.as_ref().map(|labels| share(labels.iter().zip(&predicted)));
    let by_class = labels.as_ref().map(|labels| {
        let of = |class: i64| share(labels.iter().zip(&predicted).filter(move |(label, _)| **label == class));
        (0..classes as i64).map(of).collect::<Vec<_>>()
    });
    if json {
        println!(
            "{}",
            json!({
                "images": predicted.len(), "classifier": classifier.model().description, "predicted": predicted,
                "labels": labels, "predicted_counts": counts, "accuracy": accuracy.flatten(),
                "accuracy_by_class": by_class,
            })
        );
        return Ok(());
    }
    for (i, class) in predicted.iter().enumerate() {
        match &labels {
            Some(labels) => println!("{i:>6}  {class}  asked for {}", labels[i]),
            None => println!("{i:>6}  {class}"),
        }
    }
    let percent = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.1}%", 100.0 * share));
    for (class, count) in counts.iter().enumerate() {
        match &by_class {
            Some(shares) => {
                println!("# class {class}: told {count} times, {} of those asked for", percent(shares[class]))
            }
            None => println!("# class {class}: told {count} times"),
        }
    }
    match accuracy {
        Some(accuracy) => println!("# {} images, accuracy {}", predicted.len(), percent(accuracy)),
        None => println!("# {} images without labels", predicted.len()),
    }
    Ok(())
}

/// The share of pairs that agree; none of none.
fn share<'a>(pairs: impl Iterator<Item = (&'a i64, &'a i64)>) -> Option<f64> {
    let (agreeing, all) = pairs.fold((0, 0), |(agreeing, all), (a, b)| (agreeing + u32::from(a == b), all + 1));
    (all > 0).then(|| f64::from(agreeing) / f64::from(all))
}

/// `samples` of a file, as `sample` writes them.
fn read_samples(path: &Path, classifier: &Classifier) -> Result<Labelled, Failure> {
    let (channels, size) = classifier.model().network.image();
    let read = tensors::read(path, "samples", None, [channels, size, size], ", as `sample` writes it")?;
    Ok(Labelled { images: read.values, labels: read.labels })
}

/// The images below a folder; sub-folders, as many as there are classes, are their classes in the order of their names.
fn read_folder(path: &Path, classifier: &Classifier) -> Result<Labelled, Failure> {
    let (channels, size) = classifier.model().network.image();
    let entries = std::fs::read_dir(path).map_err(|e| Failure::file(path, e))?;
    let classes = entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir()).count() as i64;
    if classes > 0 && classes != classifier.classes() {
        return Err(Failure::usage(format!(
            "{} has {classes} sub-folders and the classifier tells {} classes; give one sub-folder for each, or none",
            path.display(),
            classifier.classes()
        )));
    }
    let labels = if classes > 0 { FolderLabels::SubFolder } else { FolderLabels::None };
    let source = ddpm_data::open(&DataSpec {
        kind: SourceKind::Folder { root: path.into(), split: Split::Train, labels },
        image_size: size as usize,
        channels: channels as usize,
        crop: None,
        on_corrupt: OnCorrupt::Error,
    })?;
    preview(source.as_ref(), source.len())
}

fn preview(source: &dyn Source, count: u64) -> Result<Labelled, Failure> {
    let images::Images { x_start, labels } = images::read(source, 0, count as usize, Device::Cpu)?;
    Ok(Labelled { images: x_start, labels: source.classes().map(|_| labels) })
}
