//! The conformance suite for every `Collective` in any world; runs on all ranks at once.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ddpm_comm::{Averager, Buffer, Collective, CommError, Reduce, agree};
use serde::{Deserialize, Serialize};

/// Panics at the first violation.
pub fn check(shared: &Arc<dyn Collective>) {
    let comm = shared.as_ref();
    assert!(comm.rank() < comm.size());
    let mut lens = vec![0, 1, 2, 3, 7, 64, 1023, 4097, 1_500_001];
    let mut random = Random(7);
    lens.extend((0..10).map(|_| (random.next() % 40_000) as usize));
    for &len in &lens {
        reduces(comm, len);
        broadcasts(comm, len);
    }
    reduces_what_is_not_finite(comm);
    gathers(comm);
    agrees(comm);
    keeps_order(comm, &mut random);
    serves_other_threads(comm);
    exceeds_one_call(comm);
    averages(comm, shared, &mut random);
    averages_beside_other_work(shared);
}

/// More elements than the MPI implementation passes in one call.
fn exceeds_one_call(comm: &dyn Collective) {
    let len = (1 << 24) + 5;
    let mut values = vec![comm.rank() as f32; len];
    comm.all_reduce(&mut values, Reduce::Mean);
    let mean = (0..comm.size()).sum::<usize>() as f32 / comm.size() as f32;
    assert!(values.iter().all(|&x| x == mean));
    let bytes = comm.broadcast_bytes(vec![comm.rank() as u8 + 1; len], 0);
    assert!(bytes.len() == len && bytes.iter().all(|&x| x == 1));
}

fn reduces(comm: &dyn Collective, len: usize) {
    let size = comm.size() as u64;
    let sum = |i: u64| (0..size).map(|rank| whole(rank, i)).sum::<u64>();
    let mine = || (0..len as u64).map(|i| whole(comm.rank() as u64, i));

    // Whole numbers: exact in any order of summation.
    let mut values: Vec<f32> = mine().map(|x| x as f32).collect();
    comm.all_reduce(&mut values, Reduce::Sum);
    assert!((0..).zip(&values).all(|(i, &x)| x == sum(i) as f32), "sum of {len}");
    let mut values: Vec<f32> = mine().map(|x| x as f32).collect();
    comm.all_reduce(&mut values, Reduce::Mean);
    assert!((0..).zip(&values).all(|(i, &x)| x == sum(i) as f32 / size as f32), "mean of {len}");
    let mut values: Vec<f64> = mine().map(|x| x as f64).collect();
    comm.all_reduce_f64(&mut values, Reduce::Mean);
    assert!((0..).zip(&values).all(|(i, &x)| x == sum(i) as f64 / size as f64), "f64 of {len}");

    // Fractions: the order of summation affects the last bits, which must agree on all ranks, twice.
    let mut repeated = [0, 1].map(|_| {
        let mut values: Vec<f32> = mine().map(|x| (x as f32 + 0.1).sin()).collect();
        comm.all_reduce(&mut values, Reduce::Mean);
        hash(values.iter().flat_map(|x| x.to_ne_bytes()))
    });
    assert_eq!(repeated[0], repeated[1], "two reductions of {len}");
    for theirs in comm.gather_bytes(&repeated[0].to_ne_bytes()) {
        assert_eq!(theirs, repeated[0].to_ne_bytes(), "bits of {len}");
    }
    let mut values: Vec<f64> = mine().map(|x| (x as f64 + 0.1).sin()).collect();
    comm.all_reduce_f64(&mut values, Reduce::Sum);
    repeated[0] = hash(values.iter().flat_map(|x| x.to_ne_bytes()));
    for theirs in comm.gather_bytes(&repeated[0].to_ne_bytes()) {
        assert_eq!(theirs, repeated[0].to_ne_bytes(), "f64 bits of {len}");
    }
}

fn reduces_what_is_not_finite(comm: &dyn Collective) {
    let last = comm.rank() == comm.size() - 1;
    let mut values = [1.0, if last { f32::NAN } else { 1.0 }, if last { f32::INFINITY } else { 1.0 }];
    comm.all_reduce(&mut values, Reduce::Mean);
    assert_eq!(values[0], 1.0);
    assert!(values[1].is_nan());
    assert_eq!(values[2], f32::INFINITY);
}

fn broadcasts(comm: &dyn Collective, len: usize) {
    // Every root in turn, or a single one for large buffers.
    let roots = if len < 100_000 { 0..comm.size() } else { comm.size() - 1..comm.size() };
    for root in roots {
        let of = |rank: usize| (0..len as u64).map(move |i| whole(rank as u64, i));
        let mut values: Vec<f32> = of(comm.rank()).map(|x| x as f32).collect();
        comm.broadcast(&mut values, root);
        assert!(values.iter().zip(of(root)).all(|(&x, y)| x == y as f32), "{len} from {root}");

        // The other ranks' arguments are ignored, whatever their length.
        let mine = if comm.rank() == root { of(root).map(|x| x as u8).collect() } else { vec![9; comm.rank() * 5] };
        let bytes = comm.broadcast_bytes(mine, root);
        assert_eq!(bytes.len(), len);
        assert!(bytes.iter().zip(of(root)).all(|(&x, y)| x == y as u8), "{len} from {root}");
    }
}

fn gathers(comm: &dyn Collective) {
    // The lowest rank sends nothing; the others send increasing amounts, up to megabytes.
    for factor in [0, 1, 13, 1_000_003] {
        let of = |rank: usize| (0..(rank * factor) as u64).map(|i| whole(rank as u64, i) as u8).collect::<Vec<_>>();
        let all = comm.gather_bytes(&of(comm.rank()));
        assert_eq!(all.len(), comm.size());
        for (rank, theirs) in all.iter().enumerate() {
            assert!(*theirs == of(rank), "{factor} bytes per rank, from {rank}");
        }
        for root in 0..comm.size() {
            let gathered = comm.gather_bytes_to(of(comm.rank()), root);
            let expected = if comm.rank() == root { &all[..] } else { &[] };
            assert!(gathered == expected, "{factor} bytes per rank, to {root}");
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Fault {
    Full { disk: usize },
    Silent,
    Comm(String),
}

impl From<CommError> for Fault {
    fn from(error: CommError) -> Self {
        Self::Comm(error.to_string())
    }
}

fn agrees(comm: &dyn Collective) {
    let (rank, last) = (comm.rank(), comm.size() - 1);
    let failed = |result: Result<usize, Fault>| {
        let agreed = agree::unanimous(comm, result).unwrap_err();
        (agreed.rank(), agreed.error().clone())
    };
    assert_eq!(agree::unanimous::<_, Fault>(comm, Ok(rank)), Ok(rank));
    let one = if rank == last { Err(Fault::Full { disk: last }) } else { Ok(rank) };
    assert_eq!(failed(one), (last, Fault::Full { disk: last }));
    // The lowest rank's counts.
    assert_eq!(failed(Err(Fault::Full { disk: rank })), (0, Fault::Full { disk: 0 }));
    assert_eq!(failed(if rank == 0 { Err(Fault::Silent) } else { Ok(rank) }), (0, Fault::Silent));

    assert!(!agree::any(comm, false));
    assert!(agree::any(comm, rank == last));
    assert!(agree::alike(comm, b"same"));
    assert_eq!(agree::alike(comm, &[rank as u8]), comm.size() == 1);

    let odd = |rank: usize| (rank % 2 == 1).then_some(rank);
    let ranks = agree::exchange(comm, odd(rank).as_ref()).unwrap();
    assert!(ranks.into_iter().eq((0..comm.size()).map(odd)));
    let root = agree::on_root(comm, || Ok::<_, Fault>((rank, "plan".to_owned())));
    assert_eq!(root, Ok((0, "plan".to_owned())));
    let refused = agree::on_root(comm, || Err::<usize, _>(Fault::Full { disk: 7 }));
    assert_eq!(refused.map_err(|agreed| (agreed.rank(), agreed.error().clone())), Err((0, Fault::Full { disk: 7 })));
}

/// A long mixed sequence without barriers: no operation may receive another's data.
fn keeps_order(comm: &dyn Collective, random: &mut Random) {
    let size = comm.size();
    for round in 0..300 {
        let root = random.next() as usize % size;
        match random.next() % 5 {
            0 => {
                let mut values = [round as f64];
                comm.all_reduce_f64(&mut values, Reduce::Sum);
                assert_eq!(values, [(round * size) as f64]);
            }
            1 => {
                let mut values = [(round * size + comm.rank()) as f32; 3];
                comm.broadcast(&mut values, root);
                assert_eq!(values, [(round * size + root) as f32; 3]);
            }
            2 => {
                let text = format!("{round} of {}", comm.rank());
                let text = comm.broadcast_bytes(text.into(), root);
                assert_eq!(text, format!("{round} of {root}").as_bytes());
            }
            3 => {
                assert!(agree::any(comm, comm.rank() == root));
            }
            _ => comm.barrier(),
        }
    }
}

fn serves_other_threads(comm: &dyn Collective) {
    std::thread::scope(|scope| {
        scope.spawn(|| reduces(comm, 1000));
    });
    reduces(comm, 1000);
}

/// Gradients averaged in buckets equal buckets averaged one by one, bit for bit, whatever the order in which parameters
/// become ready on each rank.
fn averages(comm: &dyn Collective, shared: &Arc<dyn Collective>, random: &mut Random) {
    let lens: Vec<usize> = (0..40).map(|_| 1 + (random.next() % 3000) as usize).collect();
    let len = lens.iter().sum();
    let memory = Arc::new(Mutex::new(vec![0f32; len]));
    let order = Arc::new(Mutex::new(Vec::new()));
    let (lent, log) = (Arc::clone(&memory), Arc::clone(&order));
    let mut averager = Averager::new(Arc::clone(shared), &lens, 7000, move |range, body| {
        log.lock().unwrap().push(range.clone());
        body(Buffer::Host(&mut lent.lock().unwrap()[range]));
    });
    let ready = averager.ready();
    assert!(averager.buckets() > 5);
    ready(0); // Has no effect outside of a step.
    let mut first = Vec::new();
    for step in 0..3 {
        let value = |i: usize| (whole(comm.rank() as u64, (step * len + i) as u64) as f32 + 0.1).sin();
        let ours: Vec<f32> = (0..len).map(value).collect();
        memory.lock().unwrap().copy_from_slice(&ours);
        averager.begin();
        // Every rank in a different order, and a quarter of the parameters not at all.
        let mut random = Random((step * 8 + comm.rank()) as u64);
        let mut params: Vec<usize> = (0..lens.len()).collect();
        params.sort_by_cached_key(|_| random.next());
        params.truncate(if step == 0 { lens.len() } else { 30 });
        std::thread::scope(|scope| {
            scope.spawn(|| params.iter().for_each(|&param| ready(param)));
        });
        let squares = averager.finish();
        let expected: f64 = ours.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert!((squares / expected - 1.0).abs() < 1e-6, "{squares} is not {expected}");

        let order = std::mem::take(&mut *order.lock().unwrap());
        let mut expected = ours;
        for range in &order {
            comm.all_reduce(&mut expected[range.clone()], Reduce::Sum);
        }
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(&memory.lock().unwrap()) == bits(&expected), "step {step}");
        // The order of the first step is a guess; that of later steps is rank 0's order in the first step.
        assert!(comm.gather_bytes(format!("{order:?}").as_bytes()).windows(2).all(|pair| pair[0] == pair[1]));
        match step {
            0 => {
                assert!(order.is_sorted_by(|a, b| a.start > b.start));
                // A bucket becomes ready with the last of its parameters.
                let mut end = 0;
                let bucket_of = lens.iter().map(|len| {
                    end += len;
                    order.iter().position(|range| range.end >= end && range.start < end).expect("buckets tile")
                });
                let bucket_of: Vec<usize> = bucket_of.collect();
                let last = |bucket| params.iter().rposition(|&param| bucket_of[param] == bucket);
                first = (0..order.len()).collect();
                first.sort_by_key(|&bucket| last(bucket));
                first = first.iter().map(|&bucket| order[bucket].start).collect();
            }
            _ if comm.rank() == 0 => {
                assert!(order.iter().map(|range| range.start).eq(first.iter().copied()), "{order:?}")
            }
            _ => {}
        }
    }
}

/// A bucket is averaged while backward continues.
fn averages_beside_other_work(shared: &Arc<dyn Collective>) {
    let share = 1.0 + shared.rank() as f32;
    let memory = Arc::new(Mutex::new(vec![share; 6]));
    let lent = Arc::clone(&memory);
    let mut averager = Averager::new(Arc::clone(shared), &[2, 2, 2], 2, move |range, body| {
        body(Buffer::Host(&mut lent.lock().unwrap()[range]));
    });
    let ready = averager.ready();
    let sum = (1..=shared.size()).sum::<usize>() as f32;
    averager.begin();
    for (param, start) in [(2, 4), (1, 2)] {
        ready(param);
        let deadline = Instant::now() + Duration::from_secs(60);
        while memory.lock().unwrap()[start] != sum {
            assert!(Instant::now() < deadline, "the bucket of parameter {param} is not averaged before the end");
            std::thread::yield_now();
        }
    }
    assert_eq!(memory.lock().unwrap()[0], share);
    averager.finish();
    assert_eq!(*memory.lock().unwrap(), [sum; 6]);
}

/// A whole number below 2^16, different for neighbouring ranks and indices.
fn whole(rank: u64, i: u64) -> u64 {
    Random(rank << 40 | i).next() & 0xffff
}

/// SplitMix64: the same sequence on every rank.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// FNV-1a.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
