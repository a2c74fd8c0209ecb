//! The arguments of `plan`.

use clap::Args;
use clap::builder::PossibleValuesParser;
use ddpm_plan::{Cluster, Machine};

use super::config::ConfigArgs;
use super::numbers::{above_zero, at_least_one, fraction, not_negative};

/// `plan`: the run, and what it would run on.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Number of GPUs, each with one rank; with `--gpu cpu`, of ranks.
    #[arg(long, value_name = "N", value_parser = at_least_one::<usize>)]
    pub gpus: usize,
    /// What each rank computes on; cpu needs --tflops.
    #[arg(long, value_name = "NAME", ignore_case = true, value_parser = PossibleValuesParser::new(Machine::names()))]
    pub gpu: String,
    /// Speed of a rank: the `tflops` that `bench step` reports there, on as many images.
    #[arg(long, value_name = "TFLOPS", value_parser = above_zero, conflicts_with = "mfu")]
    pub tflops: Option<f64>,
    /// Without --tflops, the fraction of a GPU's peak that forward and backward reach. An assumption: measure it.
    #[arg(long, default_value = "0.3", value_name = "FRACTION", value_parser = fraction)]
    pub mfu: f64,
    /// GPUs of a node. [default: 8, or 1 with `--gpu cpu`]
    #[arg(long, value_name = "N", value_parser = at_least_one::<usize>)]
    gpus_per_node: Option<usize>,
    /// Bandwidth of a node's network each way, all of its ports together, in Gbit/s.
    #[arg(long, default_value = "400", value_name = "GBIT", value_parser = above_zero)]
    network_gbit: f64,
    /// How long a small message of MPI takes to another node, in microseconds.
    #[arg(long, default_value = "20", value_name = "US", value_parser = not_negative)]
    latency_us: f64,
    /// Standard deviation of a rank's time for a step, relative to it.
    #[arg(long, default_value = "0.02", value_name = "FRACTION", value_parser = not_negative)]
    jitter: f64,
    /// Mean time between failures of a node, in hours; the default is that of Llama 3's training.
    #[arg(long, default_value = "6300", value_name = "HOURS", value_parser = above_zero)]
    mtbf_hours: f64,
    /// What the store takes from all ranks together, in MB/s: `bench checkpoint`'s `upload_mb_s`.
    #[arg(long, default_value = "140", value_name = "MB_S", value_parser = above_zero)]
    store_mb_s: f64,
    /// Images of the data set, which is then not opened.
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>)]
    pub images: Option<u64>,
}

impl PlanArgs {
    /// What the run would run on.
    pub fn cluster(&self, machine: Machine) -> Cluster {
        let per_node = self.gpus_per_node.unwrap_or(if machine.is_gpu() { 8 } else { 1 });
        let Self { network_gbit, latency_us, jitter, mtbf_hours, store_mb_s, .. } = *self;
        Cluster { ranks: self.gpus, machine, per_node, network_gbit, latency_us, jitter, mtbf_hours, store_mb_s }
    }
}
