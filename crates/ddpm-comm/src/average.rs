//! Averaging gradients over the ranks bucket by bucket, while backward computes the rest.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::{Bucket, Buffer, Collective};

/// Averages one long buffer of gradients over the ranks, step after step: during a step on a thread of its own, at its
/// end on the caller's.
///
/// Each rank brings its *share* of the average, the gradient of its loss divided by the number of ranks, so that the
/// average is the shares' sum: nobody has to go through memory for the division.
///
/// The buffer holds one parameter after the other. Neighbours form a bucket, and a bucket is averaged as a whole: once
/// all of its parameters are [`ready`](Self::ready), and those before it in the common order are done. That order is the
/// one in which buckets became ready on rank 0 in the first step, so every rank averages in the same order, whatever the
/// order of its own backward.
///
/// A step is [`begin`](Self::begin), any number of `ready`, and [`finish`](Self::finish). Between the two no rank may
/// call another collective: the thread is at work by itself. Which parameters are told ready, and when, changes no bit
/// of the result; none at all is the blocking way.
pub struct Averager {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    learned: bool,
}

/// What gives the memory of a range of elements to a function.
type Lend = Box<dyn FnMut(Range<usize>, &mut dyn FnMut(Buffer<'_>)) + Send>;

/// What both threads know.
struct Shared {
    comm: Arc<dyn Collective>,
    /// Elements of each bucket.
    buckets: Vec<Range<usize>>,
    /// Each parameter's bucket.
    bucket_of: Vec<usize>,
    state: Mutex<State>,
    /// Whoever averages a bucket holds it. Never taken while `state` is held.
    lend: Mutex<Lend>,
    /// For the thread: a bucket is ready, or all is over.
    work: Condvar,
    /// The caller does not wait yet: it has work for the processor.
    computing: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Between `begin` and `finish`.
    active: bool,
    closed: bool,
    /// Parameters that were told ready in this step.
    told: Vec<bool>,
    /// How many parameters each bucket waits for.
    missing: Vec<usize>,
    /// Buckets in the order in which they became ready in this step.
    became_ready: Vec<usize>,
    /// Buckets in the order in which they are averaged; the same on all ranks.
    order: Vec<usize>,
    /// How many buckets became ready before the step was to end.
    early: usize,
    /// How many of `order` are done in this step.
    averaged: usize,
    /// Sum of the squares of this rank's share of each bucket.
    squares: Vec<f64>,
}

impl State {
    /// The bucket whose turn it is, if it is ready.
    fn next(&self) -> Option<usize> {
        let next = self.order.get(self.averaged).copied();
        next.filter(|&bucket| self.active && self.missing[bucket] == 0)
    }
}

impl Averager {
    /// For parameters of these lengths, one after the other, in buckets of at most `bucket_len` elements (a longer
    /// parameter has a bucket to itself); the same on every rank.
    ///
    /// `lend` gives the memory of a range of elements to the function, for the time of the call. Nobody else may touch it
    /// then, nor, of a GPU's memory, before `finish` has returned: the caller leaves a parameter's gradient alone from
    /// `ready` to `finish`.
    pub fn new(
        comm: Arc<dyn Collective>,
        lens: &[usize],
        bucket_len: usize,
        lend: impl FnMut(Range<usize>, &mut dyn FnMut(Buffer<'_>)) + Send + 'static,
    ) -> Self {
        let (buckets, bucket_of) = cut(lens, bucket_len);
        let state = State {
            told: vec![false; lens.len()],
            missing: vec![0; buckets.len()],
            // Until it is known better: the last layers are the first that backward comes to.
            order: (0..buckets.len()).rev().collect(),
            squares: vec![0.0; buckets.len()],
            ..State::default()
        };
        let shared = Arc::new(Shared {
            comm,
            buckets,
            bucket_of,
            state: Mutex::new(state),
            lend: Mutex::new(Box::new(lend)),
            work: Condvar::new(),
            computing: AtomicBool::new(false),
        });
        let ours = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("gradients".into())
            .spawn(move || ours.serve())
            .expect("the system starts one more thread");
        Self { shared, thread: Some(thread), learned: false }
    }

    /// How many buckets there are.
    pub fn buckets(&self) -> usize {
        self.shared.buckets.len()
    }

    /// How many buckets of the last step had all of their parameters told ready before it was to end, so that averaging
    /// them could begin while backward went on.
    pub fn early(&self) -> usize {
        self.shared.lock().early
    }

    /// A function that tells a parameter, by its index, ready: its gradient is complete. It may be called from any
    /// thread; outside of a step it does nothing.
    ///
    /// # Panics
    /// A parameter is told ready twice in one step: its bucket may be averaged already.
    pub fn ready(&self) -> impl Fn(usize) + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |param| shared.ready(param)
    }

    /// Begins a step, before the last backward that adds to the gradients.
    pub fn begin(&mut self) {
        let mut state = self.shared.lock();
        state.missing.fill(0);
        for &bucket in &self.shared.bucket_of {
            state.missing[bucket] += 1;
        }
        state.told.fill(false);
        state.became_ready.clear();
        state.averaged = 0;
        state.active = true;
        self.shared.computing.store(true, Ordering::Relaxed);
    }

    /// Ends the step: all parameters are taken as ready, used or not; returns when the whole buffer is averaged, or, in a
    /// GPU's memory, when all that its stream does from now on waits for that.
    ///
    /// The result is the squared norm of this rank's share, of what is in the host's memory: the same bits on every
    /// repetition.
    pub fn finish(&mut self) -> f64 {
        let shared = &self.shared;
        let mut state = shared.lock();
        assert!(state.active, "a step is begun before it is finished");
        state.early = state.became_ready.len();
        for bucket in 0..shared.buckets.len() {
            if state.missing[bucket] > 0 {
                state.missing[bucket] = 0;
                state.became_ready.push(bucket);
            }
        }
        shared.computing.store(false, Ordering::Relaxed);
        drop(state);
        while shared.average_next() {}
        shared.comm.settle();
        let mut state = shared.lock();
        state.active = false;
        if !self.learned {
            let order: Vec<u8> = state.became_ready.iter().flat_map(|&bucket| (bucket as u64).to_le_bytes()).collect();
            let order = shared.comm.broadcast_bytes(order, 0);
            state.order = order.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes) as usize).collect();
            self.learned = true;
        }
        state.squares.iter().sum()
    }
}

impl Drop for Averager {
    /// Waits for a bucket under way, which the other ranks average too.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn ready(&self, param: usize) {
        let mut state = self.lock();
        if !state.active {
            return;
        }
        let twice = std::mem::replace(&mut state.told[param], true);
        assert!(!twice, "the gradient of parameter {param} was complete twice in one step");
        let bucket = self.bucket_of[param];
        state.missing[bucket] -= 1;
        if state.missing[bucket] == 0 {
            state.became_ready.push(bucket);
            self.work.notify_one();
        }
    }

    /// The thread: averages what is ready.
    fn serve(&self) {
        let mut state = self.lock();
        while !state.closed {
            if state.next().is_none() {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            self.average_next();
            state = self.lock();
        }
    }

    /// Averages the bucket whose turn it is, after the one under way; false if it is not ready, or none is left.
    fn average_next(&self) -> bool {
        let mut lend = self.lend.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = self.lock().next() else { return false };
        let bucket = Bucket { index, of: self.buckets.len() };
        let mut squares = 0.0;
        lend(self.buckets[index].clone(), &mut |values| match values {
            Buffer::Host(values) => {
                squares = sum_of_squares(values);
                self.comm.sum_bucket(values, bucket, &self.computing);
            }
            Buffer::Device(values) => self.comm.sum_device_bucket(values, bucket),
        });
        let mut state = self.lock();
        state.squares[index] = squares;
        state.averaged += 1;
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The elements of each bucket, and each parameter's bucket.
fn cut(lens: &[usize], bucket_len: usize) -> (Vec<Range<usize>>, Vec<usize>) {
    let mut buckets: Vec<Range<usize>> = Vec::new();
    let mut bucket_of = Vec::with_capacity(lens.len());
    for &len in lens {
        match buckets.last_mut() {
            Some(last) if last.len() + len <= bucket_len => last.end += len,
            last => {
                let start = last.map_or(0, |last| last.end);
                buckets.push(start..start + len);
            }
        }
        bucket_of.push(buckets.len() - 1);
    }
    (buckets, bucket_of)
}

/// The sum of the squares, in an order that depends on the length only. Of a block in f32, in lanes of which the compiler
/// makes vectors; in f64 where that overflows.
fn sum_of_squares(values: &[f32]) -> f64 {
    let of_block = |block: &[f32]| {
        let mut lanes = [0f32; 16];
        let (chunks, rest) = block.as_chunks::<16>();
        let add = |(lane, value): (&mut f32, &f32)| *lane += value * value;
        for chunk in chunks {
            lanes.iter_mut().zip(chunk).for_each(add);
        }
        lanes.iter_mut().zip(rest).for_each(add);
        let sum: f32 = lanes.iter().sum();
        match sum.is_finite() {
            true => f64::from(sum),
            false => block.iter().map(|&value| f64::from(value) * f64::from(value)).sum(),
        }
    };
    values.chunks(1024).map(of_block).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tile_the_buffer_at_the_bounds_of_parameters() {
        let (buckets, bucket_of) = cut(&[3, 3, 4, 11, 0, 1, 9, 1], 10);
        assert_eq!(buckets, [0..10, 10..21, 21..31, 31..32]);
        assert_eq!(bucket_of, [0, 0, 0, 1, 2, 2, 2, 3]);
        assert_eq!(cut(&[], 10), (vec![], vec![]));
    }

    #[test]
    fn squares_add_up_and_beyond_what_f32_holds() {
        assert!((sum_of_squares(&[1e30; 2021]) / (2021.0 * 1e60) - 1.0).abs() < 1e-6);
        let values: Vec<f32> = (0..5003u16).map(|i| f32::from(i % 97)).collect();
        let exact: f64 = values.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
        assert_eq!(sum_of_squares(&values), exact);
        assert_eq!(sum_of_squares(&[3.0, 4.0]), 25.0);
        assert_eq!(sum_of_squares(&[f32::INFINITY]), f64::INFINITY);
        assert!(sum_of_squares(&[1.0, f32::NAN]).is_nan());
    }
}
