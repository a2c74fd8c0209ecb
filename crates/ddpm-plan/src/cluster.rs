//! What a run runs on.

use crate::allreduce::Fabric;
use crate::machine::Machine;

/// What a run runs on.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Number of ranks.
    pub ranks: usize,
    /// What each of them computes on.
    pub machine: Machine,
    /// Ranks on each node.
    pub per_node: usize,
    /// Bandwidth of the network of a node, in Gbit/s each way; all of its ports together.
    pub network_gbit: f64,
    /// How long a small message of MPI takes to another node, in microseconds.
    pub latency_us: f64,
    /// Standard deviation of a rank's time for a step, relative to that time.
    pub jitter: f64,
    /// Mean time between failures of a node, in hours.
    pub mtbf_hours: f64,
    /// What the store takes from all ranks together, in MB/s.
    pub store_mb_s: f64,
}

/// The part of a network's bandwidth that carries data: 1,448 of the 1,514 bytes of an Ethernet frame with TCP. NCCL
/// counts 12 of the 12.5 GB/s of a network of 100 Gbit/s.
const PAYLOAD: f64 = 1448.0 / 1514.0;

impl Cluster {
    /// The ranks and what joins them.
    pub(crate) fn fabric(&self) -> Fabric {
        Fabric {
            ranks: self.ranks,
            per_node: self.per_node,
            medium: self.machine.medium,
            inside: self.machine.inside_gb_s * 1e9,
            between: PAYLOAD * self.network_gbit * 1e9 / 8.0,
            latency_s: self.latency_us / 1e6,
        }
    }
}
