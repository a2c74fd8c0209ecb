//! Tests of the whole program, one file for each subject: it is started as a user starts it, on one rank or on several.
//! They are one binary, because compiling and linking one for each subject takes three times as long.

mod any_image;
mod averages;
mod averaging;
mod bench;
mod chaos;
mod checkpoints;
mod classifier;
mod common;
mod compare;
mod data_sets;
mod diverged;
mod doctor;
mod eval;
mod evaluations;
mod export;
mod family;
mod faults;
mod gpu_scripts;
mod gpus;
mod guidance;
mod help;
mod hosts;
mod import;
mod import_runs;
mod init_from;
mod out_of_memory;
mod pipes;
mod plan;
mod remote;
mod restarts;
mod run_paths;
mod sample;
mod shards;
mod slurm;
mod stopping;
mod stragglers;
mod supervise;
mod train;
mod wrong_input;

#[path = "../crates/nccl-rs/tests/fake/mod.rs"]
mod fake;
