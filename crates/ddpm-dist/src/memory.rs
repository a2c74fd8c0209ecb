//! The allocator, of libtorch as of Rust: one that keeps what a step frees for the next step. glibc's gives large blocks
//! back to the kernel, and each step then takes page faults for them anew.
#![allow(unsafe_code)] // A name that jemalloc looks for; no other library here has it.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const OPTIONS: &[u8; 36] = b"dirty_decay_ms:-1,muzzy_decay_ms:-1\0";

/// What jemalloc reads before `main`, a pointer to text that ends with a zero: freed pages are never given back.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: Option<&[u8; 36]> = Some(OPTIONS);
