//! The commands, one file each.

mod batch;
mod bench;
mod checkpoints;
mod data;
mod doctor;
mod ema;
mod encode;
mod eval;
mod export;
mod import;
mod patience;
mod plan;
mod plot;
mod sample;
pub mod supervise;
mod train;

use ddpm_comm::{Agreed, World, agree};
use ddpm_model::{Error, Failure, Learner};

use crate::cli::{Cli, Command};
use crate::signals::Signals;

/// Runs a command on every rank and returns the exit status, the same on all ranks.
pub fn run(cli: &Cli, world: &World, signals: &Signals) -> Result<i32, Failure> {
    if !matches!(cli.command, Command::Train(_) | Command::TrainClassifier(_) | Command::Bench(_)) {
        signals.end_at_once();
    }
    if let Some(patience) = cli.patience().map_err(Agreed::known_to_all)? {
        ddpm_store::be_interactive(patience);
    }
    match &cli.command {
        Command::Train(args) => train::run(args, Learner::Diffusion, world, signals.stop(), cli.json),
        Command::TrainClassifier(args) => train::run(args, Learner::Classifier, world, signals.stop(), cli.json),
        Command::Sample(args) => sample::run(args, world, cli.json).map(|()| 0),
        Command::Encode(args) => encode::run(args, world, cli.json).map(|()| 0),
        Command::Eval(command) => eval::run(command, world, cli.json).map(|()| 0),
        Command::Export(args) => export::run(args, world, cli.json).map(|()| 0),
        Command::Ema(args) => ema::run(args, world, cli.json).map(|()| 0),
        Command::Import(args) => import::run(args, world, cli.json).map(|()| 0),
        Command::Checkpoints(command) => on_one_rank(world, || checkpoints::run(command, cli.json)),
        Command::Data(command) => on_one_rank(world, || data::run(command, cli.json)),
        Command::Plot(command) => plot::run(command, world).map(|()| 0),
        Command::Bench(command) => bench::run(command, world, signals.stop(), cli.json),
        Command::Plan(args) => on_one_rank(world, || plan::run(args, cli.json)),
        Command::Doctor(args) => doctor::run(args, world, cli.json).map(|()| 0),
        Command::Completions { .. } | Command::Man { .. } | Command::Supervise(_) => {
            unreachable!("answered before the ranks meet")
        }
    }
}

/// Runs work that needs only one rank on rank 0; all ranks share the outcome.
fn on_one_rank(world: &World, work: impl FnOnce() -> Result<(), Error>) -> Result<i32, Failure> {
    agree::act_on_root(world.collective().as_ref(), work)?;
    Ok(0)
}
