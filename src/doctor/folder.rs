//! A folder and the file system it lies on: type, mount, space, names. Writes nothing; `storage` does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use syncytia_launch::ExitCode;

use super::{Finding, bytes};

/// Longest name a run gives a file: an event file with a time, a process id and a temporary suffix.
const LONGEST_NAME: u64 = 80;
/// Longest path below a run folder, a report's tables included.
const LONGEST_BELOW: usize = 160;
/// What Linux takes as a path.
const LONGEST_PATH: usize = 4095;

/// What a folder is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// `--run`: checkpoints and logs are written here.
    Run,
    /// `--shards`: only read.
    Shards,
    /// Nobody named it: the folder we stand in, looked at because a run would often lie there.
    Here,
}

/// A folder that was asked about, and the nearest one that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// As asked.
    pub asked: PathBuf,
    /// Itself, or the nearest above it that exists.
    pub at: PathBuf,
    /// What it is for.
    pub used: Use,
}

/// What a run needs of the disk beyond what it has there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// Files and folders.
    pub files: u64,
}

impl Folder {
    /// Finds the nearest existing folder.
    ///
    /// # Errors
    /// In words: the path is a file, or below one, or cannot be looked at.
    pub fn find(asked: &Path, used: Use) -> Result<Folder, (ExitCode, String)> {
        let whole = std::path::absolute(asked).unwrap_or_else(|_| asked.to_owned());
        for at in whole.ancestors() {
            match fs::metadata(at) {
                Ok(meta) if meta.is_dir() => {
                    return Ok(Folder { asked: asked.to_owned(), at: at.to_owned(), used });
                }
                Ok(_) => return Err((ExitCode::Usage, format!("{} is a file", at.display()))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err((ExitCode::of_io(&e, ExitCode::Usage), format!("{}: {e}", at.display()))),
            }
        }
        Err((ExitCode::Usage, format!("nothing above {} exists", whole.display())))
    }

    /// `is there` or where it would be made.
    fn place(&self) -> String {
        let whole = std::path::absolute(&self.asked).unwrap_or_else(|_| self.asked.clone());
        if whole == self.at {
            return self.at.display().to_string();
        }
        format!("{}, not there yet; looked at {}", self.asked.display(), self.at.display())
    }
}

/// What an existing run has on the disk.
pub fn size_of(folder: &Path) -> Room {
    let mut size = Room::default();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        size.files += 1;
        if meta.is_dir() {
            let below = size_of(&entry.path());
            size = Room { bytes: size.bytes + below.bytes, files: size.files + below.files };
        } else {
            size.bytes += meta.len();
        }
    }
    size
}

/// Looks at the file system of `folder`; `need` is what the run will write there.
pub fn look(folder: &Folder, need: Room) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("folder", folder.place())];
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let whole = folder.at.canonicalize().unwrap_or_else(|_| folder.at.clone());
    if let Some(mount) = Mount::of(&whole, &mounts) {
        findings.push(judge(&mount, folder.used));
    }
    #[cfg(unix)]
    match rustix::fs::statvfs(&folder.at) {
        Ok(stat) => findings.extend(space(&stat, folder, need)),
        Err(e) => {
            let code = ExitCode::Storage;
            findings.push(Finding::fail(code, "space", io::Error::from(e).to_string(), "look at the mount with `df`"));
        }
    }
    #[cfg(not(unix))]
    let _ = need;
    findings
}

/// A line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    at: PathBuf,
    kind: String,
    source: String,
    read_only: bool,
}

impl Mount {
    /// The mount a path lies on: the longest mount point above it, of equal ones the last mounted.
    fn of(path: &Path, mountinfo: &str) -> Option<Mount> {
        let mounts = mountinfo.lines().filter_map(Mount::read).filter(|mount| path.starts_with(&mount.at));
        mounts.max_by_key(|mount| mount.at.components().count()) // of equals the last
    }

    fn read(line: &str) -> Option<Mount> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(4);
        let (at, options) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, source) = (right.next()?.to_owned(), right.next()?.to_owned());
        let of_all = right.next().unwrap_or_default();
        let read_only = options.split(',').chain(of_all.split(',')).any(|option| option == "ro");
        Some(Mount { at: unescape(at).into(), kind, source, read_only })
    }
}

/// mountinfo writes blanks and backslashes as octal numbers.
fn unescape(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('\\') {
        out += before;
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

fn judge(mount: &Mount, used: Use) -> Finding {
    let mut found = format!("{} ({}) at {}", mount.kind, mount.source, mount.at.display());
    if mount.read_only {
        found += ", read-only";
    }
    let what = "file system";
    match used {
        Use::Shards => Finding::ok(what, found),
        Use::Run if mount.read_only => {
            Finding::fail(ExitCode::Storage, what, found, "give --run a folder that can be written")
        }
        _ if mount.read_only => Finding::warn(what, found, "give --run a folder that can be written"),
        _ => match mount.kind.as_str() {
            "tmpfs" | "ramfs" | "devtmpfs" => Finding::warn(
                what,
                found,
                "this is memory: it is gone after a restart, and fills what ranks compute in",
            ),
            "overlay" | "aufs" => Finding::warn(
                what,
                found,
                "this is a container's own layer and goes with it: mount a folder of the host",
            ),
            _ => Finding::ok(what, found),
        },
    }
}

#[cfg(unix)]
fn space(stat: &rustix::fs::StatVfs, folder: &Folder, need: Room) -> Vec<Finding> {
    let mut findings = Vec::new();
    if stat.f_namemax < LONGEST_NAME {
        let found = format!("names of at most {} bytes", stat.f_namemax);
        findings.push(Finding::fail(
            ExitCode::Storage,
            "names",
            found,
            "this file system cannot hold a run: choose another",
        ));
    } else {
        let length = folder.asked.as_os_str().len().max(folder.at.as_os_str().len());
        let found = format!("names of up to {} bytes, a path of {length}", stat.f_namemax);
        findings.push(if length + LONGEST_BELOW > LONGEST_PATH {
            Finding::fail(ExitCode::Storage, "names", found, "choose a folder with a shorter path")
        } else {
            Finding::ok("names", found)
        });
    }
    if folder.used == Use::Shards {
        return findings;
    }
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    findings.push(enough("space", &bytes(free), free, &bytes(need.bytes), need.bytes, folder.used));
    if stat.f_files > 0 {
        // some file systems have no fixed number and say 0
        let (free, need) = (stat.f_favail, need.files);
        findings.push(enough("inodes", &free.to_string(), free, &need.to_string(), need, folder.used));
    }
    findings
}

/// Free against needed; nothing left at all is as bad as too little.
fn enough(what: &str, free_said: &str, free: u64, need_said: &str, need: u64, used: Use) -> Finding {
    let found = match need {
        0 => format!("{free_said} free"),
        _ => format!("{free_said} free, the run needs {need_said} more"),
    };
    if free >= need.max(1) {
        return Finding::ok(what, found);
    }
    let advice = "free some, lower checkpoint.keep, or give another --run";
    match used {
        Use::Run => Finding::fail(ExitCode::Storage, what, found, advice),
        _ => Finding::warn(what, found, advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:26 / /dev/shm rw,relatime - tmpfs tmpfs rw,size=24683660k
40 22 0:40 / /home rw,relatime shared:20 - nfs4 server:/home rw,vers=4.2,hard
41 40 0:41 / /home/my\\040data ro,relatime - lustre 10.0.0.1@o2ib:/scratch ro,flock
50 22 0:50 / /scratch rw - ext4 /dev/vdb rw
51 22 0:51 / /scratch rw - overlay overlay rw,lowerdir=/a
";

    #[test]
    fn a_path_lies_on_the_nearest_mount_and_of_two_on_the_last() {
        let kind = |path: &str| Mount::of(Path::new(path), MOUNTS).unwrap().kind;
        assert_eq!(kind("/home/me/run"), "nfs4");
        assert_eq!(kind("/homework"), "ext4");
        assert_eq!(kind("/scratch/run"), "overlay");
        let lustre = Mount::of(Path::new("/home/my data/x"), MOUNTS).unwrap();
        assert_eq!(
            (lustre.kind.as_str(), lustre.read_only, lustre.source.as_str()),
            ("lustre", true, "10.0.0.1@o2ib:/scratch")
        );
        assert_eq!(unescape("a\\134b\\x"), "a\\b\\x");
    }

    #[test]
    fn memory_and_containers_are_a_warning_for_runs_and_nothing_to_shards() {
        let verdict = |path: &str, used| judge(&Mount::of(Path::new(path), MOUNTS).unwrap(), used).verdict;
        assert_eq!(verdict("/dev/shm", Use::Run), Verdict::Warn);
        assert_eq!(verdict("/scratch", Use::Run), Verdict::Warn);
        assert_eq!(verdict("/dev/shm", Use::Shards), Verdict::Ok);
        assert_eq!(verdict("/home/my data", Use::Shards), Verdict::Ok);
        assert_eq!(verdict("/home/my data", Use::Run), Verdict::Fail(ExitCode::Storage));
        assert_eq!(verdict("/home/my data", Use::Here), Verdict::Warn);
    }

    #[test]
    fn a_folder_to_be_made_is_judged_by_the_nearest_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let found = Folder::find(&dir.path().join("a/b"), Use::Run).unwrap();
        assert_eq!(found.at, dir.path());
        fs::write(dir.path().join("a"), "").unwrap();
        let (code, words) = Folder::find(&dir.path().join("a/b"), Use::Run).unwrap_err();
        assert!(code == ExitCode::Usage && words.contains("/a"), "{words}");
    }

    #[test]
    fn too_little_room_ends_the_plan_and_none_at_all_too() {
        let fail = Verdict::Fail(ExitCode::Storage);
        assert_eq!(enough("space", "1 GiB", 1 << 30, "2 GiB", 2 << 30, Use::Run).verdict, fail);
        assert_eq!(enough("space", "0 B", 0, "0 B", 0, Use::Run).verdict, fail);
        assert_eq!(enough("space", "0 B", 0, "0 B", 0, Use::Here).verdict, Verdict::Warn);
        assert_eq!(enough("space", "1 B", 1, "0 B", 0, Use::Run).verdict, Verdict::Ok);
    }
}
