//! Averaging gradients over the ranks bucket by bucket, while backward computes the rest.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::{Bucket, Buffer, Collective};

/// Averages one flat buffer of gradients over the ranks in every step: during the step on its own thread, at the end of
/// the step on the caller's.
///
/// Each rank contributes its *share* of the average, the gradient of its loss divided by the number of ranks, so that
/// the average is the sum of the shares: the division needs no extra pass over memory.
///
/// The buffer holds the parameters one after the other. Adjacent parameters form a bucket, and a bucket is averaged as
/// a whole: once all of its parameters are [`ready`](Self::ready) and all earlier buckets in the common order are done.
/// That order is the one in which buckets became ready on rank 0 in the first step, so every rank averages in the same
/// order, whatever the order of its own backward pass.
///
/// A step consists of [`begin`](Self::begin), any number of `ready` calls, and [`finish`](Self::finish). Between
/// `begin` and `finish` no rank may call another collective, because the thread uses them concurrently. Which
/// parameters are marked ready, and when, does not change a bit of the result; with none, averaging blocks at the end
/// of the step.
pub struct Averager {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    learned: bool,
}

/// Passes the memory of a range of elements to a function.
type Lend = Box<dyn FnMut(Range<usize>, &mut dyn FnMut(Buffer<'_>)) + Send>;

/// State shared by both threads.
struct Shared {
    comm: Arc<dyn Collective>,
    /// Elements of each bucket.
    buckets: Vec<Range<usize>>,
    /// Each parameter's bucket.
    bucket_of: Vec<usize>,
    state: Mutex<State>,
    /// Held while averaging a bucket. Never locked while `state` is held.
    lend: Mutex<Lend>,
    /// Wakes the thread: a bucket is ready, or the averager is closed.
    work: Condvar,
    /// The caller is still computing and not yet waiting.
    computing: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Between `begin` and `finish`.
    active: bool,
    closed: bool,
    /// Parameters marked ready in this step.
    marked: Vec<bool>,
    /// The number of parameters for which each bucket is waiting.
    missing: Vec<usize>,
    /// Buckets in the order in which they became ready in this step.
    became_ready: Vec<usize>,
    /// Buckets in the order in which they are averaged; the same on all ranks.
    order: Vec<usize>,
    /// The number of buckets that became ready before `finish` was called.
    early: usize,
    /// The number of buckets of `order` that are done in this step.
    averaged: usize,
    /// Sum of squares of this rank's share of each bucket.
    squares: Vec<f64>,
}

impl State {
    /// The next bucket in the order, if it is ready.
    fn next(&self) -> Option<usize> {
        let next = self.order.get(self.averaged).copied();
        next.filter(|&bucket| self.active && self.missing[bucket] == 0)
    }
}

impl Averager {
    /// For consecutive parameters of these lengths, in buckets of at most `bucket_len` elements (a longer parameter
    /// gets its own bucket); the arguments are the same on every rank.
    ///
    /// `lend` passes the memory of a range of elements to the function for the duration of the call. Nothing else may
    /// access it during that time, and GPU memory not before `finish` has returned: the caller must not touch a
    /// parameter's gradient between `ready` and `finish`.
    pub fn new(
        comm: Arc<dyn Collective>,
        lens: &[usize],
        bucket_len: usize,
        lend: impl FnMut(Range<usize>, &mut dyn FnMut(Buffer<'_>)) + Send + 'static,
    ) -> Self {
        let (buckets, bucket_of) = cut_into_buckets(lens, bucket_len);
        let state = State {
            marked: vec![false; lens.len()],
            missing: vec![0; buckets.len()],
            // The initial guess: backward reaches the last layers first.
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
            .expect("the system can start another thread");
        Self { shared, thread: Some(thread), learned: false }
    }

    /// The number of buckets.
    pub fn buckets(&self) -> usize {
        self.shared.buckets.len()
    }

    /// The bucket of each parameter.
    pub fn bucket_of(&self) -> &[usize] {
        &self.shared.bucket_of
    }

    /// The number of buckets in the last step whose parameters were all ready before `finish`, so that averaging them
    /// could overlap with backward.
    pub fn early(&self) -> usize {
        self.shared.lock().early
    }

    /// A function that marks a parameter, given by its index, as ready: its gradient is complete. It may be called from
    /// any thread; outside of a step it does nothing.
    ///
    /// # Panics
    /// If a parameter is marked ready twice in one step: its bucket may already have been averaged.
    pub fn ready(&self) -> impl Fn(usize) + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |param| shared.ready(param)
    }

    /// Begins a step; must be called before the last backward pass that adds to the gradients.
    pub fn begin(&mut self) {
        let mut state = self.shared.lock();
        state.missing.fill(0);
        for &bucket in &self.shared.bucket_of {
            state.missing[bucket] += 1;
        }
        state.marked.fill(false);
        state.became_ready.clear();
        state.averaged = 0;
        state.active = true;
        self.shared.computing.store(true, Ordering::Relaxed);
    }

    /// Ends the step: all parameters count as ready, used or not. Returns when the whole buffer has been averaged or,
    /// for GPU memory, when its stream has been made to wait for that.
    ///
    /// Returns the squared norm of this rank's share in host memory, reproducible bit for bit.
    pub fn finish(&mut self) -> f64 {
        let shared = &self.shared;
        let mut state = shared.lock();
        assert!(state.active, "begin must be called before finish");
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
    /// Waits for the bucket in progress, which the other ranks are averaging too.
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
        let twice = std::mem::replace(&mut state.marked[param], true);
        assert!(!twice, "the gradient of parameter {param} was marked ready twice in one step");
        let bucket = self.bucket_of[param];
        state.missing[bucket] -= 1;
        if state.missing[bucket] == 0 {
            state.became_ready.push(bucket);
            self.work.notify_one();
        }
    }

    /// The thread's loop: averages buckets as they become ready.
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

    /// Averages the next bucket, after the one in progress; returns false if it is not ready or none is left.
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

/// Splits consecutive parameters of these lengths into buckets of at most `bucket_len` elements, or of one longer parameter:
/// the elements of each bucket, and the bucket of each parameter.
pub fn cut_into_buckets(lens: &[usize], bucket_len: usize) -> (Vec<Range<usize>>, Vec<usize>) {
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

/// The sum of squares, in an order that depends only on the length. Each block is summed in f32, in lanes that the
/// compiler vectorises; if that overflows, in f64.
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
        let (buckets, bucket_of) = cut_into_buckets(&[3, 3, 4, 11, 0, 1, 9, 1], 10);
        assert_eq!(buckets, [0..10, 10..21, 21..31, 31..32]);
        assert_eq!(bucket_of, [0, 0, 0, 1, 2, 2, 2, 3]);
        assert_eq!(cut_into_buckets(&[], 10), (vec![], vec![]));
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
