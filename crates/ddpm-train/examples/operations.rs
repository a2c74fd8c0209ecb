//! Counts the operations of a training step as on a GPU, on the CPU: `operations PRESET [KEY=VALUE...]`.

use ddpm_comm::World;
use ddpm_config::Settings;
use ddpm_model::Place;
use ddpm_train::{Plan, StopRequest, Trainer};
use tch_ext::{NormOnCpu, count_operations, with_group_norm};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let preset = words.next().ok_or("name a preset, such as cifar10")?;
    let dir = std::env::temp_dir().join(format!("operations-{}", std::process::id()));
    // A GPU has no Winograd kernels of ours.
    let set = [
        format!("run.dir={:?}", dir.display().to_string()),
        "data.kind=synthetic".into(),
        "data.count=64".into(),
        "train.convolutions=direct".into(),
    ];
    let settings = Settings::load(&preset, &set.into_iter().chain(words).collect::<Vec<_>>())?;
    let world = World::init()?;
    let plan = Plan::fresh(settings);
    let failed = |failure: ddpm_model::Failure| format!("{failure:?}");
    let mut trainer =
        Trainer::prepare(&world.collective(), Place::CPU, plan, &StopRequest::default()).map_err(failed)?;
    with_group_norm(NormOnCpu::AsGpuKernels, || {
        trainer.step().map_err(failed)?;
        let (stepped, counted) = count_operations(|| trainer.step())?;
        stepped.map_err(failed)?;
        println!("{} operations, {:.1} MB read and written", counted.total(), counted.bytes as f64 / 1e6);
        let mut launches = counted.launches.iter().collect::<Vec<_>>();
        launches.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (name, count) in launches {
            println!("{count:>6} {name}");
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    drop(trainer);
    std::fs::remove_dir_all(dir)?;
    world.finish(0)
}
