//! What averaging gradients costs beside plain MPI: `mpirun -np 2 allreduce MIB BUCKET_MIB`, medians over 30 turns.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use ddpm_comm::{Averager, Buffer, Reduce, World, abort};
use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;

const TURNS: usize = 30;

fn main() {
    let world = World::init().unwrap_or_else(|error| abort(2, &error.to_string()));
    let mut mib = std::env::args().skip(1).map(|text| text.parse::<f64>().expect("a number of MiB"));
    let mut floats = || (mib.next().expect("MIB and BUCKET_MIB") * f64::from(1 << 18)) as usize;
    let (len, bucket) = (floats(), floats());
    if world.size() == 1 {
        abort(2, "there is nothing to measure on one rank; start it by mpirun");
    }
    let comm = world.collective();
    let values: Vec<f32> = (0..len).map(|i| (i % 1000) as f32).collect();
    let memory = Arc::new(Mutex::new(values.clone()));
    let lent = Arc::clone(&memory);
    // Parameters of 100,000 elements, as a network has them.
    let lens: Vec<usize> = (0..len).step_by(100_000).map(|start| (len - start).min(100_000)).collect();
    let mut averager = Averager::new(comm.clone(), &lens, bucket, move |range, body| {
        body(Buffer::Host(&mut lent.lock().expect("nobody panics")[range]));
    });
    let (ours, mut theirs) = (values.clone(), values.clone());
    let mut one = values;
    let mut times = [(); 3].map(|()| Vec::new());
    for _ in 0..TURNS {
        // Sums of sums would grow without bounds.
        memory.lock().expect("nobody panics").copy_from_slice(&ours);
        comm.barrier();
        times[0].push(seconds(|| {
            SimpleCommunicator::world().all_reduce_into(&ours[..], &mut theirs[..], SystemOperation::sum());
        }));
        comm.barrier();
        times[1].push(seconds(|| comm.all_reduce(&mut one, Reduce::Mean)));
        comm.barrier();
        times[2].push(seconds(|| {
            averager.begin();
            averager.finish();
        }));
    }
    let [plain, whole, buckets] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        1e3 * times[TURNS / 2]
    });
    if world.rank() == 0 {
        println!(
            "MPI_Allreduce {plain:.2} ms; all_reduce {whole:.2} ms ({:.2}x); {} buckets {buckets:.2} ms ({:.2}x)",
            whole / plain,
            averager.buckets(),
            buckets / plain
        );
    }
    drop(averager);
    world.finish(0)
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
