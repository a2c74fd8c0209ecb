//! An S3 server in memory as a program, for `scripts/bench/checkpoint.sh`.
//!
//! `memory_s3 PORT` serves the bucket `bucket` on PORT (0 for any free port) and prints its endpoint as one line. Any
//! credentials are accepted. It exits at the end of its input.

use std::{env, error::Error, io};

#[path = "../tests/memory_s3/mod.rs"]
mod memory_s3;

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).ok_or("usage: memory_s3 PORT")?;
    let server = memory_s3::MemoryS3::start(port.parse()?)?;
    println!("{}", server.endpoint());
    io::stdin().lines().try_for_each(|line| line.map(drop))?;
    Ok(())
}
