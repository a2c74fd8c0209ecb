//! `ddpm-dist`: trains denoising diffusion models across ranks, and samples from them.
//!
//! A reader starts at `trainer/mod.rs`, the loop; `commands/` holds one file per command, `coordinator.rs` what ranks
//! agree on, `assemble.rs` the way from settings to objects.

// A closed pipe or a full disk makes these panic: see output.rs.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod arithmetic;
mod assemble;
mod classifier;
mod cli;
mod commands;
mod coordinator;
mod device;
mod diffusers;
mod failure;
mod finite;
mod generate;
mod huge_pages;
mod image_folder;
mod images;
mod memory;
mod output;
mod pictures;
mod process_charts;
mod resume;
mod run_dir;
mod signals;
mod source;
mod steps;
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
use signals::StopRequest;

fn main() {
    let stop = StopRequest::listen().unwrap_or_else(|failure| abort(failure.exit.code(), &format!("error: {failure}")));
    let typed = Cli::try_parse();
    if let Ok(Cli { command: Command::Completions { shell }, .. }) = typed {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "ddpm-dist", &mut script);
        exit(ended(output::print(String::from_utf8_lossy(&script).trim_end()).map(|()| 0)));
    }
    let world = World::init().unwrap_or_else(|error| abort(Exit::Internal.code(), &error.to_string()));
    let cli = match typed {
        Ok(cli) => cli,
        // Every rank was given the same words, so one of them answers: help, the version, or what is wrong.
        Err(answer) => {
            let printed = if world.rank() == 0 { answer.print() } else { Ok(()) };
            let helped = if answer.use_stderr() { Ok(()) } else { output::printed(printed) };
            world.finish(ended(helped.map(|()| answer.exit_code())))
        }
    };
    install_panic_hook();
    telemetry::init_logging(LevelFilter::INFO, world.rank(), cli.all_ranks);
    threads::limit(&world);
    let exit = match commands::run(&cli, &world, &stop) {
        // The other ranks do not know of it and wait in some collective.
        Err(failure) if !failure.everywhere && world.size() > 1 => failure.end_all(),
        // What abort() says of the step matters on a single rank too where a step ran out of memory.
        Err(failure) if failure.exit == Exit::OutOfMemory && current_step().is_some() => failure.end_all(),
        outcome if world.rank() == 0 => ended(outcome),
        outcome => outcome.unwrap_or_else(|failure| failure.exit.code()),
    };
    world.finish(exit)
}

/// The exit status of what is over; says why it failed, if it did.
fn ended(outcome: Result<i32, Failure>) -> i32 {
    outcome.unwrap_or_else(|failure| {
        match failure.exit {
            // As the user wanted it.
            Exit::Stopped => output::say(&failure),
            _ => output::say(format_args!("error: {failure}")),
        }
        failure.exit.code()
    })
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
