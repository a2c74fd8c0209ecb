//! How many threads libtorch may use on each rank.

use std::fs;
use std::thread::available_parallelism;

use ddpm_comm::World;

/// Shares the processors that each rank may run on among the ranks that may run on the same ones, unless the user said
/// otherwise: ranks bound to processors of their own (by Open MPI, Slurm) use all of theirs, ranks that roam a machine or
/// an allocation of it together divide it.
pub fn limit_threads(world: &World) {
    let ours = format!("{} {}", world.host(), allowed_processors());
    let all = world.collective().gather_bytes(ours.as_bytes());
    let sharing = all.iter().filter(|theirs| **theirs == ours.as_bytes()).count();
    if std::env::var_os("OMP_NUM_THREADS").is_some() {
        return;
    }
    let allowed = available_parallelism().map_or(1, usize::from);
    tch::set_num_threads((allowed / sharing).max(1) as i32);
}

/// The processors that the system lets this process run on, such as `0-3,8`.
fn allowed_processors() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.map_or_else(String::new, |list| list.trim().into())
}
