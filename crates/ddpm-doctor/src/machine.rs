//! One machine: whether it can train, and what is missing.

use std::process::Command;

use ddpm_comm::World;
use ddpm_model::gpu_remedy;
use ddpm_telemetry::probe_folder;
use tch::{Device, Kind, Tensor};
use tch_ext::Gpus;

/// What was found out about one part.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The part.
    pub what: &'static str,
    /// What was found, or what is wrong and how to fix it.
    pub result: Result<String, String>,
}

/// Examines the machine of this rank; `program` is the name and version of the program.
pub fn examine(world: &World, program: &str) -> Vec<Finding> {
    // This comes first: on first use, libtorch fixes the set of devices that it knows.
    let gpus = match Gpus::find() {
        Ok(gpus) => format!("{}, one per rank, which computes there by default", gpus.count()),
        Err(why) if why.is_unexpected() => {
            format!("there is a driver, but networks compute on the CPU: {why}. {}", gpu_remedy(&why))
        }
        Err(why) => format!("none, so networks compute on the CPU: {why}"),
    };
    let finding = |what, result| Finding { what, result };
    let ranks = format!("{} in this run, {} on {}", world.size(), world.local_size(), world.host());
    vec![
        finding("program", Ok(program.into())),
        finding("libtorch", libtorch()),
        finding("threads", Ok(format!("{} for libtorch on this rank", tch::get_num_threads()))),
        finding("gpu", Ok(gpus)),
        finding("mpirun", mpirun()),
        finding("ranks", Ok(ranks)),
        finding("run directory", writable()),
    ]
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
    match probe_folder(&here) {
        Ok(()) => Ok(format!("{} can be written", here.display())),
        Err(e) => Err(format!("{} cannot be written ({e}); set run.dir to a folder that can", here.display())),
    }
}
