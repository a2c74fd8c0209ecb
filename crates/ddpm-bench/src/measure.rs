//! Measurements that several benchmarks share.

use std::fs;
use std::time::Instant;

use ddpm_comm::Collective;

/// Ticks per second of the times in `/proc`: Linux reports 100 to programs, whatever the kernel uses internally.
const TICKS: f64 = 100.0;
/// The fields of `/proc/self/stat` with the processor time of the process, its own and the kernel's for it, and with its
/// start time, counted from the end of its name.
const CPU_TIMES: [usize; 2] = [11, 12];
const START_TIME: usize = 19;

/// Seconds since this process was launched, including the loading of its libraries; NaN if `/proc` does not show it.
pub fn since_launch() -> f64 {
    let uptime = || -> Option<f64> { fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok() };
    uptime().unwrap_or(f64::NAN) - stat(START_TIME)
}

/// Seconds that processors spent on this process so far, all threads together; NaN if `/proc` does not show it.
pub fn cpu_seconds() -> f64 {
    CPU_TIMES.into_iter().map(stat).sum()
}

/// A time in `/proc/self/stat`, in seconds.
fn stat(field: usize) -> f64 {
    let read = || {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(field)?.parse::<f64>().ok()
    };
    read().map_or(f64::NAN, |ticks| ticks / TICKS)
}

/// Resets the peak of this process's memory to what it holds now. If the system does not allow it, an earlier and
/// higher peak may remain, and the measured growth looks larger than it is.
pub fn forget_peak() {
    if let Err(error) = fs::write("/proc/self/clear_refs", "5") {
        tracing::warn!("the memory peak cannot be reset ({error}), so memory freed earlier may be counted too");
    }
}

/// How long `work` takes in seconds, starting when all ranks have reached it.
pub fn timed<T>(comm: &dyn Collective, work: impl FnOnce() -> T) -> (T, f64) {
    comm.barrier();
    let started = Instant::now();
    let done = work();
    (done, started.elapsed().as_secs_f64())
}

/// The largest of the ranks' values, on every rank; NaN if one of them is NaN.
pub fn largest(comm: &dyn Collective, ours: f64) -> f64 {
    let all = comm.gather_bytes(&ours.to_le_bytes());
    let values = all.iter().map(|bytes| bytes.as_slice().try_into().map_or(f64::NAN, f64::from_le_bytes));
    values.fold(f64::NEG_INFINITY, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) })
}

/// The median: the middle value, or the mean of the two middle ones; NaN if there are no values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 0) => (values[half - 1] + values[half]) / 2.0,
        (half, _) => values[half],
    }
}
