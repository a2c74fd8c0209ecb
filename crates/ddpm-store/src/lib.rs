//! Object stores by address: credentials from the environment, retries, and errors that say what to change.
//!
//! [`resolve`] turns `s3://bucket/prefix` into a client, and [`explain`] turns its errors into two sentences.
//! Checkpoints and data sets are reached through them alike.

mod address;
mod certificates;
mod client;
mod credentials;
mod diagnosis;
mod endpoint;
mod patience;
mod variables;

pub use address::{Limits, Location, directory, environment, resolve};
pub use diagnosis::{explain, is_outage};
pub use patience::{be_interactive, patience_or};
