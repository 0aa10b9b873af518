//! Our lock's file on its way to the lock's name: made whole, linked, put in the place of a dead one. Must not know how a lock
//! is judged dead.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::holder::random_token;
use super::seen::{Seen, age, read_lock};
use super::{Holder, LockError, Timing, beat_line, io_error};
use crate::train::run_folder::RunFolder;

/// Our lock's file under a name nobody looks at, made whole before it is linked to the name everybody looks at. Removed
/// on drop.
pub(super) struct Claim {
    pub(super) path: PathBuf,
    text: String,
}

impl Claim {
    pub(super) fn make(run: &RunFolder, holder: &Holder) -> Result<Claim, LockError> {
        let line = serde_json::to_string(holder).expect("a holder is plain data");
        let text = format!("{line}\n{}", beat_line(0));
        let path = sibling(run, &format!("claim-{}", random_token()));
        let claim = Claim { path, text };
        let mut file = File::create_new(&claim.path).map_err(io_error("make", &claim.path))?;
        let written = file.write_all(claim.text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(io_error("write", &claim.path))?;
        Ok(claim)
    }

    /// Gives our file the name `path` if nobody has it. File systems without hard links get an exclusive create: a reader
    /// may then see it empty for a moment, takes it for held, and is right.
    pub(super) fn link_to(&self, path: &Path) -> Result<bool, LockError> {
        match fs::hard_link(&self.path, path) {
            Ok(()) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(e) if matches!(e.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {}
            Err(e) => return Err(io_error("make", path)(e)),
        }
        match File::create_new(path) {
            Ok(mut file) => {
                let written = file.write_all(self.text.as_bytes()).and_then(|()| file.sync_all());
                written.map_err(io_error("write", path))?;
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(io_error("make", path)(e)),
        }
    }

    /// Puts our lock in the place of the one we saw, if nobody else does: see the head of `lock`.
    pub(super) fn replace(&self, run: &RunFolder, seen: &Seen, by: &Holder, timing: Timing) -> Result<bool, LockError> {
        let entry = entry_path(run, seen.token());
        if !self.link_to(&entry)? {
            // Somebody is at it, or died at it. An entry of a process that is dead on this machine is in nobody's hands, nor is
            // one as old as a dead lock or from the future: it takes milliseconds to make use of it.
            let old = || age(&entry, &self.path).is_ok_and(|(age, ahead)| age.max(ahead) > timing.takeover_after);
            if is_of_the_dead(&entry, by) || old() {
                let _ = fs::remove_file(&entry);
            }
            return Ok(false);
        }
        let replaced = (|| {
            let unchanged = Seen::look(run, &self.path)?.is_some_and(|now| now.token() == seen.token());
            if !unchanged {
                return Ok(false);
            }
            // a second link to our file is spent by the rename; the claim's own name stays for drop
            let staged = sibling(run, &format!("staged-{}", random_token()));
            if !self.link_to(&staged)? {
                return Ok(false);
            }
            fs::rename(&staged, run.lock()).map_err(io_error("replace", &run.lock()))?;
            Ok(true)
        })();
        let _ = fs::remove_file(&entry);
        replaced
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // untidy if it stays, never harmful
    }
}

/// Whether a claim or entry was made by a process of this machine that is no more.
fn is_of_the_dead(path: &Path, by: &Holder) -> bool {
    read_lock(path).ok().flatten().is_some_and(|holder| holder.is_dead_here(by))
}

/// What processes that were killed while they took the lock left beside it: untidy, never harmful.
pub(super) fn remove_claims_of_the_dead(run: &RunFolder, by: &Holder) {
    let prefix = sibling(run, "claim-");
    let (Some(folder), Some(prefix)) = (prefix.parent(), prefix.file_name()) else { return };
    let prefix = prefix.to_string_lossy();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&*prefix) && is_of_the_dead(&entry.path(), by) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

pub(super) fn sibling(run: &RunFolder, what: &str) -> PathBuf {
    let mut name = run.lock().into_os_string();
    name.push(format!(".{what}"));
    name.into()
}

pub(super) fn entry_path(run: &RunFolder, token: &str) -> PathBuf {
    sibling(run, &format!("entry-{token}"))
}
