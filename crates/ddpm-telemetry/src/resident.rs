//! Memory of this process and of the machine.

use std::fs;

/// Resident memory of this process in MB (10^6 bytes); NaN if there is no `/proc`.
pub fn rss_mb() -> f64 {
    status_mb("VmRSS:")
}

/// Peak resident memory of this process, in the unit of [`rss_mb`].
pub fn peak_rss_mb() -> f64 {
    status_mb("VmHWM:")
}

fn status_mb(key: &str) -> f64 {
    proc_mb("/proc/self/status", key).unwrap_or(f64::NAN)
}

/// Memory of this machine in MB (10^6 bytes), of the kind that `/proc/meminfo` calls `name`, such as `MemTotal`.
pub fn machine_mb(name: &str) -> Option<f64> {
    proc_mb("/proc/meminfo", &format!("{name}:"))
}

/// The amount on the line of `file` that begins with `key`.
fn proc_mb(file: &str, key: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_plausible() {
        assert!((1.0..1e6).contains(&rss_mb()), "{} MB", rss_mb());
        assert!(machine_mb("MemTotal").unwrap() > rss_mb());
    }
}
