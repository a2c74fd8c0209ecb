//! `eval`: evaluates a model or its samples.

mod classes;
mod compare;
mod fid;
mod kid;
mod nll;
mod pr;

use ddpm_comm::World;
use ddpm_model::Failure;

use crate::cli::EvalCommand;

/// Runs an evaluation on every rank.
pub fn run(command: &EvalCommand, world: &World, json: bool) -> Result<(), Failure> {
    match command {
        EvalCommand::Nll(args) => nll::run(args, world, json),
        EvalCommand::Fid(args) => fid::run(args, world, json),
        EvalCommand::Kid(args) => kid::run(args, world, json),
        EvalCommand::Pr(args) => pr::run(args, world, json),
        EvalCommand::Classes(args) => classes::run(args, world, json),
    }
}
