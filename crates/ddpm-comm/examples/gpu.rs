//! One rank with a GPU: `gpu SCENARIO`, started by scripts/gpu/check.sh and, under mpirun, by tests/nccl.rs.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddpm_comm::{Bucket, Collective, Memory, Reduce, Selected, Transport, Wanted, World, abort, agree};
use nccl_rs::{Cuda, DType, DeviceMemory, Error, Stream};

fn main() {
    let scenario = std::env::args().nth(1).unwrap_or_default();
    let world = World::init().unwrap_or_else(|error| abort(2, &error.to_string()));
    ddpm_comm::install_panic_hook();
    say(&format!("pid {}", std::process::id()));
    let patient = matches!(scenario.as_str(), "check" | "bench");
    world.watch(Duration::from_millis(if patient { 60_000 } else { 1_500 }));

    let own = Memory::Device(world.local_rank());
    let (wanted, memory) = match scenario.as_str() {
        "auto" => (Wanted::Auto, own),
        "auto-first" => (Wanted::Auto, Memory::Device(0)),
        "auto-cpu" => (Wanted::Auto, Memory::Host),
        "cpu" => (Wanted::Nccl, Memory::Host),
        _ => (Wanted::Nccl, own),
    };
    let selected = match world.select(wanted, memory) {
        Ok(selected) => selected,
        Err(error @ ddpm_comm::CommError::NoNccl { .. }) => {
            if world.rank() == 0 {
                say(&format!("refused: {error}"));
            }
            world.finish(0) // mpirun takes seconds to exit with any other code
        }
        Err(error) => abort(2, &error.to_string()),
    };
    if world.rank() == 0 {
        say(&selected.why);
    }
    let done = if selected.transport == Transport::Nccl { on_gpus(&scenario, &world, &selected) } else { Ok(()) };
    done.unwrap_or_else(|error| abort(1, &error.to_string()));
    world.finish(0)
}

fn on_gpus(scenario: &str, world: &World, selected: &Selected) -> Result<(), Error> {
    let device = selected.device.expect("NCCL has a device");
    let gpu = Gpu::new(device, Arc::clone(&selected.collective))?;
    match scenario {
        "check" => check(&gpu, &*world.collective()),
        "bench" => bench(&gpu),
        // Four steps of two buckets; the injected failures occur on the way.
        "steps" | "uneven" => (0..4).try_for_each(|step| {
            ddpm_comm::set_step(step);
            let uneven = scenario == "uneven" && step == 2;
            gpu.sum(&[&vec![1.0; 1000 + usize::from(uneven) * gpu.comm.rank()], &[1.0; 10]])?;
            if uneven {
                // NCCL reports it asynchronously, together with the current step: stay in this one.
                std::thread::sleep(Duration::from_secs(20));
            }
            Ok(())
        }),
        _ => Ok(()),
    }
}

/// The equipment of a trainer: a GPU, a stream on which it computes, and a collective.
struct Gpu {
    cuda: &'static Cuda,
    compute: Stream,
    comm: Arc<dyn Collective>,
}

impl Gpu {
    fn new(device: usize, comm: Arc<dyn Collective>) -> Result<Self, Error> {
        let cuda = Cuda::load()?;
        cuda.set_device(device)?;
        Ok(Self { cuda, compute: Stream::new(cuda)?, comm })
    }

    fn memory(&self, bytes: &[u8]) -> Result<DeviceMemory, Error> {
        let mut memory = DeviceMemory::new(self.cuda, bytes.len())?;
        memory.upload(bytes, self.compute.handle())?;
        Ok(memory)
    }

    /// The sums over the ranks of several buckets, reduced as a trainer reduces its gradients.
    fn sum(&self, buckets: &[&[f32]]) -> Result<Vec<Vec<f32>>, Error> {
        let mut memories = buckets.iter().map(|values| self.memory(&bytes(values))).collect::<Result<Vec<_>, _>>()?;
        self.sum_in_place(&mut memories);
        let download = |(memory, values): (&DeviceMemory, &&[f32])| {
            let mut bytes = vec![0; size_of_val(*values)];
            memory.download(&mut bytes, self.compute.handle()).map(|()| floats(&bytes))
        };
        memories.iter().zip(buckets).map(download).collect()
    }

    fn sum_in_place(&self, memories: &mut [DeviceMemory]) {
        let of = memories.len();
        for (index, memory) in memories.iter_mut().enumerate() {
            let slice = memory.slice(DType::F32, self.compute.handle());
            self.comm.sum_device_bucket(slice, Bucket { index, of });
        }
        self.comm.settle();
    }
}

/// Compares NCCL's sums with MPI's: equal on all ranks, and on two ranks equal to MPI's bit for bit.
fn check(gpu: &Gpu, mpi: &dyn Collective) -> Result<(), Error> {
    let (rank, size) = (mpi.rank(), mpi.size());
    let lens = [0, 1, 7, 1023, 65_536, 65_537, 1_500_001];
    let ours = lens.map(|len| (0..len).map(|i| ((i * 31 + rank * 17 + 1) as f32).sin()).collect::<Vec<_>>());
    let sums = gpu.sum(&ours.each_ref().map(Vec::as_slice))?;
    for (found, ours) in sums.iter().zip(ours) {
        let (len, mut expected) = (ours.len(), ours);
        mpi.all_reduce(&mut expected, Reduce::Sum);
        assert!(bytes(found) == mpi.broadcast_bytes(bytes(found), 0), "the sum of {len} differs between ranks");
        if size <= 2 {
            assert!(bytes(found) == bytes(&expected), "the sum of {len} is not MPI's");
        } else {
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * size as f32;
            assert!(found.iter().zip(&expected).all(close), "the sum of {len} is far from MPI's");
        }
    }
    // The collectives on host memory work as before.
    assert!(agree::any(gpu.comm.as_ref(), rank == 0));
    say("checked");
    Ok(())
}

/// Prints a table of all-reduce times. The bus bandwidth is the load of a link: bytes / time * 2 (n - 1) / n.
fn bench(gpu: &Gpu) -> Result<(), Error> {
    let (rank, size) = (gpu.comm.rank(), gpu.comm.size());
    if rank == 0 {
        say(&format!("| all-reduce, {size} ranks | ms | GB/s | bus GB/s |\n|---:|---:|---:|---:|"));
    }
    for kib in [64, 1024, 16 << 10, 64 << 10] {
        let bytes = kib << 10;
        let mut memory = [gpu.memory(&vec![0; bytes])?];
        let mut run = |times: usize| {
            for _ in 0..times {
                gpu.sum_in_place(&mut memory);
            }
            memory[0].download(&mut [0], gpu.compute.handle()) // Waits for all of them.
        };
        run(3)?;
        gpu.comm.barrier();
        let start = Instant::now();
        run(20)?;
        let seconds = start.elapsed().as_secs_f64() / 20.0;
        let rate = bytes as f64 / seconds / 1e9;
        let bus = rate * 2.0 * (size - 1) as f64 / size as f64;
        if rank == 0 {
            say(&format!("| {kib} KiB | {:.3} | {rate:.2} | {bus:.2} |", seconds * 1e3));
        }
    }
    Ok(())
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_ne_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|x| f32::from_ne_bytes([x[0], x[1], x[2], x[3]])).collect()
}

/// One write per line, so that the ranks' lines do not mix.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("stdout is open");
}
