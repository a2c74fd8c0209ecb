//! What libtorch's words mean where they name a trouble of the machine, and no fault of the program.

/// A trouble of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Memory ran out.
    Memory {
        /// That of a GPU, or else of the host.
        on_gpu: bool,
        /// How much more was asked for, such as `2.00 GiB`, where libtorch says it.
        asked: Option<String>,
    },
    /// A GPU failed. CUDA refuses all that is asked of it from then on, in this process.
    Gpu,
    /// The operation has no form that gives the same bits each time, and only such are allowed: see
    /// [`set_deterministic`](crate::set_deterministic).
    Undetermined,
}

/// What libraries say when a GPU's memory is full: libtorch's allocator, CUDA, cuBLAS, cuDNN.
const GPU_IS_FULL: [&str; 4] =
    ["CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"];
/// The same of the host's: libtorch's allocator in its two versions, C++, and oneDNN, which has no other words for it.
const HOST_IS_FULL: [&str; 6] = [
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "could not create a memory object",
    "could not create a primitive",
    "could not execute a primitive",
];
const GPU_FAILED: [&str; 3] = ["CUDA error:", "CUBLAS_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_EXECUTION_FAILED"];
const UNDETERMINED: [&str; 2] = ["does not have a deterministic implementation", "CUBLAS_WORKSPACE_CONFIG"];

impl Trouble {
    /// The trouble that these words of libtorch's name, if they name one.
    pub fn of(words: &str) -> Option<Self> {
        let names = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
        if names(&GPU_IS_FULL) {
            Some(Self::Memory { on_gpu: true, asked: asked(words) })
        } else if names(&HOST_IS_FULL) {
            Some(Self::Memory { on_gpu: false, asked: asked(words) })
        } else if names(&UNDETERMINED) {
            Some(Self::Undetermined)
        } else if names(&GPU_FAILED) {
            Some(Self::Gpu)
        } else {
            None
        }
    }
}

/// The amount in "Tried to allocate 2.00 GiB." and "you tried to allocate 8589934592 bytes."
fn asked(words: &str) -> Option<String> {
    let (_, rest) = words.split_once("ried to allocate ")?;
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

    fn memory(on_gpu: bool, asked: &str) -> Option<Trouble> {
        Some(Trouble::Memory { on_gpu, asked: Some(asked.into()).filter(|asked: &String| !asked.is_empty()) })
    }

    #[test]
    fn troubles_of_the_machine_are_recognised() {
        let full = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.1 \
                    GiB is free.";
        assert_eq!(Trouble::of(full), memory(true, "2.00 GiB"));
        assert_eq!(Trouble::of("CUDA error: out of memory\nCUDA kernel errors might be"), memory(true, ""));
        assert_eq!(Trouble::of("CUDNN_STATUS_ALLOC_FAILED"), memory(true, ""));
        assert_eq!(Trouble::of("std::bad_alloc"), memory(false, ""));
        assert_eq!(Trouble::of("CUDA error: an illegal memory access was encountered\nCUDA"), Some(Trouble::Gpu));
        assert_eq!(Trouble::of("The size of tensor a (2) must match the size of tensor b (3)"), None);
    }

    /// The words of the libtorch that is installed.
    #[test]
    fn what_libtorch_says_is_recognised() {
        let options = (Kind::Float, Device::Cpu);
        let huge = Tensor::f_empty([1 << 60], options).unwrap_err().to_string();
        assert_eq!(Trouble::of(&huge), memory(false, "4611686018.4 GB"), "{huge}");

        let put =
            || Tensor::zeros([3], options).f_put_(&Tensor::from_slice(&[0i64]), &Tensor::ones([1], options), false);
        assert!(put().is_ok());
        set_deterministic(true).unwrap();
        let refused = put().unwrap_err().to_string();
        assert_eq!(Trouble::of(&refused), Some(Trouble::Undetermined), "{refused}");
        set_deterministic(false).unwrap();
        assert!(put().is_ok());
    }
}
