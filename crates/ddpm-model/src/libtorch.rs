//! Classifies libtorch's errors: out of memory, a failed GPU, a nondeterministic operation.

use ddpm_comm::abort;
use tch::TchError;
use tch_ext::{TorchFailure, is_attempt};

use crate::error::{Error, ErrorKind, Remedy};

/// The exit status after a GPU has failed.
const GPU_FAILED: i32 = 1;

/// The text that precedes libtorch's own message in a panic caused by a libtorch error.
const LIBTORCH_PANICKED: &str = "Torch(\"";

/// How EAGAIN appears in the message of a panic.
const NO_THREAD: [&str; 2] = ["os error 11", "code: 11, kind: WouldBlock"];

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        Self::of_libtorch(&error.to_string())
    }
}

impl Error {
    /// Converts an error message of libtorch: a failure of the machine gets its own error with a remedy; for anything
    /// else the message is libtorch's first line.
    ///
    /// If a GPU has failed, this prints a message and aborts the run, because nothing in the GPU's memory can be
    /// freed any more; but not in an [`attempt`](tch_ext::attempt).
    pub fn of_libtorch(words: &str) -> Self {
        let first = words.lines().next().unwrap_or_default();
        let known = TorchFailure::of(words).map(|failure| Self::of_machine(&failure, first));
        known.unwrap_or_else(|| Self::internal(format!("libtorch: {first}")))
    }

    /// The error for a panic that was caused by a failure of the machine, if it was. Tensor operators (`a + b`) can
    /// report out of memory only by a panic, and so do some libraries when a thread cannot be started.
    pub fn of_panic(message: &str) -> Option<Self> {
        if message.contains("thread") && NO_THREAD.iter().any(|phrase| message.contains(phrase)) {
            return Some(Self::internal(
                "the system cannot start more threads: memory, or the number of threads allowed for this user or \
                 container, is used up. Raise that limit (ulimit -u, the container's pids), or start fewer ranks",
            ));
        }
        let words = message.split_once(LIBTORCH_PANICKED).map(|(_, words)| words.replace("\\n", "\n"))?;
        let first = words.lines().next().unwrap_or_default();
        TorchFailure::of(&words).map(|failure| Self::of_machine(&failure, first))
    }

    fn of_machine(failure: &TorchFailure, words: &str) -> Self {
        match failure {
            TorchFailure::OutOfMemory { on_gpu, requested } => Self::out_of_memory(*on_gpu, requested.as_deref()),
            // It may only have refused what cannot be recorded; if it has failed, the next operation says so.
            TorchFailure::Gpu if is_attempt() => Self::internal(words),
            TorchFailure::Gpu => abort(
                GPU_FAILED,
                &format!("error: the GPU failed: {words}. See nvidia-smi and the kernel's log (dmesg) for its state"),
            ),
            TorchFailure::Nondeterministic => {
                let operation = words.split(" does not have ").next().unwrap_or_default();
                let operation = operation.rsplit(": ").next().unwrap_or_default();
                Self::config(format!(
                    "libtorch's {operation} is nondeterministic on a GPU, but results must repeat bit for bit"
                ))
                .or(Remedy::ComputeOnCpu)
                .or(Remedy::AllowNondeterminism)
            }
        }
    }

    /// The error for a failed allocation of this size, such as `2.00 GiB`, on a GPU or in host memory.
    pub fn out_of_memory(on_gpu: bool, asked: Option<&str>) -> Self {
        let place = if on_gpu { "the GPU" } else { "this machine" };
        let asked = asked.map_or(String::new(), |asked| format!(" ({asked} more were needed)"));
        Self::new(ErrorKind::OutOfMemory, format!("out of memory on {place}{asked}"))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn memory_that_runs_out_is_an_error_of_its_own_kind() {
        let options = (Kind::Float, Device::Cpu);
        let said = "out of memory on this machine (4611686018.4 GB more were needed)";
        let error = Tensor::f_empty([1 << 60], options).unwrap_err();
        let panicked = std::panic::catch_unwind(|| Tensor::empty([1 << 60], options)).unwrap_err();
        let panicked = Error::of_panic(panicked.downcast_ref::<String>().unwrap()).unwrap();
        for error in [Error::from(error), panicked] {
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::OutOfMemory, said));
        }
        let gpu = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB";
        let error = Error::of_libtorch(gpu);
        assert!(error.to_string() == "out of memory on the GPU (2.00 GiB more were needed)", "{error}");
    }

    /// Outside of an attempt it would end this process.
    #[test]
    fn in_an_attempt_a_gpu_may_refuse() {
        let words = "CUDA error: operation not permitted when stream is capturing\nCUDA kernel errors might be";
        let error = tch_ext::attempt(|| Err::<(), _>(Error::of_libtorch(words))).unwrap_err();
        assert_eq!(error.to_string(), words.lines().next().unwrap());
    }

    #[test]
    fn faults_of_the_program_stay_what_they_are() {
        let options = (Kind::Float, Device::Cpu);
        let (two, three) = (Tensor::zeros([2], options), Tensor::zeros([3], options));
        let error = Error::from(two.f_add(&three).unwrap_err());
        assert!(error.kind() == ErrorKind::Internal && error.to_string().lines().count() == 1, "{error}");
        let panicked = std::panic::catch_unwind(|| &two + &three).unwrap_err();
        assert!(Error::of_panic(panicked.downcast_ref::<String>().unwrap()).is_none());
        assert!(Error::of_panic("index out of bounds").is_none());
        let thread = std::io::Error::from_raw_os_error(11);
        for message in [format!("OS can't spawn worker thread: {thread}"), format!("one more thread: {thread:?}")] {
            assert!(Error::of_panic(&message).unwrap().to_string().starts_with("the system cannot start more threads"));
        }
        let error = Error::of_libtorch(
            "Internal torch error: put_ does not have a deterministic implementation, but you set 'torch.use_determ",
        );
        assert!(
            error.kind() == ErrorKind::Config && error.to_string().starts_with("libtorch's put_ is nondeterministic"),
            "{error}"
        );
    }
}
