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
mod signals;
mod source;
mod telemetry;
mod tensors;
mod threads;
mod trainer;

use std::panic;
use std::process::exit;

use clap::{CommandFactory, Parser};
use ddpm_comm::{World, abort, current_step};
use tracing::level_filters::LevelFilter;

use cli::{Cli, Command};
use failure::{Exit, Failure};

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
        // In the middle of a training, what abort() says of rank and step matters on a single rank too.
        Err(failure) if failure.everywhere || (world.size() == 1 && current_step().is_none()) => {
            if world.rank() == 0 {
                eprintln!("error: {failure}");
            }
            failure.exit.code()
        }
        // The other ranks do not know of it and wait in some collective.
        Err(failure) => failure.end_all(),
    };
    world.finish(exit)
}

/// Lets a panic end the run; one in which tensors say that memory ran out, as that failure and no fault of the program.
fn install_panic_hook() {
    ddpm_comm::install_panic_hook();
    let fault = panic::take_hook();
    panic::set_hook(Box::new(move |info| match info.payload_as_str().and_then(Failure::of_panic) {
        Some(failure) => failure.end_all(),
        None => fault(info),
    }));
}
