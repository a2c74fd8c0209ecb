//! How many threads libtorch may use on each rank.

use std::thread::available_parallelism;

/// Shares the cores that this process may run on among the ranks of its machine, unless the user said otherwise.
///
/// A launcher that binds ranks to cores (Open MPI does for two ranks and fewer) has shared them out already; then all
/// that are left count.
pub fn limit(local_ranks: usize) {
    if std::env::var_os("OMP_NUM_THREADS").is_some() {
        return;
    }
    let allowed = available_parallelism().map_or(1, usize::from);
    let installed = std::fs::read_to_string("/proc/cpuinfo")
        .map_or(allowed, |text| text.lines().filter(|line| line.starts_with("processor")).count());
    let bound = allowed < installed && local_ranks > 1;
    let threads = if bound { allowed } else { (allowed / local_ranks).max(1) };
    tch::set_num_threads(threads as i32);
}
