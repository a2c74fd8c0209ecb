//! Examines machines before training: [`examine`] one, [`examine_ranks`] all ranks of a run together.
//!
//! Problems are reported as text, with the fix. Nothing is changed: what is written to find out whether that is
//! possible is deleted again.

mod examination;
mod facts;
mod machine;
mod remarks;
mod store;
mod table;

pub use examination::{Examination, examine_ranks};
pub use machine::{Finding, examine};
