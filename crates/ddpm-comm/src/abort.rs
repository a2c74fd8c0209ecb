//! How a rank in trouble ends the whole run: the message once, then every rank, in bounded time.

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
static ENDING: AtomicBool = AtomicBool::new(false);

const NO_STEP: u64 = u64::MAX;

/// The exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

/// How long telling the other ranks (MPI_Abort) and the end may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of stack of the thread that sees to that: there may be no more where memory has run out.
const LITTLE: usize = 256 << 10;

/// Ends every rank of the run with `code`, after showing `rank R step S: message` on stderr.
///
/// For errors of one rank where no agreement is near. mpirun exits with `code` too. In a world of one
/// rank the process exits with it. Of several threads that call this, the first one counts.
pub fn abort(code: i32, message: &str) -> ! {
    abort_after(Duration::ZERO, code, message)
}

/// [`abort`], with time between the message and the end for the other ranks to show theirs.
pub(crate) fn abort_after(grace: Duration, code: i32, message: &str) -> ! {
    thread_local!(static ENDED_HERE: Cell<bool> = const { Cell::new(false) });
    if ENDED_HERE.replace(true) {
        // What follows here has failed in its turn: memory may have run out.
        show(message);
        exit_now(code)
    }
    if ENDING.swap(true, Ordering::SeqCst) {
        loop {
            thread::park(); // The first caller ends the process.
        }
    }
    // Whatever comes next can block: a full pipe, MPI_Abort on a broken network, an exit handler.
    let _ = thread::Builder::new().stack_size(LITTLE).spawn(move || {
        thread::sleep(grace + PATIENCE);
        exit_now(code)
    });
    show(message);
    thread::sleep(grace);
    board::post(board::LEAVING);
    if is_initialized() && !is_finalized() {
        SimpleCommunicator::world().abort(code)
    }
    end_at_once(code)
}

/// Ends this process with `code`, once what it printed is out. Nothing else is let go in order: the C library's exit
/// handlers, CUDA's and libtorch's among them, may hang or crash once a GPU has failed.
pub(crate) fn end_at_once(code: i32) -> ! {
    let _ = std::io::stdout().flush();
    exit_now(code)
}

/// Ends this process with `code`, where not even memory is left to have what it printed out.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any code and has no preconditions.
    unsafe { _exit(code) }
}

/// Shows `rank R step S: message` on stderr.
pub(crate) fn show(message: &str) {
    let step = current_step().map_or(String::new(), |step| format!(" step {step}"));
    let line = format!("rank {}{step}: {}\n", RANK.load(Ordering::Relaxed), message.trim_end());
    // One write, so that the lines of several ranks do not mix.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The step that [`set_step`] noted.
pub fn current_step() -> Option<u64> {
    Some(STEP.load(Ordering::Relaxed)).filter(|&step| step != NO_STEP)
}

/// Makes a panic on any thread of this rank [`abort`] the run with code 101, in one line (and a
/// backtrace where `RUST_BACKTRACE` asks for one). Otherwise peers would wait for the rank for ever.
///
/// A program that knows of a harmless panic (a library's own thread) may take this hook and set one
/// that calls it for all other panics.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("a panic without a message");
        let text = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let place = info.location().map_or(String::new(), |place| format!(" (at {place})"));
        let backtrace = Backtrace::capture();
        let backtrace = match backtrace.status() {
            BacktraceStatus::Captured => format!("\n{backtrace}"),
            _ => String::new(),
        };
        abort(PANICKED, &format!("{text}{place}{backtrace}"))
    }));
}

/// Notes the training step in hand, for the messages of [`abort`], panics and the watchdog.
pub fn set_step(step: u64) {
    STEP.store(step, Ordering::Relaxed);
}

pub(crate) fn set_rank(rank: usize) {
    RANK.store(rank, Ordering::Relaxed);
}

unsafe extern "C" {
    /// Ends the process at once, without exit handlers, which could block.
    fn _exit(code: i32) -> !;
}
