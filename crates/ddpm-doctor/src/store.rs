//! Whether all ranks reach the store of a run, and whether it is the same one.

use std::fs;
use std::path::PathBuf;

use ddpm_checkpoint::{CheckpointError, Store};
use ddpm_comm::Collective;
use ddpm_config::Settings;
use ddpm_model::store_options;
use ddpm_store::directory;

use crate::facts::Outcome;

/// Tests the store, all ranks together; each returns what it has found. Rank 0 tests conditional writes, and leaves a
/// mark. The others must be refused when they create the same object: else they write elsewhere.
pub(crate) fn reach(comm: &dyn Collective, settings: &Settings) -> Outcome<()> {
    let uri = settings.checkpoint_uri();
    let outcome = match comm.rank() {
        0 => {
            let missing = missing_folders(&uri);
            let tested = prepare(settings, &uri);
            let mark = tested.as_ref().ok().and_then(|(_, mark)| mark.clone()).unwrap_or_default();
            comm.broadcast_bytes(mark.clone().into_bytes(), 0);
            comm.barrier(); // The others have looked for the mark.
            let removed = tested.and_then(|(store, _)| if mark.is_empty() { Ok(()) } else { store.remove_mark(&mark) });
            // Those that have become empty again, the innermost first.
            missing.iter().for_each(|folder| _ = fs::remove_dir(folder));
            removed.map_err(|error| error.to_string())
        }
        _ => {
            let mark = String::from_utf8_lossy(&comm.broadcast_bytes(Vec::new(), 0)).into_owned();
            let found = find(settings, &uri, &mark);
            comm.barrier();
            found
        }
    };
    match outcome {
        Ok(()) => Outcome::Fine(()),
        Err(message) => Outcome::Failed(message),
    }
}

/// Opens the store and tests conditional writes, unless the settings promise that they are not needed; leaves a mark if
/// they work.
fn prepare(settings: &Settings, uri: &str) -> Result<(Store, Option<String>), CheckpointError> {
    let store = Store::open_with(uri, store_options(settings))?;
    store.list()?;
    if settings.checkpoint.exclusive {
        return Ok((store, None));
    }
    store.probe()?;
    let mark = store.leave_mark()?;
    Ok((store, Some(mark)))
}

/// Looks for the mark of rank 0; if there is none, only whether the store can be listed.
fn find(settings: &Settings, uri: &str, mark: &str) -> Result<(), String> {
    let elsewhere = || {
        format!(
            "what rank 0 has written to {uri} is not there, so it is another folder on this machine; set \
             checkpoint.uri to one that all machines share, or to an object store"
        )
    };
    let found = Store::open_existing_with(uri, store_options(settings)).and_then(|store| {
        store.list()?;
        if mark.is_empty() { Ok(true) } else { store.has_mark(mark) }
    });
    match found {
        Ok(true) => Ok(()),
        Ok(false) => Err(elsewhere()),
        // If rank 0 could not create it either, that is its own failure.
        Err(CheckpointError::Absent { .. }) if mark.is_empty() => Ok(()),
        Err(CheckpointError::Absent { .. }) => Err(elsewhere()),
        Err(error) => Err(error.to_string()),
    }
}

/// The folders that opening the store at `uri` creates, the innermost first; none if it is not a folder.
fn missing_folders(uri: &str) -> Vec<PathBuf> {
    let Some(path) = directory(uri).and_then(|path| std::path::absolute(path).ok()) else { return Vec::new() };
    path.ancestors().take_while(|folder| !folder.exists()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use ddpm_comm::World;

    use super::*;

    #[test]
    fn a_store_is_tested_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = format!("run.dir={:?}", dir.path().join("a/run").display().to_string());
        let settings = Settings::load("smoke", &[run_dir]).unwrap();
        let world = World::init().unwrap();
        assert_eq!(reach(world.collective().as_ref(), &settings), Outcome::Fine(()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        // What was there before stays.
        fs::create_dir_all(dir.path().join("a/run/checkpoints")).unwrap();
        assert_eq!(reach(world.collective().as_ref(), &settings), Outcome::Fine(()));
        assert_eq!(fs::read_dir(dir.path().join("a/run/checkpoints")).unwrap().count(), 0);
        assert!(dir.path().join("a/run/checkpoints").is_dir());
    }

    #[test]
    fn another_folder_of_the_same_name_is_another_store() {
        let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let uri = |dir: &tempfile::TempDir| dir.path().display().to_string();
        let settings = Settings::load("smoke", &[]).unwrap();
        let (store, mark) = prepare(&settings, &uri(&here)).unwrap();
        let mark = mark.unwrap();
        assert_eq!(find(&settings, &uri(&here), &mark), Ok(()));
        for elsewhere in [uri(&there), format!("{}/none", uri(&there))] {
            let found = find(&settings, &elsewhere, &mark).unwrap_err();
            assert!(found.contains("is another folder on this machine"), "{found}");
        }
        store.remove_mark(&mark).unwrap();
        assert_eq!(find(&settings, &uri(&here), ""), Ok(()));
        for dir in [&here, &there] {
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
        }
    }
}
