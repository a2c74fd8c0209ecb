//! The fault rig as a program: an S3 server on a directory that fails by rule, for tests of complete runs.
//!
//! `fault_rig ROOT PORT [RULES]` serves ROOT on PORT (0 for any free port), prints its endpoint as one line, and then
//! reads lines from standard input: each is a JSON array of rules that replace the previous ones, such as `[{"op":
//! "PutObject", "key": "manifest/", "times": 1, "fault": "lose_answer"}]`. It replies to each with a line that lists
//! the replaced rules that never fired, `[]` if all did. It exits at the end of its input. The bucket is `bucket`; the
//! credentials are in `Rig::env`.

use std::{env, error::Error, io, path::Path};

#[path = "../tests/rig/mod.rs"]
mod rig;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (root, port, rules) = match args.as_slice() {
        [root, port] => (root, port, "[]"),
        [root, port, rules] => (root, port, rules.as_str()),
        _ => return Err("usage: fault_rig ROOT PORT [RULES]".into()),
    };
    let rig = rig::Rig::start(Path::new(root), port.parse()?, rig::Addressing::Path, serde_json::from_str(rules)?)?;
    println!("{}", rig.endpoint());
    for line in io::stdin().lines() {
        println!("{:?}", rig.set_rules(serde_json::from_str(&line?)?));
    }
    Ok(())
}
