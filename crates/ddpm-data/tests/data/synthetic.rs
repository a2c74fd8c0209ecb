//! The drawn digits: the properties that hold whatever they look like.

use ddpm_data::{SourceKind, preview};

use crate::{check_refused, digits, read, source};

#[test]
fn classes_are_balanced_and_digits_stay_inside() {
    let source = digits(1000);
    let batch = preview(&*source, 0, 1000, 3).expect("valid");
    for class in 0..10 {
        assert_eq!(batch.labels.iter().filter(|label| **label == class).count(), 100);
    }
    for (id, image) in batch.images.chunks_exact(256).enumerate() {
        let edge = (0..16).flat_map(|i| [i, 240 + i, 16 * i, 16 * i + 15]);
        assert_eq!(edge.map(|i| image[i]).max(), Some(0), "digit {id} touches the edge");
        let ink = image.iter().map(|v| f32::from(*v)).sum::<f32>() / (255.0 * 256.0);
        assert!((0.02..0.35).contains(&ink), "digit {id} covers {ink} of its image");
    }
}

#[test]
fn a_digit_is_a_function_of_seed_and_id() {
    let seeded = |seed, count| source(SourceKind::Synthetic { count, seed }, 32, 1).expect("valid");
    let (a, b, other) = (seeded(1, 50), seeded(1, 5000), seeded(2, 50));
    for id in (0..50).rev() {
        assert_eq!(read(&*a, id).expect("valid"), read(&*b, id).expect("valid"));
        assert_ne!(read(&*a, id).expect("valid").0, read(&*other, id).expect("valid").0);
    }
    assert_ne!(read(&*a, 3).expect("valid").0, read(&*a, 13).expect("valid").0, "two threes");
    check_refused(source(SourceKind::Synthetic { count: 0, seed: 0 }, 32, 1), &["count = 0"]);
    check_refused(preview(&*a, 49, 2, 3), &["image 50"]);
}

/// Classes must differ by more than their jitter: even a nearest-mean classifier distinguishes most.
#[test]
fn digits_are_distinguishable() {
    let source = source(SourceKind::Synthetic { count: 3000, seed: 0 }, 16, 1).expect("valid");
    let batch = preview(&*source, 0, 3000, 3).expect("valid");
    let images: Vec<&[u8]> = batch.images.chunks_exact(256).collect();
    let mut means = vec![[0f32; 256]; 10];
    for (image, label) in images.iter().zip(&batch.labels).take(2000) {
        means[*label as usize].iter_mut().zip(*image).for_each(|(mean, v)| *mean += f32::from(*v) / 200.0);
    }
    let distance = |image: &[u8], class: usize| -> f32 {
        image.iter().zip(&means[class]).map(|(v, mean)| (f32::from(*v) - mean).powi(2)).sum()
    };
    let right = (2000..3000).filter(|&i| {
        let nearest = (0..10).min_by(|&a, &b| distance(images[i], a).total_cmp(&distance(images[i], b)));
        nearest == Some(batch.labels[i] as usize)
    });
    let right = right.count();
    assert!(right > 800, "{right} of 1000");
}

#[test]
fn colour_tints_the_grey_digit() {
    let kind = SourceKind::Synthetic { count: 20, seed: 3 };
    let (grey, colour) = (source(kind.clone(), 24, 1).expect("valid"), source(kind, 24, 3).expect("valid"));
    for id in 0..20 {
        let (grey, colour) = (read(&*grey, id).expect("valid").0, read(&*colour, id).expect("valid").0);
        let planes: Vec<_> = colour.chunks_exact(24 * 24).collect();
        for (i, value) in grey.iter().enumerate() {
            let strongest = planes.iter().map(|plane| plane[i]).max();
            assert_eq!(strongest, Some(*value), "one channel keeps the full brightness");
        }
    }
}
