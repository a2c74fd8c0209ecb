//! Restoring: training continues as if it had never been interrupted.

use ddpm_model::{ErrorKind, Remedy};
use tch::{Device, Kind};
use tempfile::tempdir;

use super::{Parts, collective, settings};
use crate::checkpointing::{Checkpoint, ResumeFrom, Saver, restore, select};
use crate::program::Program;
use crate::stop::StopRequest;
use crate::task::Task;

fn saved(parts: &Parts) -> Saver {
    let mut saver = Saver::open(
        &parts.comm,
        &parts.settings,
        parts.record(),
        None,
        None,
        &StopRequest::default(),
        &Program::default(),
    )
    .unwrap();
    saver.save_last(&parts.task.network, &parts.state).unwrap();
    saver
}

fn selected(parts: &Parts) -> Checkpoint {
    select(parts.comm.as_ref(), &parts.settings, ResumeFrom::Auto, &[], None).unwrap().0.unwrap()
}

#[test]
fn a_restored_state_is_the_saved_one_and_takes_the_same_steps() {
    let (dir, comm) = (tempdir().unwrap(), collective());
    let more = ["diffusion.timestep_sampler=loss_second_moment"];
    let mut undisturbed = Parts::fresh(&comm, settings(dir.path(), &more));
    undisturbed.steps(2);
    undisturbed.state.skipped = 3;
    let saver = saved(&undisturbed);
    let (settings, checkpoint) = (undisturbed.settings.clone(), selected(&undisturbed));
    let task = Task::of(&settings, Device::Cpu, Kind::Float).unwrap();
    let state = restore(&saver, comm.as_ref(), &settings, &task.network, Device::Cpu, &checkpoint).unwrap();
    let mut resumed = Parts::with(&comm, settings, task, state);
    assert!(resumed.numbers() == undisturbed.numbers());
    assert_eq!((resumed.state.step, resumed.state.skipped), (2, 3));
    for parts in [&mut undisturbed, &mut resumed] {
        parts.steps(2);
    }
    assert!(resumed.numbers() == undisturbed.numbers(), "the steps after the resume differ");
}

#[test]
fn a_network_of_other_parameters_is_refused() {
    let (dir, comm) = (tempdir().unwrap(), collective());
    let mut parts = Parts::fresh(&comm, settings(dir.path(), &[]));
    parts.steps(1);
    let saver = saved(&parts);
    let other = settings(dir.path(), &["model.channels=[8,16]"]);
    let task = Task::of(&other, Device::Cpu, Kind::Float).unwrap();
    let restored = restore(&saver, comm.as_ref(), &other, &task.network, Device::Cpu, &selected(&parts));
    let Err(failure) = restored else { panic!("restored into another network") };
    assert_eq!(failure.kind(), ErrorKind::ResumeRefused);
    assert!(failure.error().remedies().contains(&Remedy::OtherRunDir));
}
