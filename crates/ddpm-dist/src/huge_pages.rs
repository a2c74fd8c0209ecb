//! Memory in huge pages, through which the processor finds its way faster: 5 to 10% of a step of the U-Net on the CPU
//! (docs/log.md).
#![allow(unsafe_code)] // Advice to the kernel.

#[cfg(target_os = "linux")]
pub use linux::move_into_huge_pages;

/// Other systems do so by themselves, or do not.
#[cfg(not(target_os = "linux"))]
pub fn move_into_huge_pages() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;

    const HUGE: usize = 2 << 20;

    /// Moves the memory in use into huge pages, once it has grown to what it will be: before that, each of them would have
    /// to be cleared in the step that waits for it. Where the kernel does not know how (before Linux 6.1), or has no huge
    /// page left, memory stays as it is.
    pub fn move_into_huge_pages() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let Ok(pagemap) = File::open("/proc/self/pagemap") else { return };
        // SAFETY: a question that is always allowed.
        let small = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let mut moved = 0;
        for (start, end) in maps.lines().filter_map(anonymous) {
            let places = (start.next_multiple_of(HUGE)..end).step_by(HUGE).take_while(|place| place + HUGE <= end);
            for place in places.filter(|&place| is_mostly_there(&pagemap, place, small)) {
                // SAFETY: the kernel changes no byte of what is mapped there, and refuses what no longer is.
                let code = unsafe { libc::madvise(place as *mut _, HUGE, libc::MADV_COLLAPSE) };
                moved += usize::from(code == 0);
            }
        }
        tracing::debug!("{moved} huge pages of 2 MiB are in use");
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
}
