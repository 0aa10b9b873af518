//! Crash-safe writes: a temporary name beside the target, fsync, rename, fsync of the folder. What has its final name is
//! whole. Must not know what the bytes mean.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Start of every temporary name; what carries it was never finished and may be deleted by the folder's owner.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// Writes a file so that readers see the old content or the new, never a part, whatever dies when.
///
/// # Errors
/// The system's; the target is then as it was.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = parent_of(path);
    let temporary = temporary_beside(parent, path);
    let written = (|| {
        let mut file = File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary); // a leftover is only untidy; the first error is the one to tell
    }
    written?;
    sync_folder(parent)
}

/// A folder that gets its name only when everything in it is on the disk. Dropped without [`AtomicDir::commit`], it is
/// removed.
#[derive(Debug)]
pub struct AtomicDir {
    temporary: PathBuf,
    target: PathBuf,
    committed: bool,
}

impl AtomicDir {
    /// Makes an empty folder under a temporary name in `parent`; `name` is what it will be called.
    ///
    /// # Errors
    /// The system's.
    pub fn create(parent: &Path, name: &str) -> io::Result<AtomicDir> {
        let target = parent.join(name);
        let temporary = temporary_beside(parent, &target);
        fs::create_dir(&temporary)?;
        Ok(AtomicDir { temporary, target, committed: false })
    }

    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Fsyncs every file and folder inside, takes the final name, fsyncs the parent.
    ///
    /// # Errors
    /// The system's, and `AlreadyExists` when the name is taken; the temporary folder is then removed.
    pub fn commit(mut self) -> io::Result<()> {
        sync_tree(&self.temporary)?;
        if self.target.symlink_metadata().is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", self.target.display())));
        }
        fs::rename(&self.temporary, &self.target)?;
        self.committed = true;
        sync_folder(parent_of(&self.target))
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.temporary); // leftovers are cleaned at the next start
        }
    }
}

/// Makes renames and removals in a folder survive a power cut.
///
/// # Errors
/// The system's.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name that no other writer uses: process and a counter.
fn temporary_beside(parent: &Path, target: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    parent.join(format!("{TEMPORARY_PREFIX}{name}-{}-{n}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_written_file_replaces_the_old_one_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_failed_write_leaves_the_target_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        fs::create_dir(&target).unwrap(); // a file cannot be renamed onto a folder
        assert!(write_atomic(&target, b"x").is_err());
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_folder_has_its_name_only_after_commit() {
        let folder = tempfile::tempdir().unwrap();
        let dir = AtomicDir::create(folder.path(), "d").unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        fs::write(dir.path().join("inner/f"), b"1").unwrap();
        assert!(!folder.path().join("d").exists());
        dir.commit().unwrap();
        assert_eq!(fs::read(folder.path().join("d/inner/f")).unwrap(), b"1");
        assert_eq!(names(folder.path()), ["d"]);
    }

    #[test]
    fn a_dropped_or_refused_folder_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        drop(AtomicDir::create(folder.path(), "d").unwrap());
        assert!(names(folder.path()).is_empty());
        fs::create_dir(folder.path().join("d")).unwrap();
        let refused = AtomicDir::create(folder.path(), "d").unwrap().commit().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(folder.path()), ["d"]);
    }
}
