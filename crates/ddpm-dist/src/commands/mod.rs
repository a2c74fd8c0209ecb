//! The commands, one file each.

mod data;
mod doctor;
mod plot;
mod sample;
mod train;

use ddpm_comm::World;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

/// Runs a command on every rank and gives the exit status that all ranks end with.
pub fn run(cli: &Cli, world: &World) -> Result<i32, Failure> {
    match &cli.command {
        Command::Train(args) => return train::run(args, world, cli.json),
        Command::Sample(args) => sample::run(args, world, cli.json)?,
        // One rank is enough for the rest; the others wait for it in World::finish.
        _ if world.rank() != 0 => {}
        Command::Data(command) => data::run(command, cli.json)?,
        Command::Plot(command) => plot::run(command)?,
        Command::Doctor => return doctor::run(world, cli.json),
        Command::Completions { .. } => unreachable!("answered before the ranks meet"),
    }
    Ok(0)
}
