//! `ddpm-dist`: trains denoising diffusion models across ranks, and samples from them.
//!
//! `cli/` defines the command line, `commands/` has one file per command. Training itself is in the crate
//! `ddpm-train`; opening a model and drawing from it is in `ddpm-model`.

// A closed pipe or a full disk makes these panic: see output.rs.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod allocator;
mod cli;
mod commands;
mod failure;
mod model_data;
mod output;
mod plan;
mod shell;
mod signals;

use std::panic;
use std::process::exit;

use ddpm_comm::{World, abort, current_step};
use ddpm_model::{Error, ErrorKind, Failure};
use tracing::level_filters::LevelFilter;

use cli::Cli;
use failure::{Exit, end_all, worded};
use signals::Signals;

fn main() {
    let signals = Signals::listen().unwrap_or_else(|error| end_all(&error));
    let typed = Cli::of_process();
    if let Some(done) = typed.as_ref().ok().and_then(|cli| shell::run(&cli.command)) {
        exit(ended(done.map(|()| 0).map_err(Failure::from)));
    }
    if let Ok(Cli { command: cli::Command::Supervise(args), .. }) = &typed {
        ddpm_telemetry::init_logging(LevelFilter::INFO, 0, false);
        exit(ended(commands::supervise::run(args, &signals).map_err(Failure::from)));
    }
    let world = World::init().unwrap_or_else(|error| abort(Exit::Internal.code(), &error.to_string()));
    let cli = match typed {
        Ok(cli) => cli,
        // Every rank has the same arguments, so a single one prints the help, the version, or what is wrong.
        Err(answer) => {
            let printed = if world.rank() == 0 { answer.print() } else { Ok(()) };
            let helped = if answer.use_stderr() { Ok(()) } else { output::printed(printed) };
            world.finish(ended(helped.map(|()| answer.exit_code()).map_err(Failure::from)))
        }
    };
    install_panic_hook();
    ddpm_telemetry::init_logging(LevelFilter::INFO, world.rank(), cli.all_ranks);
    ddpm_train::limit_threads(&world);
    let exit = match commands::run(&cli, &world, &signals) {
        // The other ranks do not know of it and wait in some collective.
        Err(Failure::Alone(error)) if world.size() > 1 => end_all(&error),
        // abort() also reports the step, which helps on a single rank too if a step ran out of memory.
        Err(failure) if failure.kind() == ErrorKind::OutOfMemory && current_step().is_some() => {
            abort(Exit::OutOfMemory.code(), &format!("error: {}", worded(&failure)))
        }
        outcome if world.rank() == 0 => ended(outcome),
        outcome => outcome.unwrap_or_else(|failure| Exit::from(failure.kind()).code()),
    };
    world.finish(exit)
}

/// The exit status of a finished command; prints why it failed, if it did.
fn ended(outcome: Result<i32, Failure>) -> i32 {
    outcome.unwrap_or_else(|failure| {
        match failure.kind() {
            // As the user wanted it.
            ErrorKind::Stopped => output::say(worded(&failure)),
            _ => output::say(format_args!("error: {}", worded(&failure))),
        }
        Exit::from(failure.kind()).code()
    })
}

/// Makes a panic end the run on all ranks. If it comes from a tensor operation that ran out of memory, it is reported
/// as that, not as a bug in the program. In an attempt, such as recording a CUDA graph, and in a decoder that panics on
/// damaged files, it ends nothing.
fn install_panic_hook() {
    ddpm_comm::install_panic_hook();
    let fault = panic::take_hook();
    panic::set_hook(Box::new(move |info| match info.payload_as_str().and_then(Error::of_panic) {
        _ if tch_ext::is_attempt() || ddpm_data::is_guarded() => {}
        Some(error) => end_all(&error),
        None => fault(info),
    }));
}
