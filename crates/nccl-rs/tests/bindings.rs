//! The bindings in one process, with the library of tests/fake; that library's own checks; and the real NCCL without a
//! GPU.

use std::path::Path;
use std::process::Command;

use nccl_rs::{Communicator, Cuda, DType, DeviceMemory, Error, Event, MINIMUM, Nccl, Reduction, Stream, UniqueId};

mod fake;

fn fake(options: &[&str]) -> std::path::PathBuf {
    fake::library(env!("CARGO_TARGET_TMPDIR"), options)
}

fn load() -> (&'static Nccl, &'static Cuda) {
    let path = fake(&[]);
    (Nccl::open(&path).expect("it is complete"), Cuda::open(&path).expect("it is complete"))
}

/// The message of an error whose value has no `Debug`.
fn refusal<T>(result: Result<T, Error>) -> String {
    result.err().expect("this is refused").to_string()
}

#[test]
fn the_fake_library_detects_every_violation() {
    let library = fake(&[]);
    let program = library.with_extension("misuse");
    let run_path = format!("-Wl,-rpath,{}", env!("CARGO_TARGET_TMPDIR"));
    fake::compile(&program, &[&run_path], &[fake::source("misuse/main.c"), library]);
    let output = Command::new(program).output().expect("it was just compiled");
    assert!(
        output.status.success(),
        "undetected:\
{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn gpus_have_identities_and_addresses() {
    let (_, cuda) = load();
    assert_eq!(cuda.uuid(3).expect("there are 8"), "GPU-03000000-ffff-ffff-0000-000000000000");
    assert_eq!(cuda.name(3).expect("there are 8"), "fake GPU");
    assert_eq!(cuda.pci_address(3).expect("there are 8"), "0000:03:00.0");
    for refused in [cuda.uuid(8), cuda.pci_address(8)] {
        assert!(refusal(refused).contains(" failed: invalid device ordinal (CUDA error 101). "));
    }
}

#[test]
fn work_that_needs_the_host_is_not_recorded() {
    let (_, cuda) = load();
    let stream = Stream::new(cuda).expect("there is memory");
    let mut memory = DeviceMemory::new(cuda, 8).expect("there is memory");
    cuda.capture(stream.handle(), || {}).expect("nothing breaks no rule");
    let mut uploaded = Ok(());
    let refused = refusal(cuda.capture(stream.handle(), || uploaded = memory.upload(&[0; 8], stream.handle())));
    assert!(refused.starts_with("cudaStreamEndCapture failed: operation failed due to a previous error"), "{refused}");
    let cause = refusal(uploaded);
    assert!(cause.contains(" failed: operation not permitted when stream is capturing (CUDA error 900). "), "{cause}");
    cuda.capture(stream.handle(), || {}).expect("the stream is usable again");
    memory.upload(&[0; 8], stream.handle()).expect("so is the thread");
}

#[test]
fn the_time_between_two_events_is_known_once_the_gpu_has_passed_them() {
    let (_, cuda) = load();
    let stream = Stream::new(cuda).expect("there is memory");
    let [first, second] = [(); 2].map(|()| Event::timing(cuda, 0).expect("there is memory"));
    let never = refusal(second.since(&first));
    assert!(never.starts_with("cudaEventElapsedTime failed: "), "{never}");
    first.record(stream.handle()).expect("it is alive");
    std::thread::sleep(std::time::Duration::from_millis(20));
    second.record(stream.handle()).expect("it is alive");
    let mut memory = DeviceMemory::new(cuda, 8).expect("there is memory");
    // Waits for the stream.
    memory.upload(&[0; 8], stream.handle()).expect("it fits");
    let passed = second.since(&first).expect("both are over").as_secs_f64();
    assert!((0.02..10.0).contains(&passed), "{passed}");
    let untimed = Event::new(cuda, 0).expect("there is memory");
    untimed.record(stream.handle()).expect("it is alive");
    assert!(untimed.since(&first).is_err(), "an event without a timestamp");
}

#[test]
fn with_one_rank_an_all_reduce_is_the_identity() {
    let (nccl, cuda) = load();
    assert_eq!(nccl.version().to_string(), "2.29.7");
    assert_eq!(cuda.device_count().expect("8 by default"), 8);
    let id = nccl.unique_id().expect("it generates one");
    let id = UniqueId::from_bytes(id.to_bytes());
    let comm = Communicator::new(nccl, cuda, 3, 0, 1, &id).expect("there are no peers");
    let compute = Stream::new(cuda).expect("there is memory");
    let memory = |values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_ne_bytes()).collect();
        let mut memory = DeviceMemory::new(cuda, bytes.len()).expect("there is memory");
        memory.upload(&bytes, compute.handle()).expect("it fits");
        (memory, bytes)
    };
    let ((mut a, in_a), (mut b, in_b)) = (memory(&[1.0, -2.5, 3e-30]), memory(&[]));
    let mut slices = [a.slice(DType::F32, compute.handle()), b.slice(DType::Bf16, compute.handle())];
    assert_eq!((slices[0].len(), slices[0].bytes(), slices[1].is_empty()), (3, 12, true));
    let pending = comm.all_reduce(&mut slices, Reduction::Mean).expect("one group");
    comm.make_wait(compute.handle()).expect("one event");
    let mut out = vec![0; in_a.len()];
    a.download(&mut out, compute.handle()).expect("it waits for the result");
    assert!(pending.is_done().expect("the stream has waited for it"));
    assert_eq!((out, in_b), (in_a, vec![]));
    comm.async_error().expect("there is no error");
    comm.finish().expect("there are no peers");
    let refused = comm.all_reduce(&mut [], Reduction::Sum).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|message| message.contains("already finished")));
    assert!(refusal(comm.finish()).contains("already finished"));
}

#[test]
fn a_stream_waits_for_the_result_only_after_make_wait() {
    let (nccl, cuda) = load();
    let comm = Communicator::new(nccl, cuda, 0, 0, 1, &nccl.unique_id().expect("it generates one"))
        .expect("there are no peers");
    let compute = Stream::new(cuda).expect("there is memory");
    let mut memory = DeviceMemory::new(cuda, 4).expect("there is memory");
    memory.upload(&1f32.to_ne_bytes(), compute.handle()).expect("it fits");
    let mut slices = [memory.slice(DType::F32, compute.handle())];
    comm.all_reduce(&mut slices, Reduction::Mean).expect("one operation");
    let mut out = [0; 4];
    let early = refusal(memory.download(&mut out, compute.handle()));
    assert!(early.contains("a stream that does not wait for its last use"), "{early}");
    comm.make_wait(compute.handle()).expect("one event");
    memory.download(&mut out, compute.handle()).expect("it waits");
    assert_eq!(f32::from_ne_bytes(out), 1.0);
    comm.finish().expect("there are no peers");
}

#[test]
fn errors_carry_the_library_s_message() {
    let (nccl, cuda) = load();
    let id = nccl.unique_id().expect("it generates one");
    let device = refusal(Communicator::new(nccl, cuda, 8, 0, 1, &id));
    assert!(device.starts_with("cudaSetDevice failed: invalid device ordinal (CUDA error 101). "), "{device}");
    let rank = refusal(Communicator::new(nccl, cuda, 0, 5, 2, &id));
    assert!(rank.starts_with("ncclCommInitRank failed: invalid argument (no such rank). "), "{rank}");
}

#[test]
fn an_unusable_library_is_refused_by_name() {
    let absent = refusal(Nccl::open(Path::new("/nowhere/libnccl.so.2")));
    assert!(absent.starts_with("/nowhere/libnccl.so.2 cannot be loaded ("), "{absent}");
    assert!(absent.contains("set DDPM_NCCL_LIB"), "{absent}");
    for (number, name) in [("2804", "2.8.4"), ("21304", "2.13.4")] {
        let old = refusal(Nccl::open(&fake(&[&format!("-DVERSION={number}")])));
        assert!(old.contains(&format!("is NCCL {name}, but at least {MINIMUM} is required")), "{old}");
    }
    let incomplete = fake(&["-DncclCommFinalize=removed", "-DcudaEventQuery=removed_too"]);
    assert!(refusal(Nccl::open(&incomplete)).contains("has no function `ncclCommFinalize`"));
    assert!(refusal(Cuda::open(&incomplete)).contains("has no function `cudaEventQuery`"));
}

/// NVIDIA's own library, fetched by `scripts/setup.sh --tests`, which reports its version and ids without a GPU.
#[test]
fn the_real_nccl_generates_ids() {
    let path = std::env::var("DDPM_TEST_NCCL")
        .expect("run the tests with scripts/test.sh, which fetches NCCL and sets this variable");
    let nccl = Nccl::open(Path::new(&path)).expect("it has all functions that are used");
    assert_eq!(nccl.version().to_string(), "2.29.7");
    let ids = [0, 1].map(|_| nccl.unique_id().expect("there is a network interface, if only the loopback"));
    assert_ne!(ids[0].to_bytes(), ids[1].to_bytes());
}
