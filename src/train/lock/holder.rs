//! Who holds a run folder: host, process, job, and whether that process is known to be dead. Must not know the lock file.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use syncytia_launch::Job;

/// Who holds a run folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Host name.
    pub host: String,
    /// Process id on that host.
    pub pid: u32,
    /// What makes the process id unique: boot, pid namespace, start time. Empty where the system does not tell.
    pub life: String,
    /// The scheduler's job, if any.
    pub job: Option<Job>,
    /// When it was taken, seconds since 1970 by the holder's clock.
    pub since: u64,
    /// Unique per lock ever taken.
    pub token: String,
}

impl Holder {
    pub(super) fn this_process(job: Option<Job>) -> Holder {
        let host = fs::read_to_string("/proc/sys/kernel/hostname")
            .or_else(|_| fs::read_to_string("/etc/hostname"))
            .map_or_else(|_| "unknown host".to_owned(), |h| h.trim().to_owned());
        let pid = std::process::id();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Holder { host, pid, life: life_of(pid).unwrap_or_default(), job, since, token: random_token() }
    }

    /// Whether the process is known to be dead: only where `by` runs in the same boot of the same machine and sees the
    /// same process ids. Containers may share a host name and not their processes.
    pub(super) fn is_dead_here(&self, by: &Holder) -> bool {
        let machine = |life: &str| life.rsplit_once('/').map(|(machine, _)| machine.to_owned());
        let same_machine = machine(&self.life).is_some() && machine(&self.life) == machine(&by.life);
        self.host == by.host && same_machine && life_of(self.pid).is_none_or(|now| now != self.life)
    }
}

/// `BOOT/PID-NAMESPACE/START-TIME` of a process; `None` when there is no such process, or no /proc.
pub(super) fn life_of(pid: u32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields after the command's closing bracket: the state is the first, the start time the 20th. A zombie is dead.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some(format!("{}/{}/{}", boot.trim(), namespace.display(), fields.get(19)?))
}

/// The holder in words.
pub(super) fn described(holder: Option<&Holder>) -> String {
    let Some(h) = holder else { return "an unknown process (its lock cannot be read)".to_owned() };
    match &h.job {
        Some(job) => format!("process {} on {} (job {}, restart {})", h.pid, h.host, job.id, job.restart_count),
        None => format!("process {} on {}", h.pid, h.host),
    }
}

/// Unique without a random generator: host's entropy as std seeds its hash maps, process, time.
pub(super) fn random_token() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_u128(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos()));
    format!("{:016x}", hasher.finish())
}
