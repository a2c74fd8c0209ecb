//! libtorch's own profiler: the cost of every operator, as a trace and in sums.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tch::TchError;

use crate::message::check;

type Each = extern "C" fn(*mut c_void, *const c_char, bool, bool, i64, i64);

unsafe extern "C" {
    fn tch_ext_profiler_start() -> *mut c_char;
    fn tch_ext_profiler_stop(path: *const c_char, context: *mut c_void, each: Option<Each>) -> *mut c_char;
    fn tch_ext_range_begin(name: *const c_char) -> *mut c_void;
    fn tch_ext_range_end(range: *mut c_void);
}

/// A recording of libtorch's operations on all threads, from [`start`](Self::start) to [`save`](Self::save). If
/// dropped, it is discarded.
#[derive(Debug)]
pub struct Profiler {
    /// It must end on the thread on which it began.
    _on_this_thread: PhantomData<*const ()>,
}

/// Whether there is a recording: libtorch supports one at a time.
static RECORDING: AtomicBool = AtomicBool::new(false);

/// The total cost of the calls with one name, on the recording thread and the threads that ran its backward passes, or
/// on a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The name of the operator, such as `aten::convolution_backward`, or of the range; on a GPU, of the kernel.
    pub name: String,
    /// What was called.
    pub kind: CostKind,
    /// The number of calls.
    pub calls: u64,
    /// Time spent in it, without nested operators and ranges.
    pub self_time: Duration,
}

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CostKind {
    /// A libtorch operator on the CPU: all of its work or, with a GPU, launching its kernels.
    Operator,
    /// A range of [`in_range`].
    Range,
    /// A kernel or a copy on a GPU.
    Kernel,
}

impl Profiler {
    /// Starts a recording.
    ///
    /// # Errors
    /// If there is already a recording, or libtorch was built without its profiler.
    pub fn start() -> Result<Self, TchError> {
        if RECORDING.swap(true, Ordering::SeqCst) {
            return Err(TchError::Torch("there is already a recording".into()));
        }
        // SAFETY: there is no other recording.
        match unsafe { check(tch_ext_profiler_start()) } {
            Ok(()) => Ok(Self { _on_this_thread: PhantomData }),
            Err(error) => {
                RECORDING.store(false, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    /// Ends the recording, writes it to `path` as a Chrome trace (JSON), and returns the costs of operators and ranges
    /// on this thread, including backward, and of GPU kernels, most expensive first. An existing file is replaced.
    ///
    /// # Errors
    /// If the file cannot be written completely.
    pub fn save(self, path: &Path) -> io::Result<Vec<Cost>> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut calls: Vec<Call> = Vec::new();
        // SAFETY: the recording is ours and still running; `name` and `calls` outlive the call, and `add` takes a
        // pointer to `calls` as its context.
        let stopped = unsafe { check(tch_ext_profiler_stop(name.as_ptr(), (&raw mut calls).cast(), Some(add))) };
        std::mem::forget(self);
        RECORDING.store(false, Ordering::SeqCst);
        stopped.map_err(io::Error::other)?;
        check_complete(path)?;
        Ok(costs(calls))
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        // SAFETY: the recording is ours and still running; without a path nothing is called back.
        let _ = unsafe { check(tch_ext_profiler_stop(std::ptr::null(), std::ptr::null_mut(), None)) };
        RECORDING.store(false, Ordering::SeqCst);
    }
}

/// Runs `work` as a named range of the recording, if there is one. Ranges nest, and contain the operators of `work`.
pub fn in_range<T>(name: &'static CStr, work: impl FnOnce() -> T) -> T {
    struct Range(*mut c_void);
    impl Drop for Range {
        fn drop(&mut self) {
            // SAFETY: the pointer came from `tch_ext_range_begin` on this thread, and is released once.
            unsafe { tch_ext_range_end(self.0) }
        }
    }
    // SAFETY: `name` is a C string with static lifetime: libtorch keeps the pointer until the recording is written.
    let _range = Range(unsafe { tch_ext_range_begin(name.as_ptr()) });
    work()
}

/// A call of an operator, range or kernel; times in ns.
struct Call {
    name: String,
    kind: CostKind,
    start: i64,
    end: i64,
}

extern "C" fn add(calls: *mut c_void, name: *const c_char, range: bool, on_gpu: bool, start: i64, ns: i64) {
    // SAFETY: `save` passed the address of its list, which is not used otherwise during the call.
    let calls = unsafe { &mut *calls.cast::<Vec<Call>>() };
    // SAFETY: the shim passes a C string that lives during this call.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    let kind = match (on_gpu, range) {
        (true, _) => CostKind::Kernel,
        (false, true) => CostKind::Range,
        (false, false) => CostKind::Operator,
    };
    calls.push(Call { name, kind, start, end: start + ns });
}

/// Sums up the costs of calls by name. Calls on the CPU nest: a thread that runs a backward pass does so while the
/// thread that started it waits. Kernels do not nest.
fn costs(mut calls: Vec<Call>) -> Vec<Cost> {
    // Outer ones first.
    calls.sort_by_key(|call| (call.start, std::cmp::Reverse(call.end)));
    let mut own: Vec<i64> = calls.iter().map(|call| call.end - call.start).collect();
    let mut open: Vec<usize> = Vec::new();
    for (index, call) in calls.iter().enumerate().filter(|(_, call)| call.kind != CostKind::Kernel) {
        open.retain(|&outer| calls[outer].end > call.start);
        if let Some(&outer) = open.last() {
            own[outer] -= call.end.min(calls[outer].end) - call.start;
        }
        open.push(index);
    }
    let mut sums: HashMap<(String, CostKind), (u64, Duration)> = HashMap::new();
    for (call, own) in calls.into_iter().zip(own) {
        let (count, self_time) = sums.entry((call.name, call.kind)).or_default();
        *count += 1;
        *self_time += Duration::from_nanos(u64::try_from(own).unwrap_or(0));
    }
    let cost = |((name, kind), (calls, self_time))| Cost { name, kind, calls, self_time };
    let mut costs: Vec<Cost> = sums.into_iter().map(cost).collect();
    costs.sort_by(|a, b| b.self_time.cmp(&a.self_time).then_with(|| a.name.cmp(&b.name)));
    costs
}

/// libtorch does not report if it cannot write a trace completely. A complete one ends with its closing brace.
fn check_complete(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(8)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    if !end.trim_ascii_end().ends_with(b"}") {
        return Err(io::Error::other("only a part of the trace could be written"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn self_time_excludes_nested_calls() {
        let of = |kind| move |name: &str, start, end| Call { name: name.into(), kind, start, end };
        let (call, kernel) = (of(CostKind::Operator), of(CostKind::Kernel));
        let calls = vec![
            call("b", 10, 40),
            call("a", 0, 100),
            kernel("k", 5, 55),
            call("c", 10, 20),
            call("c", 50, 60),
            kernel("k", 55, 60),
            call("c", 100, 101),
        ];
        let found: Vec<_> = costs(calls).iter().map(|c| (c.name.clone(), c.calls, c.self_time.as_nanos())).collect();
        assert_eq!(found, [("a".into(), 1, 60), ("k".into(), 2, 55), ("c".into(), 3, 21), ("b".into(), 1, 20)]);
    }

    /// As on a GPU, for which libtorch runs backward on a separate thread.
    #[test]
    fn a_backward_thread_counts_for_the_one_that_waits() {
        let path = std::env::temp_dir().join(format!("tch-ext-backward-{}.json", std::process::id()));
        let weights = Tensor::ones([64, 64], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let backward = || {
            let loss = weights.mm(&weights).sum(Kind::Float);
            std::thread::scope(|scope| scope.spawn(move || loss.backward()).join().unwrap());
        };
        backward();
        let recording = Profiler::start().unwrap();
        in_range(c"backward", backward);
        let costs = recording.save(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let calls = |name: &str| costs.iter().find(|cost| cost.name == name).map(|cost| (cost.kind, cost.calls));
        assert_eq!(calls("aten::mm"), Some((CostKind::Operator, 3)), "{costs:?}");
        assert_eq!(calls("backward"), Some((CostKind::Range, 1)));
        assert!(calls("MmBackward0").is_some(), "{costs:?}");
    }

    #[test]
    fn one_recording_at_a_time_traces_operators_and_ranges() {
        let folder = std::env::temp_dir().join(format!("tch-ext-profiler-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("trace.json");
        let weights = Tensor::ones([8, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let twice = || {
            for _ in 0..2 {
                in_range(c"forward and backward", || weights.mm(&weights).sum(Kind::Float).backward());
            }
        };
        twice();
        drop(Profiler::start().unwrap());
        let recording = Profiler::start().unwrap();
        assert!(Profiler::start().unwrap_err().to_string().contains("already a recording"));
        twice();
        std::thread::scope(|scope| {
            scope.spawn(|| in_range(c"elsewhere", || ()));
        });
        let costs = recording.save(&path).unwrap();
        let calls = |name: &str| costs.iter().find(|cost| cost.name == name).map(|cost| (cost.kind, cost.calls));
        // A product forward, two backward.
        assert_eq!(calls("aten::mm"), Some((CostKind::Operator, 6)));
        assert_eq!(calls("forward and backward"), Some((CostKind::Range, 2)));
        assert_eq!(calls("elsewhere"), None, "of this thread only");
        assert!(costs.is_sorted_by(|a, b| a.self_time >= b.self_time) && costs[0].self_time > Duration::ZERO);
        let trace = std::fs::read_to_string(&path).unwrap();
        for name in ["MmBackward0", "forward and backward", "elsewhere"] {
            assert!(trace.contains(&format!("\"{name}\"")), "{name}");
        }

        let nowhere = folder.join("no/such/folder.json");
        assert!(Profiler::start().unwrap().save(&nowhere).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
