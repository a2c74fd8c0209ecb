//! Sets the number of threads that libtorch may use on each rank.

use std::fs;
use std::thread::available_parallelism;

use ddpm_comm::World;

/// Divides processors among the ranks that may run on the same set of them, unless the user has set
/// `OMP_NUM_THREADS`. Ranks that are bound to their own processors (by Open MPI or Slurm) use all of them. Ranks that
/// may run anywhere on a machine, or in a shared allocation of it, divide its processors evenly.
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

/// The processors on which the system allows this process to run, such as `0-3,8`.
fn allowed_processors() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.map_or_else(String::new, |list| list.trim().into())
}
