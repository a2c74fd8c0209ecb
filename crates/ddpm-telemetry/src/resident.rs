//! Resident memory of this process.

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
    let read = || {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024.0 / 1e6)
    };
    read().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_plausible() {
        assert!((1.0..1e6).contains(&rss_mb()), "{} MB", rss_mb());
    }
}
