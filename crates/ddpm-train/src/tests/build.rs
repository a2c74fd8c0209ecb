//! Building the parts of a run from its settings.

use ddpm_data::Split;
use ddpm_model::data;
use tempfile::tempdir;

use super::settings;
use crate::build::{batches_ahead, loader, lr_schedule};
use crate::data_record::DataRecord;

#[test]
fn the_ranks_batches_are_the_slices_of_one_global_batch() {
    let dir = tempdir().unwrap();
    let settings = settings(dir.path(), &["data.flip=true"]);
    let source = data::open(&settings, Split::Train).unwrap();
    let order = DataRecord::new(source.as_ref(), None).order(settings.seed, source.as_ref());
    let batches = |world: usize| -> (Vec<u64>, Vec<u8>) {
        let ranks = (0..world)
            .map(|rank| loader(&settings, &source, order.clone(), 5, rank, world, ()).unwrap().next().unwrap());
        ranks.fold((Vec::new(), Vec::new()), |(mut ids, mut pixels), batch| {
            assert_eq!(batch.first_position, 5 * 8 + ids.len() as u64);
            ids.extend(batch.ids);
            pixels.extend(batch.images);
            (ids, pixels)
        })
    };
    let one = batches(1);
    assert_eq!(one.0.len(), 8);
    for world in [2, 4, 8] {
        assert!(batches(world) == one, "{world} ranks");
    }
    assert_eq!(batches_ahead(&settings), 3);
}

#[test]
fn a_source_that_the_settings_do_not_describe_is_refused() {
    let dir = tempdir().unwrap();
    let source = data::open(&settings(dir.path(), &[]), Split::Train).unwrap();
    let fits = |more: &[&str]| data::check_fits(&settings(dir.path(), more), source.as_ref());
    assert!(fits(&[]).is_ok());
    let shape = fits(&["data.image_size=16"]).unwrap_err().to_string();
    assert!(shape.contains("images of 1x8x8") && shape.contains("describe 1x16x16"), "{shape}");
    let classes = fits(&["model.classes=7"]).unwrap_err().to_string();
    assert!(classes.contains("has 10 classes but model.classes is 7"), "{classes}");
}

#[test]
fn the_learning_rate_rises_then_follows_its_shape() {
    let dir = tempdir().unwrap();
    let constant = lr_schedule(&settings(dir.path(), &["train.warmup_steps=10"]));
    assert!(constant.at(0) < constant.at(5) && constant.at(5) < 1e-3);
    assert_eq!((constant.at(10), constant.at(99)), (1e-3, 1e-3));
    let cosine = lr_schedule(&settings(dir.path(), &["train.lr_schedule=cosine"]));
    assert!(cosine.at(0) == 1e-3 && cosine.at(50) < 6e-4 && cosine.at(99) < 1e-5);
}
