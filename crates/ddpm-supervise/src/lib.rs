//! Keeps a training job running until it is done: starts it, waits and starts it again when it fails, on as many ranks
//! as its hosts allow.
//!
//! `decide.rs` makes every decision, from what has happened and what time it is; it starts no process and reads no
//! clock. [`supervise`] carries them out: it starts the job, relays its output, asks hosts whether they answer, and
//! reports each event as a line of JSON.

mod account;
mod command;
mod decide;
mod duration;
mod ending;
mod error;
mod events;
mod fleet;
mod hosts;
mod job;
mod probe;
mod restarts;
mod supervise;
mod tally;
mod verdict;

#[cfg(test)]
mod tests;

pub use decide::Policy;
pub use duration::{duration, interval};
pub use error::Error;
pub use restarts::Backoff;
pub use supervise::{Report, Request, Task, supervise};
