//! The arguments of `supervise`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ddpm_supervise::{duration, interval};

use super::numbers::at_least_one;
use super::paths::path;

/// Arguments of `supervise`. Times have a unit: 500ms, 30s, 5m, 1h, 2d.
#[derive(Debug, Args)]
pub struct SuperviseArgs {
    /// Choose among the hosts in this hostfile of Open MPI, which has a line `NAME slots=N` for each.
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub hosts: Option<PathBuf>,
    /// Wait for hosts rather than train on fewer ranks than this.
    #[arg(long, value_name = "N", default_value = "1", value_parser = at_least_one::<usize>, requires = "hosts")]
    pub min_ranks: usize,
    /// Test whether a host answers by this shell command, in which {host} stands for the host, instead of by ssh.
    #[arg(long, value_name = "COMMAND", requires = "hosts")]
    pub probe: Option<String>,
    /// Ask hosts that are not in use this often.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = interval)]
    pub probe_every: Duration,
    /// Stop the job to use more hosts once these have answered, and the job has run, for this long.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub settle: Duration,
    /// Restart the job this often within --window.
    #[arg(long, value_name = "N", default_value = "10")]
    pub max_restarts: usize,
    /// The time in which restarts are counted, and for which hosts are waited for.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub window: Duration,
    /// Wait this long before a restart, and twice as long after each failure without progress.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub backoff: Duration,
    /// Never wait longer than this before a restart.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub max_backoff: Duration,
    /// Append events to this file instead of printing them on stdout.
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub events: Option<PathBuf>,
    /// The command that starts the job, with `train` or `train-classifier` and its options in it. With --hosts, {ranks}
    /// stands for the number of ranks, and {hosts} for the name of a hostfile.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}
