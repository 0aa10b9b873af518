//! Small disks that can be full.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs, unmounted on drop.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one with `options` over a folder. `None`, said loudly and a failure in CI, where this needs rights we lack.
    pub fn mount(at: &Path, options: &str, story: &str) -> Option<SmallDisk> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(at.to_owned()));
        }
        assert!(std::env::var_os("SYNCYTIA_REQUIRE_ALL").is_none_or(|v| v != "1"), "cannot mount a tmpfs: {story}");
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: {story} (mounting a tmpfs needs root)");
        None
    }

    /// Takes all there is.
    pub fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
    }

    /// Takes all but about so many bytes.
    pub fn fill_but(&self, left: u64) {
        self.fill();
        let file = File::options().write(true).open(self.ballast()).unwrap();
        file.set_len(file.metadata().unwrap().len().saturating_sub(left)).unwrap();
    }

    /// Gives back what was taken.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
