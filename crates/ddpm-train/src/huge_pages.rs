//! Moves memory into huge pages, which speeds up address translation. On the CPU this saves 5 to 10% of a U-Net step
//! in bf16, and likewise on two ranks; it saves less on a single rank in fp32 (docs/log.md).
#![allow(unsafe_code)] // Advice to the kernel.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

use ddpm_model::Failure;

use crate::observer::{Run, TrainObserver};

/// Moves memory into huge pages, a little before each step, after the first step has allocated the memory that
/// training needs. During the first step each huge page would have to be cleared before its use.
#[derive(Debug, Default)]
pub struct HugePages {
    /// Addresses still to be moved; `None` until the first step has run.
    places: Option<Vec<usize>>,
    /// Whether the first step has begun. Memory is moved from the second step on.
    begun: bool,
    /// Places moved so far.
    moved: u64,
}

impl TrainObserver for HugePages {
    fn before_step(&mut self, _run: &mut Run) -> Result<(), Failure> {
        // Other systems use huge pages on their own, or not at all.
        #[cfg(target_os = "linux")]
        if std::mem::replace(&mut self.begun, true) {
            self.move_some();
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::{self, File};
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::time::{Duration, Instant};

    use super::HugePages;

    const HUGE: usize = 2 << 20;

    /// Maximum delay per step. All ranks wait for the slowest one.
    const PAUSE: Duration = Duration::from_millis(250);

    impl HugePages {
        /// Moves as many places as fit into `PAUSE`. If the kernel does not support this (before Linux 6.1), has no
        /// huge page left, or is configured never to use any, memory stays as it is.
        pub(super) fn move_some(&mut self) {
            if self.places.as_ref().is_some_and(Vec::is_empty) {
                return;
            }
            let places = self.places.get_or_insert_with(places);
            let started = Instant::now();
            while started.elapsed() < PAUSE
                && let Some(place) = places.pop()
            {
                // SAFETY: the call changes no byte of the mapping, and returns an error if the range is no longer
                // mapped.
                let moved = unsafe { libc::madvise(place as *mut _, HUGE, libc::MADV_COLLAPSE) } == 0;
                self.moved += u64::from(moved);
                if !moved && io::Error::last_os_error().raw_os_error() == Some(libc::ENOMEM) {
                    places.clear();
                }
            }
            if places.is_empty() {
                tracing::debug!("{} huge pages of 2 MiB are in use", self.moved);
            }
        }
    }

    /// The addresses in this process's current memory at which a huge page is worthwhile.
    fn places() -> Vec<usize> {
        let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let Ok(pagemap) = File::open("/proc/self/pagemap") else { return Vec::new() };
        if setting.is_empty() || setting.contains("[never]") {
            return Vec::new();
        }
        // SAFETY: a query without preconditions.
        let small = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let ranges = maps.lines().filter_map(anonymous);
        let within = ranges.flat_map(|(start, end)| {
            (start.next_multiple_of(HUGE)..end).step_by(HUGE).take_while(move |place| place + HUGE <= end)
        });
        within.filter(|&place| is_mostly_there(&pagemap, place, small)).collect()
    }

    /// The address range of a line of `/proc/self/maps` if the mapping is private and has no name, that is, if the
    /// allocator made it.
    fn anonymous(line: &str) -> Option<(usize, usize)> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let allocated = fields.next() == Some("rw-p") && fields.nth(2) == Some("0") && fields.next().is_none();
        let address = |text| usize::from_str_radix(text, 16).ok();
        if allocated { address(start).zip(address(end)) } else { None }
    }

    /// Whether at least three quarters of the small pages in this place are resident. In sparse places huge pages
    /// would increase the memory of the process by a tenth and gain nothing.
    fn is_mostly_there(pagemap: &File, place: usize, small: usize) -> bool {
        let mut entries = vec![0; HUGE / small * 8];
        let read = pagemap.read_exact_at(&mut entries, (place / small * 8) as u64);
        // The highest bit of an entry is set if the page is resident.
        let there = entries.as_chunks::<8>().0.iter().filter(|entry| u64::from_ne_bytes(**entry) >> 63 == 1).count();
        read.is_ok() && 4 * there >= 3 * HUGE / small
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_allocated_memory_of_this_process_alone_is_moved() {
            assert_eq!(
                anonymous("7ff48b600000-7ff48bb00000 rw-p 00000000 00:00 0"),
                Some((0x7ff4_8b60_0000, 0x7ff4_8bb0_0000))
            );
            for other in [
                "5646ab560000-5646ab581000 rw-p 00000000 00:00 0          [heap]",
                "7ff48b600000-7ff48bb00000 r--p 00000000 00:00 0",
                "7ff48b600000-7ff48bb00000 rw-s 00000000 00:00 0",
                "7ff48b600000-7ff48bb00000 rw-p 00001000 fe:00 326801     /usr/lib/libc.so.6",
                "7ff48b600000-7ff48bb00000 rw-s 00000000 00:1a 7          /dev/shm/vader (deleted)",
                "",
            ] {
                assert_eq!(anonymous(other), None, "{other}");
            }
        }

        #[test]
        fn a_place_counts_that_was_mostly_touched() {
            let pagemap = File::open("/proc/self/pagemap").unwrap();
            let mut memory = vec![0u8; 4 * HUGE];
            let start = (memory.as_ptr() as usize).next_multiple_of(HUGE);
            let offset = start - memory.as_ptr() as usize;
            for page in (0..HUGE).step_by(4096) {
                memory[offset + page] = 1;
                memory[offset + HUGE + page / 2] = 1;
            }
            assert!(is_mostly_there(&pagemap, start, 4096));
            assert!(!is_mostly_there(&pagemap, start + HUGE, 4096));
        }
    }
}
