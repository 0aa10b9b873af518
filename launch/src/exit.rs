//! The exit codes: documented, stable, one per kind of ending. Scripts branch on them, so a number never changes its
//! meaning. Must not know which command failed.

use std::io;
use std::process::Termination;

/// How the process ended, as the shell sees it.
///
/// A panic is a bug of ours and leaves with Rust's own 101, which is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// 0: the work is finished; also when a vote to stop arrived at the last step.
    Done = 0,
    /// 2: a wrong command line or config, or a run folder that another job holds. Running again unchanged will not help.
    Usage = 2,
    /// 3: the data are missing, damaged, or not what the config says.
    Data = 3,
    /// 4: another rank was lost or did not answer in time.
    Peers = 4,
    /// 5: no valid checkpoint where one is needed, or one that does not fit the run.
    Checkpoint = 5,
    /// 6: numbers that are not finite, or an overflow that a second attempt did not cure.
    Numerics = 6,
    /// 7: storage refused: disk full, quota, permission, read-only.
    Storage = 7,
    /// 75: stopped on request, everything is saved; run the same command again to go on (`EX_TEMPFAIL`).
    Stopped = 75,
    /// 130: ended at once by a second interrupt; the last checkpoint is the state.
    Interrupted = 130,
}

impl ExitCode {
    /// Every code, ascending: the table of the manual and of `--help`.
    pub const ALL: [ExitCode; 9] = [
        ExitCode::Done,
        ExitCode::Usage,
        ExitCode::Data,
        ExitCode::Peers,
        ExitCode::Checkpoint,
        ExitCode::Numerics,
        ExitCode::Storage,
        ExitCode::Stopped,
        ExitCode::Interrupted,
    ];

    /// The number the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// One line for the manual.
    pub const fn meaning(self) -> &'static str {
        match self {
            ExitCode::Done => "done",
            ExitCode::Usage => "usage or config",
            ExitCode::Data => "data",
            ExitCode::Peers => "peers",
            ExitCode::Checkpoint => "checkpoint",
            ExitCode::Numerics => "numerics",
            ExitCode::Storage => "storage (disk full, permission)",
            ExitCode::Stopped => "stopped and saved, run me again",
            ExitCode::Interrupted => "ended at once by a second interrupt",
        }
    }

    /// The code of an I/O error: 7 where storage refused, else `otherwise` (the kind of file that was being read).
    pub fn of_io(error: &io::Error, otherwise: ExitCode) -> ExitCode {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem => ExitCode::Storage,
            _ => otherwise,
        }
    }
}

/// Ends the process at once: no destructor, no handler, nothing that could wait for a lost peer.
pub fn now(code: u8) -> ! {
    signal_hook::low_level::exit(i32::from(code))
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.code().into()
    }
}

impl Termination for ExitCode {
    fn report(self) -> std::process::ExitCode {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_scripts_rely_on() {
        let numbers: Vec<u8> = ExitCode::ALL.iter().map(|c| c.code()).collect();
        assert_eq!(numbers, [0, 2, 3, 4, 5, 6, 7, 75, 130]);
    }

    #[test]
    fn a_full_disk_is_storage_and_a_missing_file_is_not() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let missing = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(ExitCode::of_io(&full, ExitCode::Data), ExitCode::Storage);
        assert_eq!(ExitCode::of_io(&missing, ExitCode::Data), ExitCode::Data);
        // ENOSPC as the kernel says it
        assert_eq!(ExitCode::of_io(&io::Error::from_raw_os_error(28), ExitCode::Data), ExitCode::Storage);
    }
}
