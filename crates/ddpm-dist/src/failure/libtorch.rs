//! What libtorch fails with, as a user is told of it: memory that ran out, with advice; a GPU that failed.

use std::sync::{Mutex, PoisonError};

use ddpm_comm::abort;
use tch_ext::TorchFailure;

use super::{Exit, Failure};

/// What a panic over an error of libtorch's has in its message, before libtorch's words.
const LIBTORCH_PANICKED: &str = "Torch(\"";

/// How a panic has the system's refusal, EAGAIN.
const NO_THREAD: [&str; 2] = ["os error 11", "code: 11, kind: WouldBlock"];

/// What the command at hand needs less memory with.
static RELIEF: Mutex<Option<String>> = Mutex::new(None);

/// Notes what the command at hand needs less memory with, as a sentence without its full stop: the advice that a user gets
/// when memory runs out.
pub fn relieve_with(advice: impl Into<String>) {
    *RELIEF.lock().unwrap_or_else(PoisonError::into_inner) = Some(advice.into());
}

/// [`relieve_with`] of a command whose forward passes take `batch` images each, as `--batch` says.
pub fn relieve_by_batch(batch: usize) {
    if batch > 1 {
        relieve_with(format!("Lower --batch, which is {batch}"));
    }
}

impl Failure {
    /// What libtorch failed with: a trouble of the machine with its remedy, or else its own first line.
    ///
    /// A GPU that has failed ends the run here, after the message: nothing that lies on it can be let go in order any more.
    pub fn of_libtorch(words: &str) -> Self {
        let first = words.lines().next().unwrap_or_default();
        let known = TorchFailure::of(words).map(|failure| Self::of_machine(&failure, first));
        known.unwrap_or_else(|| Self::internal(format!("libtorch: {first}")))
    }

    /// The trouble of the machine over which code has panicked, if it was one: operators of tensors (`a + b`) have no other
    /// way to say that memory ran out, nor have libraries that a thread does not start.
    pub fn of_panic(message: &str) -> Option<Self> {
        if message.contains("thread") && NO_THREAD.iter().any(|phrase| message.contains(phrase)) {
            return Some(Self::internal(
                "the system starts no more threads: memory, or the number of them that this user or container may have, is \
                 used up. Raise that limit (ulimit -u, the container's pids), or start fewer ranks",
            ));
        }
        let words = message.split_once(LIBTORCH_PANICKED).map(|(_, words)| words.replace("\\n", "\n"))?;
        let first = words.lines().next().unwrap_or_default();
        TorchFailure::of(&words).map(|failure| Self::of_machine(&failure, first))
    }

    fn of_machine(failure: &TorchFailure, words: &str) -> Self {
        match failure {
            TorchFailure::OutOfMemory { on_gpu, requested } => Self::out_of_memory(*on_gpu, requested.as_deref()),
            TorchFailure::Gpu => abort(
                Exit::Internal.code(),
                &format!("error: the GPU failed: {words}. See nvidia-smi and the kernel's log (dmesg) for its state"),
            ),
            TorchFailure::Nondeterministic => {
                let operation = words.split(" does not have ").next().unwrap_or_default();
                let operation = operation.rsplit(": ").next().unwrap_or_default();
                Self::usage(format!(
                    "libtorch's {operation} gives other bits each time, and train.deterministic allows no such operation. Set \
                     it to false, or train.device to \"cpu\""
                ))
            }
        }
    }

    /// There is no memory for so much more, such as `2.00 GiB`, on a GPU or else on the machine.
    pub fn out_of_memory(on_gpu: bool, asked: Option<&str>) -> Self {
        let place = if on_gpu { "the GPU" } else { "this machine" };
        let asked = asked.map_or(String::new(), |asked| format!(" ({asked} more were needed)"));
        let relief = RELIEF.lock().unwrap_or_else(PoisonError::into_inner);
        let relief = relief.as_deref().unwrap_or("Take a machine with more memory, or end other programs on it");
        Self::new(Exit::OutOfMemory, format!("out of memory on {place}{asked}. {relief}"))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn memory_that_runs_out_has_its_code_and_its_advice() {
        let options = (Kind::Float, Device::Cpu);
        relieve_by_batch(64);
        let said = "out of memory on this machine (4611686018.4 GB more were needed). Lower --batch, which is 64";
        let error = Tensor::f_empty([1 << 60], options).unwrap_err();
        let panicked = std::panic::catch_unwind(|| Tensor::empty([1 << 60], options)).unwrap_err();
        let panicked = Failure::of_panic(panicked.downcast_ref::<String>().unwrap()).unwrap();
        for failure in [Failure::from(error), panicked] {
            assert_eq!((failure.exit, failure.message.as_str()), (Exit::OutOfMemory, said));
        }
        let gpu = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB";
        let failure = Failure::of_libtorch(gpu);
        assert!(failure.message.starts_with("out of memory on the GPU (2.00 GiB more were needed). "), "{failure}");
    }

    #[test]
    fn faults_of_the_program_stay_what_they_are() {
        let options = (Kind::Float, Device::Cpu);
        let (two, three) = (Tensor::zeros([2], options), Tensor::zeros([3], options));
        let failure = Failure::from(two.f_add(&three).unwrap_err());
        assert!(failure.exit == Exit::Internal && failure.message.lines().count() == 1, "{failure}");
        let panicked = std::panic::catch_unwind(|| &two + &three).unwrap_err();
        assert!(Failure::of_panic(panicked.downcast_ref::<String>().unwrap()).is_none());
        assert!(Failure::of_panic("index out of bounds").is_none());
        let thread = std::io::Error::from_raw_os_error(11);
        for message in [format!("OS can't spawn worker thread: {thread}"), format!("one more thread: {thread:?}")] {
            assert!(Failure::of_panic(&message).unwrap().message.starts_with("the system starts no more threads: "));
        }
        let failure = Failure::of_libtorch(
            "Internal torch error: put_ does not have a deterministic implementation, but you set 'torch.use_determ",
        );
        assert!(
            failure.exit == Exit::Usage && failure.message.starts_with("libtorch's put_ gives other bits"),
            "{failure}"
        );
    }
}
