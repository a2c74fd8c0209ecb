//! Classifies libtorch's error messages that are about the machine rather than the program.

/// A failure of the machine, or an operation that is not deterministic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TorchFailure {
    /// Memory ran out.
    OutOfMemory {
        /// GPU memory; otherwise host memory.
        on_gpu: bool,
        /// The size of the failed allocation, such as `2.00 GiB`, if libtorch reports it.
        requested: Option<String>,
    },
    /// A GPU failed. From then on, CUDA refuses all operations in this process.
    Gpu,
    /// The operation has no deterministic algorithm, but only those are allowed: see
    /// [`set_deterministic`](crate::set_deterministic).
    Nondeterministic,
}

/// Messages for exhausted GPU memory: of libtorch's allocator, CUDA, cuBLAS, cuDNN.
const GPU_MEMORY: [&str; 4] =
    ["CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"];
/// Messages for exhausted host memory: of libtorch's allocator in its two versions, C++, and oneDNN, which has no
/// specific message.
const HOST_MEMORY: [&str; 6] = [
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "could not create a memory object",
    "could not create a primitive",
    "could not execute a primitive",
];
/// How oneDNN's messages continue if it has no implementation of the operation, rather than no memory.
const UNSUPPORTED: &str = "could not create a primitive descriptor";
const GPU_FAILED: [&str; 3] = ["CUDA error:", "CUBLAS_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_EXECUTION_FAILED"];
const NONDETERMINISTIC: [&str; 2] = ["does not have a deterministic implementation", "CUBLAS_WORKSPACE_CONFIG"];

impl TorchFailure {
    /// Classifies an error message of libtorch; `None` if it is about the program.
    pub fn of(message: &str) -> Option<Self> {
        let contains = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
        if contains(&GPU_MEMORY) {
            Some(Self::OutOfMemory { on_gpu: true, requested: requested(message) })
        } else if contains(&HOST_MEMORY) && !message.contains(UNSUPPORTED) {
            Some(Self::OutOfMemory { on_gpu: false, requested: requested(message) })
        } else if contains(&NONDETERMINISTIC) {
            Some(Self::Nondeterministic)
        } else if contains(&GPU_FAILED) {
            Some(Self::Gpu)
        } else {
            None
        }
    }
}

/// The amount in "Tried to allocate 2.00 GiB." and "you tried to allocate 8589934592 bytes."
fn requested(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("ried to allocate ")?;
    let mut parts = rest.split_whitespace();
    let (number, unit) = (parts.next()?, parts.next()?.trim_end_matches(['.', ',']));
    match (number.parse::<f64>(), unit) {
        (Ok(bytes), "bytes") if bytes >= 1e9 => Some(format!("{:.1} GB", bytes / 1e9)),
        (Ok(bytes), "bytes") if bytes >= 1e6 => Some(format!("{:.1} MB", bytes / 1e6)),
        (Ok(_), _) => Some(format!("{number} {unit}")),
        (Err(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::set_deterministic;

    fn memory(on_gpu: bool, requested: &str) -> Option<TorchFailure> {
        Some(TorchFailure::OutOfMemory {
            on_gpu,
            requested: Some(requested.into()).filter(|requested: &String| !requested.is_empty()),
        })
    }

    #[test]
    fn failures_of_the_machine_are_recognised() {
        let full = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.1 \
                    GiB is free.";
        assert_eq!(TorchFailure::of(full), memory(true, "2.00 GiB"));
        assert_eq!(TorchFailure::of("CUDA error: out of memory\nCUDA kernel errors might be"), memory(true, ""));
        assert_eq!(TorchFailure::of("CUDNN_STATUS_ALLOC_FAILED"), memory(true, ""));
        assert_eq!(TorchFailure::of("std::bad_alloc"), memory(false, ""));
        assert_eq!(TorchFailure::of("could not create a primitive"), memory(false, ""));
        let unsupported = "could not create a primitive descriptor for the matmul primitive";
        assert_eq!(TorchFailure::of(unsupported), None);
        assert_eq!(
            TorchFailure::of("CUDA error: an illegal memory access was encountered\nCUDA"),
            Some(TorchFailure::Gpu)
        );
        assert_eq!(TorchFailure::of("The size of tensor a (2) must match the size of tensor b (3)"), None);
    }

    /// With the messages of the installed libtorch.
    #[test]
    fn messages_of_libtorch_are_recognised() {
        let options = (Kind::Float, Device::Cpu);
        let huge = Tensor::f_empty([1 << 60], options).unwrap_err().to_string();
        assert_eq!(TorchFailure::of(&huge), memory(false, "4611686018.4 GB"), "{huge}");

        let put =
            || Tensor::zeros([3], options).f_put_(&Tensor::from_slice(&[0i64]), &Tensor::ones([1], options), false);
        assert!(put().is_ok());
        set_deterministic(true).unwrap();
        let refused = put().unwrap_err().to_string();
        assert_eq!(TorchFailure::of(&refused), Some(TorchFailure::Nondeterministic), "{refused}");
        set_deterministic(false).unwrap();
        assert!(put().is_ok());
    }
}
