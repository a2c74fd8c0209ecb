//! The order: every sample once per epoch, well mixed, the same for any number of ranks.

use ddpm_data::Order;
use proptest::prelude::*;

fn epoch(order: &Order, epoch: u64) -> Vec<u64> {
    let n = order.len();
    (epoch * n..(epoch + 1) * n).map(|position| order.id_at(position)).collect()
}

fn check_permutation(n: u64, seed: u64, which: u64) {
    let mut ids = epoch(&Order::new(n, seed), which);
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..n), "epoch {which} of {n} samples, seed {seed}");
}

#[test]
fn every_id_occurs_once_per_epoch() {
    for n in [1, 2, 3, 5, 7, 8, 13, 63, 64, 65, 97, 1000, 1024, 4096, 4099, 60000] {
        for which in [0, 1, 5] {
            check_permutation(n, 42, which);
        }
    }
}

#[test]
fn epochs_and_seeds_differ() {
    for n in [16, 100, 4096] {
        let order = Order::new(n, 1);
        let epochs: std::collections::HashSet<_> = (0..20).map(|i| epoch(&order, i)).collect();
        assert_eq!(epochs.len(), 20);
        assert_ne!(epoch(&order, 0), epoch(&Order::new(n, 2), 0));
    }
    // Two samples do not have twenty different orders, but both orders must occur.
    let two = Order::new(2, 0);
    let firsts: Vec<_> = (0..64).map(|i| two.id_at(2 * i)).collect();
    assert!(firsts.contains(&0) && firsts.contains(&1));
    assert_eq!((two.epoch_of(0), two.epoch_of(1), two.epoch_of(2), two.epoch_of(7)), (0, 0, 1, 3));
}

#[test]
fn an_order_may_restart_at_any_position() {
    let first = Order::new(10, 3);
    // In the third epoch, 23 images in, the set loses one.
    let (start, epoch) = (23, first.epochs_begun(23));
    assert_eq!((epoch, first.epochs_begun(20), first.epochs_begun(21)), (3, 2, 3));
    let second = Order::beginning(9, 3, start, epoch);
    let ids =
        |epoch: u64| -> Vec<u64> { (start + 9 * epoch..start + 9 * (epoch + 1)).map(|p| second.id_at(p)).collect() };
    for epoch in 0..5 {
        let mut sorted = ids(epoch);
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..9), "each image occurs once in every epoch from the start on");
    }
    assert_ne!(ids(0), ids(1));
    let epochs = [23, 31, 32, 41].map(|position| second.epoch_of(position));
    assert_eq!((epochs, second.epochs_begun(50)), ([3, 3, 4, 5], 6));
    assert_eq!((second.epochs_passed(23), second.epochs_passed(32), first.epochs_passed(5)), (3.0, 4.0, 0.5));
    assert_ne!(
        ids(0),
        (0..9).map(|p| Order::beginning(9, 3, 0, 4).id_at(p)).collect::<Vec<_>>(),
        "each epoch has its own order"
    );
}

/// Correlation of two equally long series.
fn correlation(a: &[u64], b: &[u64]) -> f64 {
    let mean = |x: &[u64]| x.iter().sum::<u64>() as f64 / x.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (a as f64 - ma, b as f64 - mb);
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    ab / (aa * bb).sqrt()
}

#[test]
fn ids_are_well_mixed() {
    for n in [1000, 4096, 60000, 65537] {
        for seed in 0..4 {
            let order = Order::new(n, seed);
            let (first, second) = (epoch(&order, 0), epoch(&order, 1));
            let positions: Vec<u64> = (0..n).collect();
            // The standard deviation for random permutations is 1 / sqrt(n - 1).
            let limit = 5.0 / (n as f64).sqrt();
            for (what, r) in [
                ("position", correlation(&positions, &first)),
                ("next id", correlation(&first[..first.len() - 1], &first[1..])),
                ("next epoch", correlation(&first, &second)),
            ] {
                assert!(r.abs() < limit, "{what}: {r} for {n} samples, seed {seed}");
            }
            // A random permutation has one fixed point on average (Poisson: more than 10 is one in 10^8).
            assert!(first.iter().zip(&positions).filter(|(a, b)| a == b).count() <= 10);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_epoch_of_any_length_is_a_permutation(n in 1u64..3000, seed: u64, which in 0u64..1_000_000) {
        check_permutation(n, seed, which);
    }

    #[test]
    fn several_ranks_together_see_the_sequence_of_one(n in 1u64..500, seed: u64, steps in 1u64..20) {
        let order = Order::new(n, seed);
        let whole: Vec<u64> = (0..steps * 8).map(|position| order.id_at(position)).collect();
        for world in [1, 2, 3, 4, 8] {
            let cut = |rank: u64| rank * 8 / world;
            let mut seen = Vec::new();
            for step in 0..steps {
                for rank in 0..world {
                    // Each rank creates its own order, as a process does, and starts at any position.
                    let own = Order::new(n, seed);
                    seen.extend((cut(rank)..cut(rank + 1)).map(|slot| own.id_at(step * 8 + slot)));
                }
            }
            prop_assert_eq!(&seen, &whole);
        }
    }
}
