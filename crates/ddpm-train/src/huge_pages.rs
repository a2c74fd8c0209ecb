//! Memory in huge pages, through which the processor finds its way faster: 5 to 10% of a step of the U-Net in bf16, and of
//! two ranks, on the CPU; less of a single rank's in fp32 (docs/log.md).
#![allow(unsafe_code)] // Advice to the kernel.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

use ddpm_model::Failure;

use crate::observer::{Run, TrainObserver};

/// Moves memory into huge pages, a little before each step, once it has grown to what training takes: in the first step
/// each of them would have to be cleared before it can be used.
#[derive(Debug, Default)]
pub struct HugePages {
    /// Addresses that are left to look at; none before memory has grown.
    places: Option<Vec<usize>>,
    /// The first step has begun, if it is not over.
    begun: bool,
    /// Places moved so far.
    moved: u64,
}

impl TrainObserver for HugePages {
    fn before_step(&mut self, _run: &mut Run) -> Result<(), Failure> {
        // Other systems do so by themselves, or do not.
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

    /// How long a step may be held up. The ranks wait for the one that takes longest.
    const PAUSE: Duration = Duration::from_millis(250);

    impl HugePages {
        /// Moves what fits into a pause. Where the kernel does not know how (before Linux 6.1), has no huge page left, or is
        /// told never to use any, memory stays as it is.
        pub(super) fn move_some(&mut self) {
            if self.places.as_ref().is_some_and(Vec::is_empty) {
                return;
            }
            let places = self.places.get_or_insert_with(places);
            let started = Instant::now();
            while started.elapsed() < PAUSE
                && let Some(place) = places.pop()
            {
                // SAFETY: the kernel changes no byte of what is mapped there, and refuses what no longer is.
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

    /// Where huge pages are worth it, in the memory that this process has now.
    fn places() -> Vec<usize> {
        let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let Ok(pagemap) = File::open("/proc/self/pagemap") else { return Vec::new() };
        if setting.is_empty() || setting.contains("[never]") {
            return Vec::new();
        }
        // SAFETY: a question that is always allowed.
        let small = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let ranges = maps.lines().filter_map(anonymous);
        let within = ranges.flat_map(|(start, end)| {
            (start.next_multiple_of(HUGE)..end).step_by(HUGE).take_while(move |place| place + HUGE <= end)
        });
        within.filter(|&place| is_mostly_there(&pagemap, place, small)).collect()
    }

    /// The addresses of a line of `/proc/self/maps`, if it is memory of this process alone and has no name: allocated.
    fn anonymous(line: &str) -> Option<(usize, usize)> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let allocated = fields.next() == Some("rw-p") && fields.nth(2) == Some("0") && fields.next().is_none();
        let address = |text| usize::from_str_radix(text, 16).ok();
        if allocated { address(start).zip(address(end)) } else { None }
    }

    /// Whether three in four of the small pages in this place hold memory: in sparse places huge pages would add a tenth to
    /// what the process takes, and gain nothing.
    fn is_mostly_there(pagemap: &File, place: usize, small: usize) -> bool {
        let mut entries = vec![0; HUGE / small * 8];
        let read = pagemap.read_exact_at(&mut entries, (place / small * 8) as u64);
        // The highest bit of an entry says so.
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
