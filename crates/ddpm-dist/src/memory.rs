//! The allocator, of libtorch as of Rust: one that keeps what a step frees for the next step, and asks for huge pages.
//! glibc's gives large blocks back to the kernel, and each step then takes page faults for them anew; and where the kernel
//! gives huge pages to those who ask, small ones cost a step of the U-Net 2 to 8% in misses of the processor's page table
//! cache (docs/log.md).
#![allow(unsafe_code)] // A name that jemalloc looks for; no other library here has it.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const OPTIONS: &[u8; 47] = b"thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1\0";

/// What jemalloc reads before `main`, a pointer to text that ends with a zero: huge pages, and none given back.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: Option<&[u8; 47]> = Some(OPTIONS);
