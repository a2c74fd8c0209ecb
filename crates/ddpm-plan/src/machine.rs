//! What a rank computes on: a GPU of the table, or a CPU whose speed was measured.

use ddpm_spec::Precision;

use crate::allreduce::Medium;
use crate::error::Error;
use crate::peaks::peak_tflops;

/// A rank's GPU, or its cores.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// As given on the command line.
    pub name: &'static str,
    /// Floating-point operations of forward and backward passes per second, in 10^12.
    pub tflops: f64,
    /// The fraction of its peak that this is assumed to be; none if the speed was given.
    pub assumed_mfu: Option<f64>,
    /// Whether networks compute in bf16.
    pub in_bf16: bool,
    /// Whether it could.
    pub has_bf16: bool,
    /// Memory of a GPU, in GB.
    pub memory_gb: Option<f64>,
    /// Bandwidth of that memory, in GB/s.
    pub memory_gb_s: Option<f64>,
    /// How the ranks of a node are joined.
    pub(crate) medium: Medium,
    /// What one of them can send to its neighbour while it receives as much, in GB/s.
    pub(crate) inside_gb_s: f64,
}

/// A kind of GPU.
struct Gpu {
    name: &'static str,
    /// As in the table of peaks.
    model: &'static str,
    memory_gb: f64,
    memory_gb_s: f64,
    medium: Medium,
    inside_gb_s: f64,
}

/// A row of the table below.
const fn gpu(name: &'static str, model: &'static str, memory: [f64; 2], medium: Medium, inside_gb_s: f64) -> Gpu {
    Gpu { name, model, memory_gb: memory[0], memory_gb_s: memory[1], medium, inside_gb_s }
}

/// Memory in GB and its bandwidth in GB/s from NVIDIA's data sheets. Bandwidth between GPUs as NCCL's own model counts
/// it (its src/graph/topo.h): NVLinks times 20 GB/s, from Hopper on 20.6; 12 GB/s for PCIe 3.0, doubled with each
/// generation. A bridge of two cards is not counted: a ring of more is as slow as its slowest link.
static GPUS: [Gpu; 9] = [
    gpu("v100", "V100", [32.0, 900.0], Medium::NvLink, 120.0),
    gpu("a100-40gb", "A100", [40.0, 1555.0], Medium::NvLink, 240.0),
    gpu("a100-80gb", "A100", [80.0, 2039.0], Medium::NvLink, 240.0),
    gpu("h100", "H100", [80.0, 3350.0], Medium::NvLink, 370.8),
    gpu("h100-pcie", "H100 PCIe", [80.0, 2000.0], Medium::Pcie, 48.0),
    gpu("h200", "H200", [141.0, 4800.0], Medium::NvLink, 370.8),
    gpu("l40s", "L40S", [48.0, 864.0], Medium::Pcie, 24.0),
    gpu("rtx3090", "RTX 3090", [24.0, 936.0], Medium::Pcie, 24.0),
    gpu("rtx4090", "RTX 4090", [24.0, 1008.0], Medium::Pcie, 24.0),
];

/// What MPI moves between two ranks of a machine through shared memory, in GB/s: `bench allreduce`, where each rank
/// sends and receives 14.8 MB in 5.4 ms (docs/performance.md).
const SHARED_MEMORY_GB_S: f64 = 5.5;

/// The name of a machine without a GPU.
const CPU: &str = "cpu";

impl Machine {
    /// The machine of this name, which computes at `tflops` if that is given, else at the fraction `mfu` of its peak.
    ///
    /// # Errors
    /// It is not in the table, its speed is not known, or it has no products in `precision`.
    pub fn named(name: &str, precision: Precision, tflops: Option<f64>, mfu: f64) -> Result<Self, Error> {
        if name.eq_ignore_ascii_case(CPU) {
            return Ok(Self {
                name: CPU,
                tflops: tflops.ok_or(Error::NoSpeed)?,
                assumed_mfu: None,
                in_bf16: precision == Precision::Bf16,
                has_bf16: precision != Precision::Fp32,
                memory_gb: None,
                memory_gb_s: None,
                medium: Medium::Memory,
                inside_gb_s: SHARED_MEMORY_GB_S,
            });
        }
        let gpu = GPUS.iter().find(|gpu| gpu.name.eq_ignore_ascii_case(name)).ok_or_else(|| Error::UnknownGpu {
            name: name.into(),
            known: Self::names().collect::<Vec<_>>().join(", "),
        })?;
        let bf16 = peak_tflops(gpu.model, true);
        let in_bf16 = match precision {
            Precision::Fp32 => false,
            Precision::Auto => bf16.is_some(),
            Precision::Bf16 if bf16.is_none() => return Err(Error::NoBf16 { gpu: gpu.name }),
            Precision::Bf16 => true,
        };
        let peak = peak_tflops(gpu.model, in_bf16).expect("each GPU of the table is in the table of peaks");
        Ok(Self {
            name: gpu.name,
            tflops: tflops.unwrap_or(peak * mfu),
            assumed_mfu: tflops.is_none().then_some(mfu),
            in_bf16,
            has_bf16: bf16.is_some(),
            memory_gb: Some(gpu.memory_gb),
            memory_gb_s: Some(gpu.memory_gb_s),
            medium: gpu.medium,
            inside_gb_s: gpu.inside_gb_s,
        })
    }

    /// The names of all machines: those of GPUs, and that of a CPU.
    pub fn names() -> impl Iterator<Item = &'static str> {
        GPUS.iter().map(|gpu| gpu.name).chain([CPU])
    }

    /// Whether this is a GPU.
    pub fn is_gpu(&self) -> bool {
        self.memory_gb.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gpu_has_a_peak() {
        for gpu in &GPUS {
            let machine = Machine::named(gpu.name, Precision::Auto, None, 1.0).unwrap();
            assert!(machine.tflops > 10.0 && machine.is_gpu(), "{machine:?}");
            assert_eq!(machine.in_bf16, gpu.name != "v100");
        }
        let tflops = |precision| Machine::named("H100", precision, None, 0.5).unwrap().tflops;
        assert_eq!([Precision::Fp32, Precision::Bf16].map(tflops), [247.35, 494.7]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refused = |name, precision| Machine::named(name, precision, None, 0.3).unwrap_err().to_string();
        let unknown = refused("h1000", Precision::Fp32);
        assert!(unknown.contains("no `h1000` in the table of machines; give one of v100, a100-40gb"), "{unknown}");
        assert!(refused("v100", Precision::Bf16).contains("set train.precision to \"fp32\""));
        assert!(refused("cpu", Precision::Fp32).contains("give --tflops"));
        let cpu = Machine::named("cpu", Precision::Fp32, Some(0.2), 0.3).unwrap();
        assert_eq!((cpu.tflops, cpu.assumed_mfu, cpu.is_gpu()), (0.2, None, false));
    }
}
