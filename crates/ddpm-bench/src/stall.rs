//! `bench checkpoint --steps`: what background saves cost training, compared with saves that training waits for.

use std::time::Instant;

use ddpm_model::Failure;

use crate::context::Bench;
use crate::measure::largest;
use crate::report::Report;

/// Steps before the clock starts.
const WARMUP: u64 = 2;

/// How training saves during one stretch of steps.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Never,
    /// In the background, as `train` does.
    Behind,
    /// Training stops until the checkpoint is committed.
    Waiting,
}

const MANNERS: [Manner; 3] = [Manner::Never, Manner::Behind, Manner::Waiting];

/// The time that the stretches of one manner took.
#[derive(Clone, Copy, Default)]
struct Cost {
    seconds: f64,
    /// The part of it during which training waited for saves.
    held: f64,
}

/// Trains `steps` steps in each manner in turn, `repeat` times, with a save before every `every` steps, which divides it, so that the
/// whole cost of a save falls into its own stretch. None if a rank was asked to stop.
pub fn background_saves(bench: &Bench, repeat: u64, steps: u64, every: u64) -> Result<Option<Report>, Failure> {
    let comm = bench.comm.as_ref();
    let mut trainer = bench.trainer()?;
    for _ in 0..WARMUP {
        if !trainer.step()? {
            return Ok(None);
        }
    }
    let mut costs = [Cost::default(); MANNERS.len()];
    for _ in 0..repeat {
        for (manner, cost) in MANNERS.into_iter().zip(&mut costs) {
            trainer.take_clock();
            let started = Instant::now();
            for step in 0..steps {
                if manner != Manner::Never && step.is_multiple_of(every) {
                    trainer.save()?;
                }
                if manner == Manner::Waiting {
                    trainer.finish_save()?;
                }
                if !trainer.step()? {
                    return Ok(None);
                }
            }
            trainer.finish_save()?;
            cost.seconds += started.elapsed().as_secs_f64();
            cost.held += largest(comm, trainer.take_clock().checkpoint_stall.as_secs_f64());
        }
    }
    let [never, behind, waiting] = costs;
    let saves = repeat * (steps / every);
    let report = bench
        .report(Some(trainer.parameters()))
        .with("steps", repeat * steps)
        .with("every", every)
        .with("saves", saves)
        .with("state_mb", trainer.checkpoint_mb())
        .with("without_s", never.seconds)
        .with("background_s", behind.seconds)
        .with("background_held_s", behind.held)
        .with("background_share", behind.held / behind.seconds)
        .with("foreground_s", waiting.seconds)
        .with("foreground_held_s", waiting.held)
        .with("foreground_share", waiting.held / waiting.seconds);
    Ok(Some(report))
}
