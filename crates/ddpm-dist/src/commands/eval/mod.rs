//! `eval`: how good a model is, or what was drawn from it.

mod classes;
mod fid;
mod nll;
mod samples;

use ddpm_comm::World;

use crate::cli::EvalCommand;
use crate::failure::Failure;

/// Runs an evaluation on every rank.
pub fn run(command: &EvalCommand, world: &World, json: bool) -> Result<(), Failure> {
    match command {
        EvalCommand::Nll(args) => nll::run(args, world, json),
        EvalCommand::Fid(args) => fid::run(args, world, json),
        EvalCommand::Classes(args) => classes::run(args, world, json),
    }
}
