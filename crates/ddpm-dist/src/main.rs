//! `ddpm-dist`: trains denoising diffusion models across ranks, and samples from them.
//!
//! A reader starts at `trainer/mod.rs`, the loop; `commands/` holds one file per command, `coordinator.rs` what ranks
//! agree on, `assemble.rs` the way from settings to objects.

mod assemble;
mod cli;
mod commands;
mod coordinator;
mod failure;
mod generate;
mod pictures;
mod signals;
mod source;
mod telemetry;
mod threads;
mod trainer;

use std::process::exit;

use clap::{CommandFactory, Parser};
use ddpm_comm::{World, abort, install_panic_hook};
use tracing::level_filters::LevelFilter;

use cli::{Cli, Command};
use failure::{Exit, Failure};

fn main() {
    let cli = Cli::parse();
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "ddpm-dist", &mut std::io::stdout());
        exit(0);
    }
    let world = World::init().unwrap_or_else(|error| abort(Exit::Internal.code(), &error.to_string()));
    install_panic_hook();
    telemetry::init_logging(LevelFilter::INFO, world.rank(), cli.all_ranks);
    threads::limit(world.local_size());
    let exit = match commands::run(&cli, &world) {
        Ok(exit) => exit,
        Err(failure) => {
            report(&world, &failure);
            failure.exit.code()
        }
    };
    world.finish(exit)
}

/// Commands fail alike on every rank, so one of them speaks.
fn report(world: &World, failure: &Failure) {
    if world.rank() == 0 {
        tracing::debug!("exit code {}", failure.exit.code());
        eprintln!("error: {failure}");
    }
}
