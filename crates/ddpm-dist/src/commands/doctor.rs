//! `doctor`: whether this machine can train, or all ranks of a run can, and what is missing.

use ddpm_comm::{World, agree};
use ddpm_doctor::{Finding, examine, examine_ranks};
use ddpm_model::{Error, Failure};
use serde_json::json;

use crate::cli::{ConfigArgs, DoctorArgs};
use crate::commands::patience::PATIENCE;
use crate::failure::program;
use crate::output::{print, print_rows};
use crate::plan::settings;

/// Examines this machine or all ranks, and prints what it finds; fails if something is wrong.
pub fn run(args: &DoctorArgs, world: &World, json: bool) -> Result<(), Failure> {
    let comm = world.collective();
    if !args.ranks {
        return Ok(agree::act_on_root(comm.as_ref(), || machine(world, json))?);
    }
    // Opening a data set may take one rank far longer than another.
    world.watch(PATIENCE);
    let config = args.config.clone().map(|config| ConfigArgs { config, overrides: args.overrides.clone() });
    let settings = config.map(|config| settings(comm.as_ref(), &config, &[])).transpose()?;
    let examined = examine_ranks(world, &program().name, settings.as_ref())?;
    let show = || {
        if json {
            examined.values().iter().try_for_each(print)?;
        } else {
            examined.lines().iter().try_for_each(print)?;
        }
        examined.outcome()
    };
    Ok(agree::act_on_root(comm.as_ref(), show)?)
}

/// Examines this machine, with one line per finding.
fn machine(world: &World, json: bool) -> Result<(), Error> {
    let findings = examine(world, &program().name);
    for Finding { what, result } in &findings {
        let (ok, text) = match result {
            Ok(text) => (true, text),
            Err(text) => (false, text),
        };
        if json {
            print(json!({ "check": what, "ok": ok, "detail": text }))?;
        } else {
            print_rows(format_args!("{}  {what:<14} {text}", if ok { "ok  " } else { "FAIL" }), 21)?;
        }
    }
    let failed: Vec<&str> = findings.iter().filter(|f| f.result.is_err()).map(|f| f.what).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::internal(format!("{} failed; the lines above say what to do", failed.join(", "))))
}
