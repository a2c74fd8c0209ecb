//! One rank with a GPU: `gpu SCENARIO`, started by mpirun from scripts/gpu-check.sh and tests/nccl.rs.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddpm_comm::{Bucket, Buffer, Collective, Memory, Reduce, Selected, Transport, Wanted, World, abort, agree};
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
            world.finish(0) // mpirun takes seconds over any other code
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
    let device = selected.device.expect("NCCL gives one");
    let gpu = Gpu::new(device, Arc::clone(&selected.collective))?;
    match scenario {
        "check" => check(&gpu, &*world.collective()),
        "bench" => bench(&gpu),
        // Four steps of one all-reduce and one broadcast; what may go wrong does so on the way.
        "steps" | "uneven" => (0..4).try_for_each(|step| {
            ddpm_comm::set_step(step);
            let uneven = scenario == "uneven" && step == 2;
            gpu.mean(&vec![1.0; 1000 + usize::from(uneven) * gpu.comm.rank()])?;
            if uneven {
                // NCCL tells of it later, and the rank then names the step at hand: this one, to be sure.
                std::thread::sleep(Duration::from_secs(20));
            }
            gpu.broadcast(&[1.0; 10], 0).map(drop)
        }),
        _ => Ok(()),
    }
}

/// What a trainer has: a GPU, a stream on which it computes, and a collective.
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

    /// The bytes of several buffers after `body`, which gets them on the device.
    fn through(&self, inputs: &[(&[u8], DType)], body: impl FnOnce(Vec<Buffer<'_>>)) -> Result<Vec<Vec<u8>>, Error> {
        let mut memories = inputs.iter().map(|(bytes, _)| self.memory(bytes)).collect::<Result<Vec<_>, _>>()?;
        let slices = memories.iter_mut().zip(inputs);
        body(slices.map(|(memory, (_, dtype))| Buffer::Device(memory.slice(*dtype, self.compute.handle()))).collect());
        let sizes = inputs.iter().map(|(bytes, _)| bytes.len());
        let download = |(memory, size): (&DeviceMemory, usize)| {
            let mut bytes = vec![0; size];
            memory.download(&mut bytes, self.compute.handle()).map(|()| bytes)
        };
        memories.iter().zip(sizes).map(download).collect()
    }

    fn mean(&self, values: &[f32]) -> Result<Vec<f32>, Error> {
        let reduce = |buffers: Vec<Buffer<'_>>| self.comm.all_reduce_buffers(buffers, Reduce::Mean);
        Ok(floats(&self.through(&[(&bytes(values), DType::F32)], reduce)?[0]))
    }

    /// The sum over the ranks, by the way that gradients take.
    fn sum_bucket(&self, values: &[f32]) -> Result<Vec<f32>, Error> {
        let reduce = |buffers: Vec<Buffer<'_>>| self.sum_buckets(buffers);
        Ok(floats(&self.through(&[(&bytes(values), DType::F32)], reduce)?[0]))
    }

    fn sum_buckets(&self, buffers: Vec<Buffer<'_>>) {
        let of = buffers.len();
        for (index, buffer) in buffers.into_iter().enumerate() {
            let Buffer::Device(slice) = buffer else { panic!("gradients are where the network is") };
            self.comm.sum_device_bucket(slice, Bucket { index, of });
        }
        self.comm.settle();
    }

    fn broadcast(&self, values: &[f32], root: usize) -> Result<Vec<f32>, Error> {
        let broadcast = |buffers: Vec<Buffer<'_>>| self.comm.broadcast_buffers(buffers, root);
        Ok(floats(&self.through(&[(&bytes(values), DType::F32)], broadcast)?[0]))
    }
}

/// NCCL's results beside MPI's: equal on all ranks, and to the last bit those of MPI on two ranks.
fn check(gpu: &Gpu, mpi: &dyn Collective) -> Result<(), Error> {
    let (rank, size) = (mpi.rank(), mpi.size());
    for len in [0, 1, 7, 1023, 65_536, 65_537, 1_500_001] {
        let mine: Vec<f32> = (0..len).map(|i| ((i * 31 + rank * 17 + 1) as f32).sin()).collect();
        for (reduce, found) in [(Reduce::Mean, gpu.mean(&mine)?), (Reduce::Sum, gpu.sum_bucket(&mine)?)] {
            let mut expected = mine.clone();
            mpi.all_reduce(&mut expected, reduce);
            assert!(
                bytes(&found) == mpi.broadcast_bytes(bytes(&found), 0),
                "the {reduce:?} of {len} differs between ranks"
            );
            if size <= 2 {
                assert!(bytes(&found) == bytes(&expected), "the {reduce:?} of {len} is not MPI's");
            } else {
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * size as f32;
                assert!(found.iter().zip(&expected).all(close), "the {reduce:?} of {len} is far from MPI's");
            }
        }
        let mut expected = mine.clone();
        mpi.broadcast(&mut expected, size - 1);
        assert!(gpu.broadcast(&mine, size - 1)? == expected, "the broadcast of {len}");
    }

    // Several buffers of different types at once, one of them on the host; whole numbers are exact in bf16 too.
    let whole: Vec<f32> = (0..100).map(|i| ((i * 7 + rank) % 64) as f32).collect();
    let mut expected = whole.clone();
    mpi.all_reduce(&mut expected, Reduce::Sum);
    let mut host = whole.clone();
    let sums = gpu.through(&[(&bytes(&whole), DType::F32), (&narrow(&whole), DType::Bf16)], |buffers| {
        let mut buffers: Vec<Buffer<'_>> = buffers; // of the shorter lifetime
        buffers.push(Buffer::Host(&mut host));
        gpu.comm.all_reduce_buffers(buffers, Reduce::Sum);
    })?;
    assert!(floats(&sums[0]) == expected && host == expected && sums[1] == narrow(&expected), "a sum of three buffers");

    // What is not on the device goes on as before.
    assert!(agree::any(gpu.comm.as_ref(), rank == 0));
    say("checked");
    Ok(())
}

/// A table of what one all-reduce takes. Bus bandwidth is what a link carries: bytes / time * 2 (n - 1) / n.
fn bench(gpu: &Gpu) -> Result<(), Error> {
    let (rank, size) = (gpu.comm.rank(), gpu.comm.size());
    if rank == 0 {
        say(&format!("| all-reduce, {size} ranks | ms | GB/s | bus GB/s |\n|---:|---:|---:|---:|"));
    }
    for kib in [64, 1024, 16 << 10, 64 << 10] {
        let bytes = kib << 10;
        let mut memory = gpu.memory(&vec![0; bytes])?;
        let mut run = |times: usize| {
            for _ in 0..times {
                let slice = memory.slice(DType::F32, gpu.compute.handle());
                gpu.sum_buckets(vec![Buffer::Device(slice)]);
            }
            memory.download(&mut [0], gpu.compute.handle()) // waits for all of them
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

/// Whole numbers of few bits as bf16.
fn narrow(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_ne_bytes()).collect()
}

/// One write per line, so that the ranks' lines do not mix.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("stdout is open");
}
