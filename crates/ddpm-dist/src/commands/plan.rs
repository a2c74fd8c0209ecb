//! `plan`: what a run would cost on a cluster.

use ddpm_data::Split;
use ddpm_model::{Error, data};
use ddpm_plan::{Machine, Plan};
use tch::Kind;

use crate::cli::PlanArgs;
use crate::output::{print, print_rows};
use crate::plan::resolve;

/// Prints what the model of ddpm-plan predicts; on one rank.
pub fn run(args: &PlanArgs, json: bool) -> Result<(), Error> {
    let settings = resolve(args.gpus, &args.config, &[])?;
    let machine = Machine::named(&args.gpu, settings.train.precision, args.tflops, args.mfu).map_err(Error::config)?;
    let images = match args.images {
        Some(images) => images,
        None => data::open(&settings, Split::Train)?.len(),
    };
    let precision = if machine.in_bf16 { Kind::BFloat16 } else { Kind::Float };
    let workload = ddpm_train::workload(&settings, args.gpus, precision, machine.is_gpu(), images)?;
    let cluster = args.cluster(machine);
    let plan = Plan::of(&workload, &cluster);
    if json {
        return print(serde_json::to_string(&plan).expect("names and plain values"));
    }
    print_rows(plan.rows(), Plan::INDENT)?;
    if !plan.fits() {
        let advice = ddpm_train::relief(&settings, args.gpus, cluster.machine.has_bf16);
        print(format_args!("It does not fit into the memory of a {}. {advice}.", plan.gpu))?;
    }
    Ok(())
}
