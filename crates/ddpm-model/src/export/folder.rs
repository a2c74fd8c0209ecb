//! The folder of an export. It appears under its name only once it is complete, and never replaces anything but an
//! earlier export.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;

use crate::error::{Error, Remedy};

/// What the top level of an export may contain.
const NAMES: [&str; 9] = [
    "README.md",
    "config.json",
    "config.toml",
    "ddim",
    "model.safetensors",
    "model_index.json",
    "samples.png",
    "scheduler",
    "unet",
];

/// A folder to export to.
pub struct ExportFolder {
    path: PathBuf,
    parent: PathBuf,
    name: String,
    replaces: bool,
}

impl ExportFolder {
    /// Refuses a path at which there is anything but an empty folder or, with `replace`, an earlier export.
    pub fn claim(path: &Path, replace: bool) -> Result<Self, Error> {
        let shown = path.display();
        let resolved = std::path::absolute(path).map_err(|e| Error::file(path, e))?;
        let (Some(name), Some(parent)) = (resolved.file_name().and_then(|name| name.to_str()), resolved.parent())
        else {
            return Err(Error::config(format!("{shown} is not the name of a folder; give one that is")));
        };
        let (name, parent) = (name.to_owned(), parent.to_path_buf());
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>, std::io::Error>>(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let entries = entries.map_err(|e| Error::file(path, e))?;
        let foreign = entries.iter().map(|entry| entry.to_string_lossy()).find(|entry| !is_exported(entry));
        match (entries.is_empty(), replace, foreign) {
            (true, _, _) => Ok(Self { path: resolved, parent, name, replaces: false }),
            (false, true, None) => Ok(Self { path: resolved, parent, name, replaces: true }),
            (false, true, Some(entry)) => Err(Error::config(format!(
                "{shown} holds {entry}, which no export has written, so it is not replaced; give another folder"
            ))),
            (false, false, _) => {
                let message = format!("{shown} is not empty; give another folder");
                Err(Error::config(message).or(Remedy::Overwrite))
            }
        }
    }

    /// The name of the folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates the folder with the content that `write` puts into the folder it is passed. If `write` fails, nothing
    /// changes.
    pub(super) fn fill(&self, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
        fs::create_dir_all(&self.parent).map_err(|e| Error::file(&self.parent, e))?;
        let beside = |what: &str| self.parent.join(format!(".{}.{}.{what}", self.name, process::id()));
        let (partial, earlier) = (Partial(beside("partial")), beside("earlier"));
        // Left by a process with this number that was killed.
        let _ = fs::remove_dir_all(&partial.0);
        fs::create_dir(&partial.0).map_err(|e| Error::file(&partial.0, e))?;
        write(&partial.0)?;
        let failed = |e| Error::file(&self.path, e);
        if !self.replaces {
            return fs::rename(&partial.0, &self.path).map_err(failed);
        }
        fs::rename(&self.path, &earlier).map_err(failed)?;
        if let Err(e) = fs::rename(&partial.0, &self.path) {
            return Err(failed(fs::rename(&earlier, &self.path).err().unwrap_or(e)));
        }
        fs::remove_dir_all(&earlier).map_err(|e| Error::file(&earlier, e))
    }
}

fn is_exported(name: &str) -> bool {
    let variant = name.strip_prefix("model.").is_some_and(|rest| rest.ends_with(".safetensors"));
    variant || NAMES.contains(&name)
}

/// A folder that is not complete yet; what is still there in the end is deleted.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn readme(text: &str) -> impl FnOnce(&Path) -> Result<(), Error> {
        move |folder| fs::write(folder.join("README.md"), text).map_err(|e| Error::file(folder, e))
    }

    #[test]
    fn a_folder_is_there_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("models/digits");
        let fails = |folder: &Path| readme("half")(folder).and(Err(Error::config("the disk is full")));
        ExportFolder::claim(&path, false).unwrap().fill(fails).unwrap_err();
        assert_eq!(names(path.parent().unwrap()), [""; 0]);
        ExportFolder::claim(&path, false).unwrap().fill(readme("one")).unwrap();
        assert!(ExportFolder::claim(&path, false).is_err());
        // The earlier export survives a failure to replace it.
        ExportFolder::claim(&path, true).unwrap().fill(fails).unwrap_err();
        assert_eq!(fs::read_to_string(path.join("README.md")).unwrap(), "one");
        ExportFolder::claim(&path, true).unwrap().fill(readme("two")).unwrap();
        assert_eq!(fs::read_to_string(path.join("README.md")).unwrap(), "two");
        assert_eq!(names(path.parent().unwrap()), ["digits"]);
    }

    #[test]
    fn an_empty_folder_is_used_and_any_other_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        ExportFolder::claim(dir.path(), false).unwrap().fill(readme("one")).unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        let refused = ExportFolder::claim(dir.path(), true).err().unwrap();
        assert!(refused.to_string().contains("notes.txt"), "{refused}");
    }
}
