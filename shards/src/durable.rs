//! Crash-safe writes: temporary name in the same folder, fsync, rename, fsync of the folder.
//!
//! After a crash a name holds either the old bytes or the new ones, never a mixture; what was interrupted keeps a name
//! that starts with `.` and ends with `.tmp`. Knows nothing about what is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// An operating-system error with the path it happened at; the `io::Error` stays reachable through `source()`, so that
/// a full disk (`io::ErrorKind::StorageFull`) is recognised further up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried, as a verb: `write`, `rename`, ...
    pub action: &'static str,
    /// Where.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FileError {
    /// An adapter for `map_err`: `File::open(p).map_err(FileError::at("open", p))`.
    pub fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError + use<> {
        let path = path.to_path_buf();
        move |source| FileError { action, path, source }
    }
}

/// Writes `bytes` under `path`, replacing what was there in one instant.
///
/// # Errors
/// The system's error with the path; `path` is then untouched and the temporary file removed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(FileError::at("write", path))?;
    file.commit()
}

/// A file that appears under its name only when `commit` succeeds; dropped before, it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    temporary: PathBuf,
    file: Option<File>,
}

impl AtomicFile {
    /// Opens a temporary file beside `path`.
    ///
    /// # Errors
    /// The folder is missing or may not be written.
    pub fn create(path: &Path) -> Result<AtomicFile, FileError> {
        let temporary = temporary_name(path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(FileError::at("create a file for", path))?;
        Ok(AtomicFile { target: path.to_path_buf(), temporary, file: Some(file) })
    }

    /// Makes the bytes durable and gives them their name.
    ///
    /// # Errors
    /// The system's error; the old file, if any, is then untouched.
    pub fn commit(mut self) -> Result<(), FileError> {
        let file = self.file.take().expect("the file is open until commit");
        file.sync_all().map_err(FileError::at("sync", &self.target))?;
        drop(file);
        fs::rename(&self.temporary, &self.target).map_err(FileError::at("rename a file to", &self.target))?;
        self.temporary.clear();
        sync_dir(parent_of(&self.target))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().expect("the file is open until commit").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().expect("the file is open until commit").flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.temporary); // best effort: the name says that it is a left-over
        }
    }
}

/// A file that grows by whole pieces: a piece that does not fit leaves nothing of itself, so that what follows when there
/// is room again does not stand behind half a line. For logs: nothing is synced unless asked.
#[derive(Debug)]
pub struct AppendFile {
    file: File,
    whole: u64,
    torn: bool,
}

impl AppendFile {
    /// Opens `path` to add to it, or makes it. What is there already is taken as whole.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<AppendFile> {
        AppendFile::from_options(OpenOptions::new().create(true), path)
    }

    /// Makes `path`, which must not exist.
    ///
    /// # Errors
    /// The system's; `AlreadyExists` when another writer took the name.
    pub fn create_new(path: &Path) -> io::Result<AppendFile> {
        AppendFile::from_options(OpenOptions::new().create_new(true), path)
    }

    fn from_options(options: &mut OpenOptions, path: &Path) -> io::Result<AppendFile> {
        let file = options.append(true).open(path)?;
        let whole = file.metadata()?.len();
        Ok(AppendFile { file, whole, torn: false })
    }

    /// Adds a piece, whole or not at all.
    ///
    /// # Errors
    /// The system's; the file is then as it was before, and another piece may be tried.
    pub fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.whole)?; // what could not be taken back last time
            self.torn = false;
        }
        let written = self.file.write_all(piece);
        match written {
            Ok(()) => self.whole += piece.len() as u64,
            Err(_) => self.torn = self.file.set_len(self.whole).is_err(),
        }
        written
    }

    /// Makes what was added durable.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A folder that appears under its name only when `commit` succeeds; dropped before, it leaves nothing.
#[derive(Debug)]
pub struct AtomicDir {
    target: PathBuf,
    temporary: PathBuf,
}

impl AtomicDir {
    /// Makes an empty temporary folder in `parent`; fill it under [`AtomicDir::path`].
    ///
    /// # Errors
    /// `parent` is missing or may not be written.
    pub fn create(parent: &Path, name: &str) -> Result<AtomicDir, FileError> {
        let target = parent.join(name);
        let temporary = temporary_name(&target);
        fs::create_dir(&temporary).map_err(FileError::at("create a folder for", &target))?;
        Ok(AtomicDir { target, temporary })
    }

    /// Where to write until `commit`.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Makes every file inside durable and gives the folder its name. A folder already there is moved aside first and
    /// removed afterwards: a crash in between leaves the name free and both contents complete under temporary names.
    ///
    /// # Errors
    /// The system's error; an old folder is put back.
    pub fn commit(mut self) -> Result<(), FileError> {
        sync_tree(&self.temporary)?;
        let aside = temporary_name(&self.target);
        let replaces = match fs::rename(&self.target, &aside) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(FileError::at("move aside", &self.target)(e)),
        };
        if let Err(e) = fs::rename(&self.temporary, &self.target) {
            if replaces {
                fs::rename(&aside, &self.target).map_err(FileError::at("put back", &self.target))?;
            }
            return Err(FileError::at("rename a folder to", &self.target)(e));
        }
        self.temporary.clear();
        sync_dir(parent_of(&self.target))?;
        if replaces {
            fs::remove_dir_all(&aside).map_err(FileError::at("remove", &aside))?;
        }
        Ok(())
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.temporary); // best effort: the name says that it is a left-over
        }
    }
}

/// Whether a file or folder name is a left-over of an interrupted write.
pub fn is_left_over(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

/// Makes the entries of a folder durable (names made, renamed or removed in it).
///
/// # Errors
/// The system's error.
pub fn sync_dir(dir: &Path) -> Result<(), FileError> {
    // Only Unix opens folders as files; elsewhere the rename itself is all there is.
    if cfg!(unix) {
        File::open(dir).and_then(|d| d.sync_all()).map_err(FileError::at("sync the folder", dir))?;
    }
    Ok(())
}

fn sync_tree(dir: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(dir).map_err(FileError::at("list", dir))? {
        let path = entry.map_err(FileError::at("list", dir))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|f| f.sync_all()).map_err(FileError::at("sync", &path))?;
        }
    }
    sync_dir(dir)
}

/// `dir/name` → `dir/.name.<process>-<count>.tmp`: unique among the processes of a host and the threads of a process.
fn temporary_name(target: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    parent_of(target).join(format!(".{name}.{}-{count}.tmp", std::process::id()))
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_old_bytes_until_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(names(dir.path()).iter().any(|n| is_left_over(n)));
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        drop(AtomicFile::create(&path).unwrap());
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[test]
    fn a_folder_appears_whole_and_replaces_whole() {
        let dir = tempfile::tempdir().unwrap();
        for (file, bytes) in [("one", "1"), ("two", "2")] {
            let folder = AtomicDir::create(dir.path(), "best").unwrap();
            fs::write(folder.path().join(file), bytes).unwrap();
            folder.commit().unwrap();
            assert_eq!(names(&dir.path().join("best")), [file]);
        }
        drop(AtomicDir::create(dir.path(), "best").unwrap());
        assert_eq!(names(dir.path()), ["best"]);
    }

    #[test]
    fn a_piece_is_added_whole_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        AppendFile::open(&path).unwrap().append(b"one\n").unwrap();
        let mut again = AppendFile::open(&path).unwrap();
        again.append(b"two\n").unwrap();
        // half a piece that the system took before it refused, and could not take back at once
        File::options().append(true).open(&path).unwrap().write_all(b"thr").unwrap();
        again.torn = true;
        again.append(b"four\n").unwrap();
        again.sync().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nfour\n");
        assert_eq!(AppendFile::create_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    /// `/dev/full` takes nothing and cannot be cut: the piece is an error, the next too, nothing panics.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_an_error_each_time() {
        let mut full = AppendFile::open(Path::new("/dev/full")).unwrap();
        for _ in 0..3 {
            full.append(b"piece").unwrap_err();
        }
    }

    #[test]
    fn the_kind_of_a_system_error_stays_reachable() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_atomic(&dir.path().join("no/such/folder"), b"x").unwrap_err();
        assert!(error.to_string().contains("no/such/folder"), "{error}");
        let source = std::error::Error::source(&error).and_then(|s| s.downcast_ref::<io::Error>()).unwrap();
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }
}
