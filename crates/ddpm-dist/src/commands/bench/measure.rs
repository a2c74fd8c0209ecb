//! Numbers that more than one benchmark takes.

use std::fs;
use std::time::Instant;

use ddpm_comm::Collective;

/// Ticks a second of the times in `/proc`: what Linux gives programs, whatever the kernel counts in.
const TICKS: f64 = 100.0;
/// Where in `/proc/self/stat` the start of the process stands, counted from the end of its name.
const START_TIME: usize = 19;

/// Seconds since this process was launched, the loading of its libraries included; not a number where `/proc` does not
/// tell.
pub fn since_launch() -> f64 {
    let read = || {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let ticks: f64 = stat.rsplit(") ").next()?.split(' ').nth(START_TIME)?.parse().ok()?;
        let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
        Some(uptime - ticks / TICKS)
    };
    read().unwrap_or(f64::NAN)
}

/// Lets the peak of this process's memory be what it holds now. Where the system does not let it, an older and higher peak
/// may stand, and what is measured above the present looks larger than it is.
pub fn forget_peak() {
    if let Err(error) = fs::write("/proc/self/clear_refs", "5") {
        tracing::warn!("the peak of memory cannot be reset ({error}), so memory that was free before counts too");
    }
}

/// How long `work` takes once all ranks have come to it.
pub fn timed<T>(comm: &dyn Collective, work: impl FnOnce() -> T) -> (T, f64) {
    comm.barrier();
    let started = Instant::now();
    let done = work();
    (done, started.elapsed().as_secs_f64())
}

/// The largest of the ranks' values, on every rank; not a number if one of them is none.
pub fn largest(comm: &dyn Collective, ours: f64) -> f64 {
    let all = comm.gather_bytes(&ours.to_le_bytes());
    let values = all.iter().map(|bytes| bytes.as_slice().try_into().map_or(f64::NAN, f64::from_le_bytes));
    values.fold(f64::NEG_INFINITY, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) })
}

/// The middle value, or the mean of the two in the middle; not a number if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 0) => (values[half - 1] + values[half]) / 2.0,
        (half, _) => values[half],
    }
}
