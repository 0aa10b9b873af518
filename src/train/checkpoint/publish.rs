//! Gives a finished checkpoint its name, also where the name is taken, and clears what a crash left. At every moment the
//! name belongs to a whole checkpoint, or a start brings it back. Must not know what is in a checkpoint.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use syncytia_shards::durable::{AtomicDir, FileError, sync_dir};

use super::error::CheckpointError;
use crate::train::run_folder::RunFolder;

const NEXT: &str = ".next-";
const PREVIOUS: &str = ".previous-";

/// Writes a folder by `write` and publishes it as `parent/name`, replacing what has that name.
///
/// # Errors
/// What `write` says, or [`CheckpointError::Io`]; the old folder is then still there.
pub(super) fn publish(
    parent: &Path,
    name: &str,
    write: impl FnOnce(&Path) -> Result<(), CheckpointError>,
) -> Result<PathBuf, CheckpointError> {
    let target = parent.join(name);
    let taken = target.symlink_metadata().is_ok();
    let staged = if taken { format!("{NEXT}{name}") } else { name.to_owned() };
    if taken {
        remove(&parent.join(&staged))?;
    }
    let dir = AtomicDir::create(parent, &staged)?;
    write(dir.path())?;
    dir.commit()?;
    if taken {
        replace(parent, name).map_err(CheckpointError::io("replace", &target))?;
    }
    Ok(target)
}

/// Swaps `.next-NAME` with `NAME` in one system call and removes the old one. File systems that cannot (some network
/// ones) get two renames; [`recover`] heals a crash between them.
fn replace(parent: &Path, name: &str) -> io::Result<()> {
    let (next, target) = (parent.join(format!("{NEXT}{name}")), parent.join(name));
    if exchange(&next, &target).is_ok() {
        sync_dir(parent).map_err(|e: FileError| e.source)?;
        return fs::remove_dir_all(&next);
    }
    replace_in_two_steps(parent, name)
}

fn replace_in_two_steps(parent: &Path, name: &str) -> io::Result<()> {
    let (next, target) = (parent.join(format!("{NEXT}{name}")), parent.join(name));
    let previous = parent.join(format!("{PREVIOUS}{name}"));
    if previous.symlink_metadata().is_ok() {
        fs::remove_dir_all(&previous)?;
    }
    fs::rename(&target, &previous)?;
    if let Err(error) = fs::rename(&next, &target) {
        let _ = fs::rename(&previous, &target); // back as it was; if even that fails, the next start does it
        return Err(error);
    }
    sync_dir(parent).map_err(|e: FileError| e.source)?;
    fs::remove_dir_all(&previous)
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Clears a run's checkpoint folder of what a crash left: completes a replacement that had lost its name, deletes
/// temporary folders. Called by the holder of the run's lock, before anything is read or written. Returns what was
/// removed, by name.
///
/// # Errors
/// [`CheckpointError::Io`].
pub fn recover(run: &RunFolder) -> Result<Vec<String>, CheckpointError> {
    let parent = run.checkpoints();
    let names = names(&parent)?;
    // `.next-` first: it was whole when it got that name, and it is the newer of the two
    for start in [NEXT, PREVIOUS] {
        for target in names.iter().filter_map(|n| n.strip_prefix(start)) {
            if parent.join(target).symlink_metadata().is_err() {
                let from = parent.join(format!("{start}{target}"));
                fs::rename(&from, parent.join(target)).map_err(CheckpointError::io("recover", &from))?;
            }
        }
    }
    let mut removed = Vec::new();
    for name in self::names(&parent)? {
        if name.starts_with('.') || name.ends_with(".tmp") {
            remove(&parent.join(&name))?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// Deletes a checkpoint so that a half-deleted one never has a checkpoint's name.
pub(super) fn retire(parent: &Path, name: &str) -> Result<(), CheckpointError> {
    let (target, retired) = (parent.join(name), parent.join(format!(".retired-{name}")));
    remove(&retired)?;
    fs::rename(&target, &retired).map_err(CheckpointError::io("delete", &target))?;
    remove(&retired)
}

fn remove(path: &Path) -> Result<(), CheckpointError> {
    let gone = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    gone.map_err(CheckpointError::io("delete", path))
}

/// Names in a folder, ascending; a folder that does not exist has none.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(CheckpointError::io("list", folder)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(CheckpointError::io("list", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, text: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("f"), text).unwrap();
    }

    fn content(path: PathBuf) -> String {
        fs::read_to_string(path.join("f")).unwrap()
    }

    #[test]
    fn both_ways_of_replacing_leave_the_new_folder_alone() {
        for two_steps in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            put(&folder.path().join("best"), "old");
            put(&folder.path().join(".next-best"), "new");
            let swap = if two_steps { replace_in_two_steps } else { replace };
            swap(folder.path(), "best").unwrap();
            assert_eq!(content(folder.path().join("best")), "new");
            assert_eq!(names(folder.path()).unwrap(), ["best"]);
        }
    }

    #[test]
    fn a_crash_at_any_point_of_a_replacement_leaves_one_whole_folder() {
        // (what lies there, what `best` must be afterwards)
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("best", "old"), (".next-best", "new")], "old"), // before the swap: the old one is whole
            (&[("best", "new"), (".next-best", "old")], "new"), // after the swap, before the removal
            (&[(".previous-best", "old"), (".next-best", "new")], "new"), // between two renames
            (&[(".previous-best", "old"), ("best", "new")], "new"), // before the removal of the old one
            (&[(".previous-best", "old"), (".tmp-.next-best-1-0", "half")], "old"), // a file system that lost a rename
        ];
        for (there, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let run = RunFolder::create(folder.path()).unwrap();
            for (name, text) in there {
                put(&run.checkpoints().join(name), text);
            }
            recover(&run).unwrap();
            assert_eq!(content(run.checkpoints().join("best")), expected, "{there:?}");
            assert_eq!(names(&run.checkpoints()).unwrap(), ["best"], "{there:?}");
        }
    }
}
