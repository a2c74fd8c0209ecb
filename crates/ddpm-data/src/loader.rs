//! The loader: threads that decode one rank's slice of the coming batches, and prepare what else these need, ahead of
//! the trainer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::announce::Announced;
use crate::batch::{Batch, Prepare, label};
use crate::hash::keyed;
use crate::interrupt::{LOOK, heeding, is_stopped};
use crate::replace::read_or_next;
use crate::{DataError, Depth, ImageShape, Order, Source, image_bytes};

/// The stream of [`keyed`] for flips.
const STREAM: u64 = 3;

/// What a rank loads, and how.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// Images per step over all ranks.
    pub global_batch: usize,
    /// This rank's slots inside the global batch.
    pub slice: Range<usize>,
    /// The step of the first batch.
    pub start_step: u64,
    /// Decoding threads, at least 1; each works on its own batch.
    pub workers: usize,
    /// Batches that are ready or being decoded at any time, at least one per worker. This bounds the loader's memory.
    pub prefetch: usize,
    /// Mirror half of the images left to right.
    pub flip: bool,
    /// Determines, together with the position, which images are mirrored.
    pub flip_seed: u64,
}

/// Delivers an endless sequence of batches from `start_step` on, the same for any number of threads.
///
/// Dropping it stops the threads after the image that each is decoding; none waits for an object store any longer.
pub struct Loader<P: Prepare = ()> {
    shared: Arc<Shared<P>>,
    threads: Vec<JoinHandle<()>>,
}

impl<P: Prepare> Loader<P> {
    /// Starts the threads, which begin to decode immediately.
    ///
    /// # Errors
    /// [`DataError::Setting`] if slice, batch or workers are invalid or `order` differs in length from `source`;
    /// [`DataError::Thread`] if a thread cannot be started.
    pub fn new(source: Arc<dyn Source>, order: Order, config: LoaderConfig, prepare: P) -> Result<Self, DataError> {
        let LoaderConfig { global_batch, slice, workers, prefetch, .. } = &config;
        if slice.is_empty() || slice.end > *global_batch {
            return Err(DataError::Setting(format!(
                "slots {slice:?} are not part of a global batch of {global_batch}; give every rank at least one image"
            )));
        }
        if *workers == 0 {
            return Err(DataError::Setting("data.workers is 0; set it to at least 1".into()));
        }
        if order.len() != source.len() {
            return Err(DataError::Setting(format!(
                "the order covers {} samples, but the data set has {}; create the order with the length of the data set",
                order.len(),
                source.len()
            )));
        }
        let (workers, start) = (*workers, config.start_step);
        let window = (*prefetch).max(workers) as u64;
        let queue = Queue { claimed: start, wanted: start, done: BTreeMap::new(), spare: Vec::new(), skipped: 0 };
        let shared = Arc::new(Shared {
            image: source.image(),
            depth: source.depth(),
            source,
            order,
            config,
            prepare,
            window,
            announced: Mutex::new(Announced::from(start)),
            due: AtomicU64::new(start),
            stop: Arc::default(),
            queue: Mutex::new(queue),
            room: Condvar::new(),
            ready: Condvar::new(),
        });
        let mut loader = Loader { shared, threads: Vec::with_capacity(workers) };
        for i in 0..workers {
            let shared = Arc::clone(&loader.shared);
            let work = move || heeding(Arc::clone(&shared.stop), || shared.work());
            let thread = thread::Builder::new().name(format!("loader-{i}")).spawn(work);
            loader.threads.push(thread.map_err(DataError::Thread)?);
        }
        Ok(loader)
    }

    /// The batch of the next step; waits until it is ready. An object store that does not respond is retried for minutes.
    ///
    /// # Errors
    /// Those of [`Source::read`] and of [`Prepare`], at the step to which they belong and not before; the next call
    /// returns the following step. [`DataError::Stopped`] if the caller's thread [heeds](crate::heeding) a request that
    /// comes while the batch is not ready, which may still be taken later.
    pub fn next(&self) -> Result<Batch<P::Prepared>, DataError> {
        let mut queue = self.shared.queue();
        loop {
            let step = queue.wanted;
            if let Some(result) = queue.done.remove(&step) {
                queue.wanted += 1;
                queue.skipped += result.as_ref().map_or(0, |batch| batch.skipped);
                self.shared.room.notify_one();
                return result;
            }
            if is_stopped() {
                return Err(DataError::Stopped);
            }
            queue = self.shared.ready.wait_timeout(queue, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns a batch, so that its memory can be reused.
    pub fn recycle(&self, batch: Batch<P::Prepared>) {
        let mut queue = self.shared.queue();
        if (queue.spare.len() as u64) < self.shared.window {
            queue.spare.push(batch);
        }
    }

    /// The number of corrupt images replaced in the batches delivered so far.
    pub fn skipped(&self) -> u64 {
        self.shared.queue().skipped
    }
}

impl<P: Prepare> Drop for Loader<P> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Taking the lock makes the flag visible to any worker that is about to wait.
        drop(self.shared.queue());
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // Workers catch panics themselves; there is no result to check.
            let _ = thread.join();
        }
    }
}

/// Mirrors each row of `width` values left to right.
fn mirror(image: &mut [u8], width: usize, depth: Depth) {
    let value = depth.bytes();
    for row in image.chunks_exact_mut(width * value) {
        row.reverse();
        if value > 1 {
            row.chunks_exact_mut(value).for_each(<[u8]>::reverse);
        }
    }
}

struct Shared<P: Prepare> {
    source: Arc<dyn Source>,
    image: ImageShape,
    depth: Depth,
    order: Order,
    config: LoaderConfig,
    prepare: P,
    window: u64,
    announced: Mutex<Announced>,
    /// The step that has to be wanted before more is announced.
    due: AtomicU64,
    stop: Arc<AtomicBool>,
    queue: Mutex<Queue<P::Prepared>>,
    /// Signalled when a batch was taken, so that another may be started.
    room: Condvar,
    /// Signalled when a batch is finished.
    ready: Condvar,
}

/// Steps `wanted..claimed` are finished (`done`) or being decoded.
struct Queue<T> {
    claimed: u64,
    wanted: u64,
    done: BTreeMap<u64, Result<Batch<T>, DataError>>,
    spare: Vec<Batch<T>>,
    skipped: u64,
}

impl<P: Prepare> Shared<P> {
    fn queue(&self) -> MutexGuard<'_, Queue<P::Prepared>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A worker's loop: claims the next step while there is room, decodes it, stores the batch.
    fn work(&self) {
        let mut queue = self.queue();
        while !self.stopped() {
            if queue.claimed - queue.wanted >= self.window {
                queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let step = queue.claimed;
            queue.claimed += 1;
            let (spare, wanted) = (queue.spare.pop().unwrap_or_default(), queue.wanted);
            drop(queue);
            let fill = || {
                self.announce(wanted);
                self.fill(step, spare)
            };
            let result = catch_unwind(AssertUnwindSafe(fill)).unwrap_or(Err(DataError::Panicked { step }));
            queue = self.queue();
            queue.done.insert(step, result);
            self.ready.notify_all();
        }
    }

    /// Tells the source which images it will be asked for, unless another thread is doing that. It does so for many
    /// steps at once, whenever half of them have been delivered: the source can then fetch together what is adjacent.
    fn announce(&self, wanted: u64) {
        let (horizon, Ok(mut announced)) = (self.source.horizon(), self.announced.try_lock()) else { return };
        if horizon == 0 || wanted < self.due.load(Ordering::Relaxed) {
            return;
        }
        let mut end = wanted;
        announced.extend(wanted, horizon, |step| {
            end = step + 1;
            let ids: Vec<u64> = self.positions(step).map(|position| self.order.id_at(position)).collect();
            self.source.announce(&ids)
        });
        self.due.store(wanted + (end - wanted) / 2, Ordering::Relaxed);
    }

    /// The positions in the run of this rank's images of a step.
    fn positions(&self, step: u64) -> Range<u64> {
        let first = step * self.config.global_batch as u64 + self.config.slice.start as u64;
        first..first + self.config.slice.len() as u64
    }

    fn fill(&self, step: u64, mut batch: Batch<P::Prepared>) -> Result<Batch<P::Prepared>, DataError> {
        let LoaderConfig { slice, flip, flip_seed, .. } = &self.config;
        let bytes = image_bytes(self.source.as_ref());
        batch.step = step;
        batch.first_position = self.positions(step).start;
        batch.images.resize(slice.len() * bytes, 0);
        batch.labels.clear();
        batch.ids.clear();
        batch.skipped = 0;
        for (position, out) in (batch.first_position..).zip(batch.images.chunks_exact_mut(bytes)) {
            if self.stopped() {
                return Ok(batch); // Nobody takes it.
            }
            let wanted = self.order.id_at(position);
            let (id, class) = read_or_next(self.source.as_ref(), wanted, out)?;
            batch.skipped += u64::from(id != wanted);
            batch.ids.push(id);
            batch.labels.push(label(class));
            if *flip && keyed(*flip_seed, STREAM, position) & 1 == 1 {
                mirror(out, self.image.width, self.depth);
            }
        }
        self.prepare.prepare(&mut batch).map_err(|source| DataError::Prepare { step, source })?;
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred images in a store that does not respond before it is told to.
    #[derive(Default)]
    struct Slow {
        responds: AtomicBool,
        reads: AtomicU64,
        /// How many images had been read when each was announced first.
        announced: Mutex<BTreeMap<u64, u64>>,
    }

    impl Source for Slow {
        fn len(&self) -> u64 {
            100
        }

        fn image(&self) -> ImageShape {
            ImageShape::square(1, 1)
        }

        fn classes(&self) -> Option<usize> {
            None
        }

        fn fingerprint(&self) -> u64 {
            0
        }

        fn read(&self, _: u64, out: &mut [u8]) -> Result<Option<u32>, DataError> {
            while !self.responds.load(Ordering::Relaxed) {
                thread::sleep(LOOK);
            }
            self.reads.fetch_add(1, Ordering::Relaxed);
            out.fill(7);
            Ok(None)
        }

        fn horizon(&self) -> u64 {
            80
        }

        fn announce(&self, ids: &[u64]) -> u64 {
            let reads = self.reads.load(Ordering::Relaxed);
            let mut announced = self.announced.lock().unwrap();
            for id in ids {
                announced.entry(*id).or_insert(reads);
            }
            10 * ids.len() as u64
        }

        fn describe(&self) -> String {
            String::new()
        }
    }

    fn load(source: &Arc<Slow>) -> Loader {
        let config = LoaderConfig {
            global_batch: 1,
            slice: 0..1,
            start_step: 0,
            workers: 1,
            prefetch: 1,
            flip: false,
            flip_seed: 0,
        };
        Loader::new(Arc::clone(source) as Arc<dyn Source>, Order::new(100, 3), config, ()).unwrap()
    }

    #[test]
    fn a_request_to_stop_is_heard_while_a_batch_is_waited_for() {
        let source = Arc::new(Slow::default());
        let loader = load(&source);
        let stopped = heeding(Arc::new(AtomicBool::new(true)), || loader.next());
        assert!(matches!(stopped, Err(DataError::Stopped)), "{stopped:?}");
        source.responds.store(true, Ordering::Relaxed);
        let first = loader.next().unwrap();
        assert_eq!((first.step, &first.images[..]), (0, &[7][..]), "nothing is lost");
        assert_eq!(loader.next().unwrap().step, 1);
    }

    #[test]
    fn batches_are_announced_many_at_a_time() {
        let source = Arc::new(Slow { responds: AtomicBool::new(true), ..Slow::default() });
        let loader = load(&source);
        (0..40).for_each(|step| assert_eq!(loader.next().unwrap().step, step));
        let announced = source.announced.lock().unwrap();
        let order = Order::new(100, 3);
        let moments: Vec<u64> = (0..40).map(|position| announced[&order.id_at(position)]).collect();
        // Eight steps fit; after that, four at a time, when four have been delivered.
        assert_eq!(moments[..16], [0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8]);
    }
}
