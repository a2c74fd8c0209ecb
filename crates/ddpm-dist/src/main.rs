//! `ddpm-dist`: trains denoising diffusion models across ranks, and samples from them.
//!
//! A reader starts at `trainer/mod.rs`, the loop; `commands/` holds one file per command, `coordinator.rs` what ranks
//! agree on, `assemble.rs` the way from settings to objects.

mod assemble;
mod classifier;
mod cli;
mod commands;
mod coordinator;
mod device;
mod failure;
mod generate;
mod huge_pages;
mod images;
mod memory;
mod pictures;
mod process_charts;
mod resume;
mod run_dir;
mod signals;
mod source;
mod telemetry;
mod tensors;
mod threads;
mod trainer;

use std::process::exit;

use clap::{CommandFactory, Parser};
use ddpm_comm::{World, abort, install_panic_hook};
use tracing::level_filters::LevelFilter;

use cli::{Cli, Command};
use failure::Exit;

fn main() {
    let typed = Cli::try_parse();
    if let Ok(Cli { command: Command::Completions { shell }, .. }) = typed {
        clap_complete::generate(shell, &mut Cli::command(), "ddpm-dist", &mut std::io::stdout());
        exit(0);
    }
    let world = World::init().unwrap_or_else(|error| abort(Exit::Internal.code(), &error.to_string()));
    let cli = match typed {
        Ok(cli) => cli,
        // Every rank was given the same words, so one of them answers: help, the version, or what is wrong.
        Err(answer) => {
            if world.rank() == 0 {
                let _ = answer.print();
            }
            world.finish(answer.exit_code())
        }
    };
    install_panic_hook();
    telemetry::init_logging(LevelFilter::INFO, world.rank(), cli.all_ranks);
    threads::limit(&world);
    let exit = match commands::run(&cli, &world) {
        Ok(exit) => exit,
        Err(failure) if failure.everywhere || world.size() == 1 => {
            if world.rank() == 0 {
                eprintln!("error: {failure}");
            }
            failure.exit.code()
        }
        // The other ranks do not know of it and wait in some collective.
        Err(failure) => abort(failure.exit.code(), &format!("error: {failure}")),
    };
    world.finish(exit)
}
