//! The `ddpm-dist` binary.

fn main() {}
