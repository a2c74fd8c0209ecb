//! How a failing rank ends the whole run: it prints its message once, then terminates every rank, in bounded time.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::io::Write;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ::mpi::environment::{is_finalized, is_initialized};
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::Communicator;

use crate::board;

static RANK: AtomicUsize = AtomicUsize::new(0);
static STEP: AtomicU64 = AtomicU64::new(NO_STEP);
static ABORTING: AtomicBool = AtomicBool::new(false);

const NO_STEP: u64 = u64::MAX;

/// The exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

/// Time limit for notifying the other ranks (MPI_Abort) and exiting.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Stack size in bytes of the thread that enforces this limit: more may not be available when memory has run out.
const SMALL_STACK: usize = 256 << 10;

/// Terminates every rank of the run with `code`, after printing `rank R step S: message` to stderr.
///
/// For errors of one rank outside of an [agreement](crate::agree). mpirun exits with `code` too. In a world with one
/// rank the process exits with it. If several threads call this, the first one wins.
pub fn abort(code: i32, message: &str) -> ! {
    abort_after(Duration::ZERO, code, message)
}

/// [`abort`], with a pause after the message so that the other ranks can print theirs.
pub(crate) fn abort_after(grace: Duration, code: i32, message: &str) -> ! {
    thread_local!(static ABORTED_HERE: Cell<bool> = const { Cell::new(false) });
    if ABORTED_HERE.replace(true) {
        // The rest of this function has failed in turn: memory may have run out.
        report(message);
        exit_now(code)
    }
    if ABORTING.swap(true, Ordering::SeqCst) {
        loop {
            thread::park(); // The first caller ends the process.
        }
    }
    // Everything that follows can block: a full pipe, MPI_Abort on a broken network, an exit handler.
    let _ = thread::Builder::new().stack_size(SMALL_STACK).spawn(move || {
        thread::sleep(grace + EXIT_TIMEOUT);
        exit_now(code)
    });
    report(message);
    thread::sleep(grace);
    board::post(board::LEAVING);
    if is_initialized() && !is_finalized() {
        SimpleCommunicator::world().abort(code)
    }
    exit_flushed(code)
}

/// Ends this process with `code` after flushing its output. Nothing else is shut down: the C library's exit handlers,
/// including those of CUDA and libtorch, may hang or crash once a GPU has failed.
pub(crate) fn exit_flushed(code: i32) -> ! {
    let _ = std::io::stdout().flush();
    exit_now(code)
}

/// Ends this process with `code` without flushing its output, for when memory has run out.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any code and has no preconditions.
    unsafe { _exit(code) }
}

/// Prints `rank R step S: message` to stderr.
pub(crate) fn report(message: &str) {
    let step = current_step().map_or(String::new(), |step| format!(" step {step}"));
    let line = format!("rank {}{step}: {}\n", RANK.load(Ordering::Relaxed), message.trim_end());
    // One write, so that the lines of several ranks do not mix.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The step last passed to [`set_step`].
pub fn current_step() -> Option<u64> {
    Some(STEP.load(Ordering::Relaxed)).filter(|&step| step != NO_STEP)
}

/// Makes a panic on any thread of this rank [`abort`] the run with code 101, with a message on one line (and a
/// backtrace if `RUST_BACKTRACE` requests one). Otherwise the other ranks would wait forever.
///
/// A program that expects a harmless panic (on a library's own thread) may wrap this hook in one that calls it for all
/// other panics.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("a panic without a message");
        let text = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let location = info.location().map_or(String::new(), |location| format!(" (at {location})"));
        let backtrace = Backtrace::capture();
        let backtrace = match backtrace.status() {
            BacktraceStatus::Captured => format!("\n{backtrace}"),
            _ => String::new(),
        };
        abort(PANICKED, &format!("{text}{location}{backtrace}"))
    }));
}

/// Sets the current training step, for the messages of [`abort`], panics and the watchdog.
pub fn set_step(step: u64) {
    STEP.store(step, Ordering::Relaxed);
}

pub(crate) fn set_rank(rank: usize) {
    RANK.store(rank, Ordering::Relaxed);
}

unsafe extern "C" {
    /// Ends the process immediately, without running exit handlers, which could block.
    fn _exit(code: i32) -> !;
}
