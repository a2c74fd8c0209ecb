//! Making a run of a model: one that was trained elsewhere, or an average.

use std::path::Path;
use std::sync::Arc;

use ddpm_checkpoint::{CheckpointError, Store};
use ddpm_comm::{Agreed, Collective, agree};
use ddpm_config::Settings;
use ddpm_model::{Error, ErrorKind, Failure, Imported, store_options};

use crate::checkpointing::Saver;
use crate::data_record::DataRecord;
use crate::program::Program;
use crate::run_config::write_config;
use crate::state::TrainState;
use crate::stop::StopRequest;

/// Writes a run whose only checkpoint, of step `step`, holds the imported model, trained on `data`; collective over all
/// ranks, which pass the same model. The moments of the optimizer are zero, and all averages equal the weights.
///
/// # Errors
/// There is a run already, or the store fails.
pub fn adopt(
    comm: &Arc<dyn Collective>,
    imported: Imported,
    step: u64,
    data: DataRecord,
    program: &Program,
) -> Result<(), Failure> {
    let Imported { settings, network, weights } = imported;
    agree::act_on_root(comm.as_ref(), || check_unused(&settings))?;
    let state = agree::unanimous(comm.as_ref(), TrainState::starting_with(&settings, &network, weights))?;
    let state = TrainState { step, ema_begun: step, ..state };
    let stop = StopRequest::default();
    let mut saver = Saver::open(comm, &settings, data, None, None, &stop, program)?;
    saver.save(&network, &state)?;
    saver.finish()?;
    if saver.missed() > 0 {
        let message = format!("the model could not be saved in {}; fix the store and try again", saver.store().uri());
        return Err(Agreed::known_to_all(Error::new(ErrorKind::Storage, message)).into());
    }
    agree::act_on_root(comm.as_ref(), || write_config(&settings, program).map(drop))?;
    Ok(())
}

/// Refuses a directory or a store that holds a run.
fn check_unused(settings: &Settings) -> Result<(), Error> {
    let uri = settings.checkpoint_uri();
    let config = Path::new(&settings.run.dir).join("config.toml");
    let taken = match Store::open_existing_with(&uri, store_options(settings)) {
        Err(CheckpointError::Absent { .. }) => false,
        opened => !opened?.list()?.is_empty(),
    };
    if config.exists() || taken {
        let place = if config.exists() { &settings.run.dir } else { &uri };
        let message = format!("{place} holds a run already; give another directory");
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(())
}
