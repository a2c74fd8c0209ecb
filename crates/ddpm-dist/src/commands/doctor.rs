//! `doctor`: whether this machine can train, and if not, what is missing.

use std::process::Command;

use ddpm_comm::World;
use ddpm_model::{Error, gpu_remedy};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tch_ext::Gpus;

use crate::output::{print, print_rows};

struct Finding {
    what: &'static str,
    /// What was found, or what is wrong and how to fix it.
    result: Result<String, String>,
}

/// Checks this machine and prints one line per finding; fails if something is wrong.
pub fn run(world: &World, json: bool) -> Result<(), Error> {
    // This comes first: on first use, libtorch fixes the set of devices that it knows.
    let gpus = match Gpus::find() {
        Ok(gpus) => format!("{}, one per rank, which computes there by default", gpus.count()),
        Err(why) if why.is_unexpected() => {
            format!("there is a driver, but networks compute on the CPU: {why}. {}", gpu_remedy(&why))
        }
        Err(why) => format!("none, so networks compute on the CPU: {why}"),
    };
    let findings = [
        Finding { what: "program", result: Ok(format!("ddpm-dist {}", env!("CARGO_PKG_VERSION"))) },
        Finding { what: "libtorch", result: libtorch() },
        Finding { what: "threads", result: Ok(format!("{} for libtorch on this rank", tch::get_num_threads())) },
        Finding { what: "gpu", result: Ok(gpus) },
        Finding { what: "mpirun", result: mpirun() },
        Finding {
            what: "ranks",
            result: Ok(format!("{} in this run, {} on {}", world.size(), world.local_size(), world.host())),
        },
        Finding { what: "run directory", result: writable() },
    ];
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

/// Multiplies two matrices, which loads and runs the same libraries as training.
fn libtorch() -> Result<String, String> {
    let ones = Tensor::ones([64, 64], (Kind::Float, Device::Cpu));
    let sum = ones.f_matmul(&ones).and_then(|product| product.f_sum(Kind::Double)).map_err(|e| e.to_string())?;
    if sum.double_value(&[]) == f64::from(64 * 64 * 64) {
        Ok("computes on the CPU".into())
    } else {
        Err("computes wrong sums; reinstall it with scripts/setup.sh".into())
    }
}

fn mpirun() -> Result<String, String> {
    let missing = "not found; install Open MPI (scripts/setup.sh does) to train on several ranks";
    let output = Command::new("mpirun").arg("--version").output().map_err(|_| missing.to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned).ok_or_else(|| missing.into())
}

fn writable() -> Result<String, String> {
    let here = std::env::current_dir().map_err(|e| format!("the current folder is gone ({e}); change to another"))?;
    let probe = here.join(format!(".ddpm-dist-doctor-{}", std::process::id()));
    let written = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    match written {
        Ok(()) => Ok(format!("{} can be written", here.display())),
        Err(e) => Err(format!("{} cannot be written ({e}); set run.dir to a folder that can", here.display())),
    }
}
