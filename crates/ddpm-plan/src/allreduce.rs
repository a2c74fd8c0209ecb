//! How long averaging a buffer over the ranks takes, alone on an idle network.

use serde::Serialize;

/// What joins the ranks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// NVLink, each GPU to each other.
    NvLink,
    /// PCI Express.
    Pcie,
    /// Shared memory, for ranks on CPUs.
    Memory,
}

/// The order in which ranks exchange parts of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// There is only one rank.
    None,
    /// A ring: reduce-scatter, then all-gather (Patarasuk and Yuan 2009).
    Ring,
    /// Two binary trees over the nodes, each for half of the buffer (Sanders, Speck and Träff 2009).
    Tree,
    /// One binomial tree: reduced to rank 0, and broadcast from there. That is how Open MPI sums in place in the
    /// background.
    Binomial,
}

/// Time that averaging takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AllReduce {
    /// How.
    pub algorithm: Algorithm,
    /// How long.
    pub seconds: f64,
}

/// The ranks and what joins them. Links carry as much in each direction at the same time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fabric {
    /// Number of ranks.
    pub ranks: usize,
    /// Of these on each node.
    pub per_node: usize,
    /// What joins the ranks of a node.
    pub medium: Medium,
    /// What a rank can send to its neighbour on the node, in bytes per second.
    pub inside: f64,
    /// What all ranks of a node together can send to other nodes, in bytes per second.
    pub between: f64,
    /// How long a small message of MPI takes to another node, in seconds.
    pub latency_s: f64,
}

/// The same to another rank of the node: usual for shared memory.
const LATENCY_INSIDE_S: f64 = 1e-6;

/// Messages of MPI above this size are announced, and sent once the receiver has answered: they take three latencies.
/// The default of Open MPI's TCP transport (`btl_tcp_eager_limit`).
const EAGER_BYTES: f64 = 65_536.0;

/// Latencies of NCCL in seconds, from its own model (src/graph/tuning.cc): of a call, and of a step over NVLink, PCI
/// Express and the network. For a ring those of the protocol "simple", for trees those of LL128, which carries data in
/// 120 of 128 bytes: each is chosen where it is the faster one.
struct Steps {
    call: f64,
    nvlink: f64,
    pcie: f64,
    network: f64,
}
const RING: Steps = Steps { call: 8.4e-6, nvlink: 3.4e-6, pcie: 5.7e-6, network: 9.6e-6 };
const TREE: Steps = Steps { call: 4.4e-6, nvlink: 1.2e-6, pcie: 1.9e-6, network: 8.5e-6 };
const LL128: f64 = 120.0 / 128.0;

impl Steps {
    fn inside(&self, medium: Medium) -> f64 {
        match medium {
            Medium::NvLink => self.nvlink,
            Medium::Pcie | Medium::Memory => self.pcie,
        }
    }
}

impl Fabric {
    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.ranks.div_ceil(self.per_node)
    }

    /// Ranks of a full node.
    fn group(&self) -> usize {
        self.per_node.min(self.ranks)
    }

    /// What the slowest link of a chain through all ranks carries, in bytes per second.
    fn slowest(&self) -> f64 {
        let inside = if self.group() > 1 { self.inside } else { f64::INFINITY };
        let between = if self.nodes() > 1 { self.between } else { f64::INFINITY };
        inside.min(between)
    }

    /// Averages `bytes` over NCCL: by the faster of its two algorithms.
    pub fn nccl(&self, bytes: f64) -> AllReduce {
        let ring = AllReduce { algorithm: Algorithm::Ring, seconds: self.ring(bytes) };
        let tree = AllReduce { algorithm: Algorithm::Tree, seconds: self.tree(bytes) };
        match self.ranks {
            1 => AllReduce { algorithm: Algorithm::None, seconds: 0.0 },
            _ if tree.seconds < ring.seconds => tree,
            _ => ring,
        }
    }

    /// Averages `bytes` over MPI.
    pub fn mpi(&self, bytes: f64) -> AllReduce {
        match self.ranks {
            1 => AllReduce { algorithm: Algorithm::None, seconds: 0.0 },
            _ => AllReduce { algorithm: Algorithm::Binomial, seconds: self.binomial(bytes) },
        }
    }

    /// A ring: each of the p ranks sends 2(p-1) pieces of a p-th of the buffer to the next one.
    fn ring(&self, bytes: f64) -> f64 {
        let steps = 2 * (self.ranks - 1);
        let crossing = 2 * (self.nodes() - 1);
        let latency = (steps - crossing) as f64 * RING.inside(self.medium) + crossing as f64 * RING.network;
        RING.call + latency + steps as f64 / self.ranks as f64 * bytes / self.slowest()
    }

    /// Two trees over the nodes, whose ranks form a chain: together they use each link in both directions, so the
    /// buffer passes the slowest one once upwards and once downwards.
    fn tree(&self, bytes: f64) -> f64 {
        let chain = (self.group() - 1) as f64 * TREE.inside(self.medium);
        let levels = rounds(self.nodes()) * TREE.network;
        TREE.call + 2.0 * (chain + levels) + 2.0 * bytes / (LL128 * self.slowest())
    }

    /// One binomial tree. Up: in each round half of the ranks that are left send the whole buffer to the other half.
    /// Down: each rank, once it has the buffer, sends it to all of its children at the same time, which share its
    /// link.
    fn binomial(&self, bytes: f64) -> f64 {
        let (group, nodes) = (self.group(), self.nodes());
        let [inner, outer] = [rounds(group), rounds(nodes)];
        let latencies = if bytes > EAGER_BYTES { 3.0 } else { 1.0 };
        let latency = 2.0 * latencies * (inner * LATENCY_INSIDE_S + outer * self.latency_s);
        latency + bytes * (inner / self.inside + outer / self.between + self.broadcast())
    }

    /// Seconds for each byte that rank 0 broadcasts along the binomial tree.
    fn broadcast(&self) -> f64 {
        // Ranks of a node send to other nodes at the same time.
        let [inside, outside] = [1.0 / self.inside, self.group() as f64 / self.between];
        let cost = |from: usize, to: usize| if from / self.per_node == to / self.per_node { inside } else { outside };
        let mut received = vec![0.0; self.ranks];
        for parent in 0..self.ranks {
            // Rank v sends to v + 2^r for all 2^r above v.
            let first = (parent + 1).next_power_of_two();
            let distances = std::iter::successors(Some(first), |distance| Some(2 * distance));
            let children = || distances.clone().map(|distance| parent + distance).take_while(|to| *to < self.ranks);
            let done = received[parent] + children().map(|to| cost(parent, to)).sum::<f64>();
            children().for_each(|to| received[to] = done);
        }
        received.into_iter().fold(0.0, f64::max)
    }

    /// The small exchanges of a step, over MPI whatever averages gradients: the heartbeat and the norms are gathered
    /// in a number of rounds, and then each rank broadcasts its norms in turn, for which the next one waits.
    pub fn small_exchanges(&self) -> f64 {
        if self.ranks == 1 {
            return 0.0;
        }
        let crossing = if self.nodes() > 1 { self.nodes() } else { 0 };
        let inner = 2.0 * rounds(self.group()) + (self.ranks - crossing) as f64;
        let outer = 2.0 * rounds(self.nodes()) + crossing as f64;
        inner * LATENCY_INSIDE_S + outer * self.latency_s
    }
}

/// How often a number must be doubled from 1 to reach `n`.
fn rounds(n: usize) -> f64 {
    f64::from(n.next_power_of_two().trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(ranks: usize) -> Fabric {
        Fabric { ranks, per_node: 1, medium: Medium::Memory, inside: 1e10, between: 1.0, latency_s: 0.0 }
    }

    /// By hand, with a link that takes a second for the buffer. Two ranks: up and down. Four: 1 to 0 and 3 to 2, then
    /// 2 to 0; 0 to 1 and 2 at once takes 2, then 1 to 3. Eight: three rounds up, 3 to send to 1, 2 and 4, then 2 from
    /// 1 to 3 and 5, then 3 to 7. Six ranks have no 7.
    #[test]
    fn the_binomial_tree_takes_as_long_as_its_busiest_path() {
        let seconds = [2, 4, 6, 8].map(|ranks| network(ranks).binomial(1.0));
        assert_eq!(seconds, [2.0, 5.0, 8.0, 9.0]);
    }

    #[test]
    fn one_rank_averages_in_no_time() {
        let alone = network(1);
        assert_eq!((alone.nccl(1e9).seconds, alone.mpi(1e9).seconds, alone.small_exchanges()), (0.0, 0.0, 0.0));
    }

    /// 8 GPUs on NVLink: 14 steps of 3.4 us, 7/4 of 100 MB at 370.8 GB/s.
    #[test]
    fn a_ring_within_a_node() {
        let inside = 370.8e9;
        let node = Fabric { ranks: 8, per_node: 8, medium: Medium::NvLink, inside, between: 50e9, latency_s: 2e-5 };
        let by_hand = 8.4e-6 + 14.0 * 3.4e-6 + 1.75 * 1e8 / inside;
        assert!((node.nccl(1e8).seconds - by_hand).abs() < 1e-12, "{:?}", node.nccl(1e8));
        assert_eq!(node.nccl(1e8).algorithm, Algorithm::Ring);
        assert!((node.small_exchanges() - 14e-6).abs() < 1e-12);
    }

    /// Where both take as long, the ring's longer way equals the share of the tree's bytes that it saves.
    #[test]
    fn small_buffers_take_a_tree_and_large_ones_a_ring() {
        let between = 50e9;
        let large = Fabric { ranks: 64, per_node: 8, medium: Medium::NvLink, inside: 370.8e9, between, latency_s: 0.0 };
        let way = large.ring(0.0) - large.tree(0.0);
        let crossover = way * between / (2.0 / LL128 - 2.0 * 63.0 / 64.0);
        for (bytes, algorithm) in [(0.99 * crossover, Algorithm::Tree), (1.01 * crossover, Algorithm::Ring)] {
            assert_eq!(large.nccl(bytes).algorithm, algorithm, "{bytes} of {crossover}");
        }
        assert!(crossover > 1e6 && crossover < 1e9, "{crossover}");
    }
}
