//! The classes that a classifier predicts for images, and how often they are the right ones.

use ddpm_diffusion::{Diffusion, Stream, noise_batch};
use tch::Tensor;

use crate::classifier::Classifier;
use crate::error::Error;
use crate::samples::Labelled;

/// The predicted class of each image, and the right one, if it is known.
pub struct Predictions {
    /// The predicted classes.
    pub predicted: Vec<i64>,
    /// The right classes.
    pub labels: Option<Vec<i64>>,
    classes: i64,
}

impl Predictions {
    /// Classifies images, `batch` at a time; given a `timestep`, they are noised to it first, image i always with the
    /// same noise.
    ///
    /// # Errors
    /// There is no such timestep, or the network's output is not finite.
    pub fn of(classifier: &Classifier, images: Labelled, timestep: Option<usize>, batch: usize) -> Result<Self, Error> {
        let Labelled { images, labels } = images;
        let process = &classifier.model().diffusion;
        let images = match timestep {
            Some(t) => noised(&images, t, process)?,
            None => images,
        };
        let (device, t) = (process.device(), timestep.unwrap_or(0));
        let classify = |(i, images): (usize, &Tensor)| classifier.classify(&images.f_to_device(device)?, t, i * batch);
        let batches = images.split(batch as i64, 0);
        let found = batches.iter().enumerate().map(classify).collect::<Result<Vec<_>, Error>>()?;
        let predicted: Vec<i64> = Vec::try_from(&Tensor::f_cat(&found, 0)?)?;
        Ok(Self { predicted, labels, classes: classifier.classes() })
    }

    /// How often each class is predicted.
    pub fn counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.classes as usize];
        self.predicted.iter().for_each(|class| counts[*class as usize] += 1);
        counts
    }

    /// The share of right predictions; `None` if there are no labels, or no images.
    pub fn accuracy(&self) -> Option<f64> {
        self.labels.as_ref().and_then(|labels| share(labels.iter().zip(&self.predicted)))
    }

    /// The same among the images of each class; `None` if there are no labels.
    pub fn accuracy_by_class(&self) -> Option<Vec<Option<f64>>> {
        let labels = self.labels.as_ref()?;
        let of = |class: i64| share(labels.iter().zip(&self.predicted).filter(move |(label, _)| **label == class));
        Some((0..self.classes).map(of).collect())
    }
}

/// The images noised to timestep `t`.
fn noised(images: &Tensor, t: usize, process: &Diffusion) -> Result<Tensor, Error> {
    let last = process.timesteps() - 1;
    if t > last {
        return Err(Error::config(format!(
            "timestep {t} is out of range: the classifier knows timesteps 0 to {last}; name one of them"
        )));
    }
    let size = images.size();
    let ids: Vec<u64> = (0..size[0] as u64).collect();
    let device = process.device();
    let noise = noise_batch(0, Stream::Bound(t as u64), &ids, &size[1..]).to_device(device);
    Ok(process.q_sample(&images.to_device(device), &process.full_t(t, size[0]), &noise))
}

/// The share of pairs that agree; `None` if there are no pairs.
fn share<'a>(pairs: impl Iterator<Item = (&'a i64, &'a i64)>) -> Option<f64> {
    let (agreeing, all) = pairs.fold((0, 0), |(agreeing, all), (a, b)| (agreeing + u32::from(a == b), all + 1));
    (all > 0).then(|| f64::from(agreeing) / f64::from(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_images_with_a_label() {
        let mut found = Predictions { predicted: vec![0, 2, 2, 0], labels: Some(vec![0, 0, 2, 0]), classes: 3 };
        assert_eq!(found.counts(), [2, 0, 2]);
        assert_eq!(found.accuracy(), Some(0.75));
        assert_eq!(found.accuracy_by_class(), Some(vec![Some(2.0 / 3.0), None, Some(1.0)]));
        found.labels = None;
        assert_eq!((found.accuracy(), found.accuracy_by_class()), (None, None));
    }
}
