//! The order in windows of files: every image once per epoch, few files at a time, the same for any number of ranks.

use std::collections::{BTreeSet, HashSet};

use ddpm_data::Order;
use proptest::prelude::*;

/// Where files of these sizes begin, and where the last one ends.
fn starts(sizes: &[u64]) -> Vec<u64> {
    let mut starts = vec![0];
    sizes.iter().for_each(|size| starts.push(starts[starts.len() - 1] + size));
    starts
}

fn order(sizes: &[u64], files: u64, seed: u64) -> Order {
    Order::new(sizes.iter().sum(), seed).in_windows(starts(sizes), files)
}

fn file_of(starts: &[u64], id: u64) -> usize {
    starts.partition_point(|start| *start <= id) - 1
}

#[test]
fn files_and_the_images_in_them_are_shuffled_anew_in_each_epoch() {
    let (sizes, begins) = ([40; 12], starts(&[40; 12]));
    let order = order(&sizes, 3, 5);
    let ids = |epoch: u64| -> Vec<u64> { (epoch * 480..(epoch + 1) * 480).map(|p| order.id_at(p)).collect() };
    let windows = |epoch: u64| -> Vec<BTreeSet<usize>> {
        ids(epoch).chunks(120).map(|window| window.iter().map(|id| file_of(&begins, *id)).collect()).collect()
    };
    for epoch in 0..20 {
        assert!(windows(epoch).iter().all(|files| files.len() == 3), "a window of 3 files holds all of their images");
    }
    let partners: HashSet<_> = (0..20).flat_map(windows).collect();
    assert!(partners.len() > 60, "80 windows should be nearly as many sets of files, not {}", partners.len());
    let first: Vec<usize> = ids(0)[..120].iter().map(|id| file_of(&begins, *id)).collect();
    let changes = first.windows(2).filter(|pair| pair[0] != pair[1]).count();
    // 119 pairs, of which two thirds are of different files on average: 79.7, with a standard deviation of 5.1.
    assert!((55..=105).contains(&changes), "the files of a window alternate {changes} times");
}

#[test]
fn a_window_of_all_files_lets_any_image_follow_any_other() {
    let sizes = [10, 30, 25];
    let order = order(&sizes, 8, 1);
    let first: HashSet<u64> = (0..65 * 40).step_by(65).map(|p| order.id_at(p)).collect();
    assert!(first.len() > 20, "40 epochs begin with {} different images", first.len());
}

#[test]
fn it_continues_after_a_change_of_the_data_set() {
    let order = Order::beginning(70, 9, 123, 4).in_windows(starts(&[30, 40]), 1);
    let mut ids: Vec<u64> = (123..193).map(|p| order.id_at(p)).collect();
    assert_eq!((order.epoch_of(123), order.epoch_of(193)), (4, 5));
    assert_eq!(ids[..30].iter().all(|id| *id < 30), ids[30..].iter().all(|id| *id >= 30), "one file after the other");
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..70));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_image_occurs_once_per_epoch(
        sizes in prop::collection::vec(0u64..60, 1..30).prop_filter("no image", |sizes| sizes.iter().sum::<u64>() > 0),
        files in 1u64..40, seed: u64, epoch in 0u64..1_000_000,
    ) {
        let n: u64 = sizes.iter().sum();
        let order = order(&sizes, files, seed);
        let ids: Vec<u64> = (epoch * n..(epoch + 1) * n).map(|position| order.id_at(position)).collect();
        let begins = starts(&sizes);
        // Between its first and its last image, the images of at most `files` files are in use.
        let used: Vec<usize> = ids.iter().map(|id| file_of(&begins, *id)).collect();
        for (at, file) in used.iter().enumerate() {
            let first = used.iter().position(|other| other == file).unwrap();
            let between: HashSet<_> = used[first..=at].iter().collect();
            prop_assert!(between.len() as u64 <= files);
        }
        let mut sorted = ids;
        sorted.sort_unstable();
        prop_assert!(sorted.into_iter().eq(0..n));
    }

    #[test]
    fn ranks_that_start_anywhere_see_the_sequence_of_one(
        sizes in prop::collection::vec(1u64..40, 1..12), files in 1u64..5, seed: u64, resumed in 0u64..20,
    ) {
        let whole: Vec<u64> = {
            let order = order(&sizes, files, seed);
            (0..40 * 8).map(|position| order.id_at(position)).collect()
        };
        for world in 1..=8u64 {
            let cut = |rank: u64| rank * 8 / world;
            for step in resumed..40 {
                let seen: Vec<u64> = (0..world)
                    .flat_map(|rank| {
                        // A process of its own, which begins at this step.
                        let own = order(&sizes, files, seed);
                        (cut(rank)..cut(rank + 1)).map(move |slot| own.id_at(step * 8 + slot)).collect::<Vec<_>>()
                    })
                    .collect();
                prop_assert_eq!(&seen[..], &whole[step as usize * 8..(step as usize + 1) * 8]);
            }
        }
    }
}
