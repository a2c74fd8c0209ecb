//! The allocator of both libtorch and Rust: jemalloc, set to keep what a step frees for the next step. glibc's returns
//! large blocks to the kernel, and each step then takes page faults for them again.
#![allow(unsafe_code)] // For the contract of a global allocator, and for exporting a symbol that jemalloc looks up.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::io::Write;

use ddpm_comm::exit_now;
use ddpm_model::Error;
use tikv_jemallocator::Jemalloc;

use crate::failure::{Exit, end_all};

/// jemalloc for Rust. When it has no more memory, the run ends with the message and the exit code for that; Rust would
/// kill the process by a signal, without either. (libtorch's C++ calls jemalloc itself, and reports failed
/// allocations.)
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: all calls go to jemalloc under the caller's guarantees; a null pointer is never returned.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { Jemalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { Jemalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { Jemalloc.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { Jemalloc.dealloc(block, layout) }
    }
}

/// Returns `block`; ends the run if the allocation failed.
fn given(block: *mut u8, size: usize) -> *mut u8 {
    thread_local!(static ENDING: Cell<bool> = const { Cell::new(false) });
    if !block.is_null() {
        return block;
    }
    if ENDING.replace(true) {
        // Not even enough for the message.
        let _ = std::io::stderr().write_all(b"error: out of memory\n");
        exit_now(Exit::OutOfMemory.code())
    }
    end_all(&Error::out_of_memory(false, Some(&format!("{:.1} MB", size as f64 / 1e6))))
}

const OPTIONS: &[u8; 36] = b"dirty_decay_ms:-1,muzzy_decay_ms:-1\0";

/// jemalloc's options, which it reads before `main`: a pointer to zero-terminated text. Freed pages are never returned.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: Option<&[u8; 36]> = Some(OPTIONS);
