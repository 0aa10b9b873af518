//! What a run needs of the machine, looked at before hours are queued on it: one file per thing, each giving findings.
//!
//! A finding says what was looked at, what was found, whether it will do, and what to do if not. No look may hang: each
//! runs on a thread of its own and is given up after a time (a network file system whose server is gone answers no call).
//! Nothing is written but temporary files in the folder that was asked about. Must not know the command line; only
//! `configured` knows models and training.

pub mod cgroup;
pub mod clock;
pub mod configured;
pub mod devices;
pub mod engines;
pub mod folder;
pub mod gpu;
pub mod limits;
pub mod mpi;
pub mod program;
pub mod slurm;
pub mod storage;

use std::sync::mpsc;
use std::time::Duration;

use serde::Serialize;
use syncytia_launch::ExitCode;

/// Whether what was found will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It will.
    Ok,
    /// It will, with a drawback that is named.
    Warn,
    /// The run cannot work; it would end with this code.
    Fail(ExitCode),
}

impl Verdict {
    /// `ok`, `warn` or `fail`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail(_) => "fail",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub found: String,
    /// Whether it will do.
    pub verdict: Verdict,
    /// What to do; empty where nothing is.
    pub advice: String,
}

impl Finding {
    /// It will do.
    pub fn ok(what: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding { what: what.into(), found: found.into(), verdict: Verdict::Ok, advice: String::new() }
    }

    /// It will do, with a drawback.
    pub fn warn(what: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Warn, advice: advice.into(), ..Finding::ok(what, found) }
    }

    /// The run cannot work.
    pub fn fail(
        code: ExitCode,
        what: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding { verdict: Verdict::Fail(code), advice: advice.into(), ..Finding::ok(what, found) }
    }
}

/// What a look gives: its lines, and what later looks need of it.
pub type Look<T> = (Vec<Finding>, Option<T>);

/// Looks for at most `patience`; a look that does not answer is a line of its own, with the verdict `unanswered`.
pub fn look<T: Send + 'static>(
    what: &str,
    patience: Duration,
    unanswered: Verdict,
    look: impl FnOnce() -> Look<T> + Send + 'static,
) -> Look<T> {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::Builder::new().name("doctor".to_owned()).spawn(move || {
        let _ = tell.send(look()); // nobody listens once it took too long
    });
    let advice = match thread {
        Ok(_) => match told.recv_timeout(patience) {
            Ok(answer) => return answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let found = format!("no answer in {} s", patience.as_secs());
                let advice = "whatever was asked is stuck or slow (a network file system whose server is gone answers \
                              nothing); --patience S waits longer";
                return (vec![Finding { verdict: unanswered, ..Finding::warn(what, found, advice) }], None);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => "this look failed by itself, a bug of ours: please report it",
        },
        Err(_) => "the system gives no thread: see the limits below",
    };
    (vec![Finding::warn(what, "not looked at", advice)], None)
}

/// The exit code of a table: that of its first line that fails.
pub fn exit_code<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> ExitCode {
    let failed = findings.into_iter().find_map(|finding| match finding.verdict {
        Verdict::Fail(code) => Some(code),
        _ => None,
    });
    failed.unwrap_or(ExitCode::Done)
}

/// A number of bytes as people say it.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let (mut value, mut unit) = (n as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if value < 10.0 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_hangs_or_fails_by_itself_is_a_line_and_no_more() {
        let patience = Duration::from_millis(50);
        let unanswered = Verdict::Fail(ExitCode::Storage);
        let (stuck, nothing) = look("folder", patience, unanswered, || {
            std::thread::sleep(Duration::from_secs(3600));
            (vec![], Some(1))
        });
        assert_eq!((stuck[0].what.as_str(), stuck[0].verdict, nothing), ("folder", unanswered, None));
        assert!(stuck[0].found.starts_with("no answer in"), "{stuck:?}");
        assert_eq!(exit_code(&stuck), ExitCode::Storage);

        let (broken, nothing) = look("folder", Duration::from_secs(10), unanswered, || -> Look<()> { panic!("a bug") });
        assert_eq!((broken[0].verdict, nothing), (Verdict::Warn, None));
    }

    #[test]
    fn the_first_line_that_fails_gives_the_code() {
        let fail = |code| Finding::fail(code, "", "", "");
        assert_eq!(exit_code(&[Finding::ok("", ""), Finding::warn("", "", "")]), ExitCode::Done);
        let both = [Finding::warn("", "", ""), fail(ExitCode::Data), fail(ExitCode::Storage)];
        assert_eq!(exit_code(&both), ExitCode::Data);
    }

    #[test]
    fn bytes_are_said_as_people_say_them() {
        let said = [0, 1023, 1024, 1536 << 10, 21 << 30, u64::MAX].map(bytes);
        assert_eq!(said, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "21 GiB", "16384 PiB"]);
    }
}
