//! The model as a whole: an example by hand, and what must hold whatever the numbers are.

use ddpm_plan::{Algorithm, Cluster, Machine, Plan, Transport, Workload};
use ddpm_spec::Precision;
use proptest::prelude::*;

fn workload() -> Workload {
    Workload {
        parameters: 25_000_000,
        averages: 1,
        flops_per_image: 30e9,
        buckets: vec![100e6],
        overlaps: false,
        transport: Transport::Nccl,
        global_batch: 128,
        passes: 1,
        images: 12_800,
        steps: 1000,
        memory_mb: 2000.0,
        save_every: 100,
        restart_s: 30.0,
    }
}

fn cluster(ranks: usize) -> Cluster {
    Cluster {
        ranks,
        machine: Machine::named("h100", Precision::Fp32, Some(100.0), 0.3).unwrap(),
        per_node: 8,
        network_gbit: 400.0,
        latency_us: 20.0,
        jitter: 0.02,
        mtbf_hours: 24.0,
        store_mb_s: 100.0,
    }
}

fn assert_close(value: f64, by_hand: f64) {
    assert!((value - by_hand).abs() < 1e-5 * by_hand, "{value}, by hand {by_hand}");
}

/// 25 million parameters on eight H100 of one node, at 100 TFLOP/s each.
#[test]
fn a_node_by_hand() {
    let plan = Plan::of(&workload(), &cluster(8));
    // 16 images of 30 GFLOP.
    assert_close(plan.compute_s, 4.8e-3);
    // 14 steps of 3.4 us and a call of 8.4 us; 7/4 of 100 MB at 370.8 GB/s. Nothing overlaps.
    assert_close(plan.allreduce_s, 56e-6 + 471.953e-6);
    assert_close(plan.exposed_s, plan.allreduce_s);
    assert_eq!(plan.algorithm, Algorithm::Ring);
    // Two gathers in three rounds and eight broadcasts, a microsecond each.
    assert_close(plan.exchanges_s, 14e-6);
    // 15 passes over 100 MB at 3350 GB/s.
    assert_close(plan.update_s, 447.761e-6);
    // The slowest of eight is 1.4236 standard deviations above the mean.
    assert_close(plan.straggler_s, 1.4236 * 0.02 * 4.8e-3);
    assert_close(plan.step_s, 5.926_380e-3);
    assert_close(plan.images_per_s, 21_598.3);
    assert_close(plan.epoch_s, 0.592_638);
    assert_close(plan.efficiency, 0.885_492);
    // Four copies of the parameters; an eighth of them is read and written in a GPU's memory.
    assert_close(plan.checkpoint_mb, 400.0);
    assert_close(plan.stall_s, 29.850_7e-6);
    assert_close(plan.save_s, 4.000_03);
    assert_close(plan.mtbf_s, 86_400.0);
    assert_close(plan.restart_s, 34.0);
    // Young's interval, 2.27 s, is shorter than a save.
    assert_eq!(plan.best_save_every, 675);
    assert!(plan.best_goodput > plan.goodput, "{plan:?}");
    assert!(plan.fits());
    let rows = plan.rows();
    for text in ["8 on h100, 1 node(s)", "5.93 ms, 21598 images/s", "in a ring", "as given", "one in 1.00 d, 34.0 s"] {
        assert!(rows.contains(text), "{text} in\n{rows}");
    }
}

#[test]
fn what_does_not_fit_is_noticed() {
    let large = Workload { memory_mb: 79_000.0, ..workload() };
    assert!(!Plan::of(&large, &cluster(8)).fits());
}

/// The figure of docs/performance.md: 14.8 MB in buckets of 2 MiB between two hosts on 1 Gbit/s take 235 ms.
#[test]
fn two_hosts_on_a_gigabit_take_as_long_as_measured() {
    let mut run = Workload { buckets: vec![2.115e6; 7], transport: Transport::Mpi, ..workload() };
    let mut hosts = cluster(2);
    hosts.machine = Machine::named("cpu", Precision::Fp32, Some(0.2), 0.3).unwrap();
    (hosts.per_node, hosts.network_gbit, hosts.jitter) = (1, 1.0, 0.0);
    let ratio = Plan::of(&run, &hosts).exposed_s / 0.235;
    assert!((0.85..1.15).contains(&ratio), "{ratio}");
    // Overlap hides most of it behind a backward pass of 0.3 s.
    (run.overlaps, run.flops_per_image, run.global_batch) = (true, 0.45 * 0.2e12 / 32.0, 64);
    let plan = Plan::of(&run, &hosts);
    assert!(plan.exposed_s < 0.2 * plan.allreduce_s, "{plan:?}");
}

/// Networks, latencies and buckets of all kinds.
fn any_cluster() -> impl Strategy<Value = Cluster> {
    let machine = prop_oneof![Just("h100"), Just("l40s"), Just("v100"), Just("rtx4090")];
    (0..11u32, machine, 1..9usize, 0.01..1000.0, 0.0..1000.0, 0.0..0.2).prop_map(
        |(power, name, per_node, network_gbit, latency_us, jitter)| Cluster {
            machine: Machine::named(name, Precision::Auto, None, 0.3).unwrap(),
            per_node,
            network_gbit,
            latency_us,
            jitter,
            ..cluster(1 << power)
        },
    )
}

fn any_workload() -> impl Strategy<Value = Workload> {
    let transport = prop_oneof![Just(Transport::Nccl), Just(Transport::Mpi)];
    (prop::collection::vec(1.0..1e8, 1..20), any::<bool>(), transport, 1..5u64, 1e6..1e13).prop_map(
        |(buckets, overlaps, transport, passes, flops_per_image)| Workload {
            buckets,
            overlaps,
            transport,
            passes,
            flops_per_image,
            global_batch: 1024,
            ..workload()
        },
    )
}

proptest! {
    #[test]
    fn a_faster_network_never_makes_a_step_longer(run in any_workload(), slow in any_cluster(), factor in 1.0..100.0) {
        let fast = Cluster { network_gbit: factor * slow.network_gbit, ..slow.clone() };
        prop_assert!(Plan::of(&run, &fast).step_s <= Plan::of(&run, &slow).step_s * (1.0 + 1e-12));
    }

    #[test]
    fn overlap_never_makes_a_step_longer(run in any_workload(), on in any_cluster()) {
        let [with, without] = [true, false].map(|overlaps| Plan::of(&Workload { overlaps, ..run.clone() }, &on).step_s);
        prop_assert!(with <= without * (1.0 + 1e-12));
    }

    /// Over a network that takes no time. What NVLink and NCCL take is not zero, so the buckets are.
    #[test]
    fn more_ranks_compute_more_on_an_ideal_network(run in any_workload(), on in any_cluster()) {
        let run = Workload { buckets: Vec::new(), ..run };
        let rate = |ranks| {
            let plan = Plan::of(&run, &Cluster { ranks, jitter: 0.0, latency_us: 0.0, ..on.clone() });
            run.global_batch as f64 / (plan.step_s - plan.exchanges_s)
        };
        prop_assert!(rate(2 * on.ranks) >= rate(on.ranks) * (1.0 - 1e-9));
    }

    #[test]
    fn times_are_positive_and_a_step_is_their_sum(run in any_workload(), on in any_cluster()) {
        let plan = Plan::of(&run, &on);
        let parts = [plan.compute_s, plan.straggler_s, plan.exposed_s, plan.exchanges_s, plan.update_s];
        prop_assert!(parts.iter().all(|part| *part >= -1e-12 && part.is_finite()), "{plan:?}");
        prop_assert!((parts.iter().sum::<f64>() - plan.step_s).abs() <= 1e-9 * plan.step_s);
        prop_assert!(plan.exposed_s <= plan.allreduce_s * (1.0 + 1e-9) + 1e-12, "{plan:?}");
        prop_assert!(plan.goodput >= 0.0 && plan.goodput < 1.0 && plan.efficiency <= 1.0 + 1e-9, "{plan:?}");
    }
}
