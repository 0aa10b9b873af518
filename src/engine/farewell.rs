//! How a process leaves a library when all work is done: by the library's own goodbye, and without it where that does not
//! return. Knows a library by its words alone.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// What became of a goodbye. Unless it was said, a launcher may end who leaves a moment later, and Open MPI's says that the
/// run failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// It returned.
    Said,
    /// It was not called: this library is known to wait in it for ever.
    LeftOut,
    /// It did not return in time, and may never.
    Unanswered,
}

/// Says `goodbye`, on a thread of its own, to the library that describes itself as `library`.
pub fn say(library: &str, patience: Duration, goodbye: impl FnOnce() + Send + 'static) -> Farewell {
    if waits_for_ever(library) {
        std::mem::forget(goodbye); // what it holds may say goodbye as well
        return Farewell::LeftOut;
    }
    let (returned, returns) = channel();
    let call = move || {
        goodbye();
        let _ = returned.send(()); // who has left does not listen
    };
    if std::thread::Builder::new().name("farewell".to_owned()).spawn(call).is_err() {
        return Farewell::Unanswered;
    }
    match returns.recv_timeout(patience) {
        Err(RecvTimeoutError::Timeout) => Farewell::Unanswered,
        _ => Farewell::Said,
    }
}

/// Whether `MPI_Finalize` of this library may wait for ever: MPICH before 4.2 on UCX closes its connections and then waits for
/// the others where nothing looks at the network any more, so that they cannot close theirs (pmodels/mpich#6596; 6 of 25
/// ends over TCP at a load of 10). Its mpiexec takes the exit codes of processes that leave without.
fn waits_for_ever(library: &str) -> bool {
    let Some(version) = library.strip_prefix("MPICH Version:") else { return false };
    let mut numbers = version.trim_start().split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next(), numbers.next());
    version < (Some(4), Some(2))
        && library.lines().any(|line| line.starts_with("MPICH Device:") && line.ends_with("ch4:ucx"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN_12: &str = "MPICH Version:\t4.0.2\nMPICH Release date:\tThu Apr  7 12:34:45 CDT 2022\n\
                             MPICH ABI:\t14:2:2\nMPICH Device:\tch4:ucx\nMPICH configure:\t--with-device=ch4:ucx\n";
    const OPEN_MPI: &str = "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4, repo rev: v4.1.4, May 26, 2022";

    #[test]
    fn the_library_that_waits_for_ever_is_known_by_its_own_words() {
        assert!(waits_for_ever(DEBIAN_12) && waits_for_ever(&DEBIAN_12.replace("4.0.2", "4.1")));
        for (from, to) in [("4.0.2", "4.2.0"), ("4.0.2", "5.0.0a1"), ("Device:\tch4:ucx", "Device:\tch4:ofi")] {
            assert!(!waits_for_ever(&DEBIAN_12.replace(from, to)), "{to}");
        }
        for other in [OPEN_MPI, "Intel(R) MPI Library 2021.9 for Linux* OS\n", ""] {
            assert!(!waits_for_ever(other), "{other}");
        }
    }

    #[test]
    fn a_goodbye_without_an_answer_keeps_nobody() {
        let soon = Duration::from_millis(50);
        assert_eq!(say(OPEN_MPI, Duration::from_secs(60), || {}), Farewell::Said);
        let for_ever = || loop {
            std::thread::park();
        };
        assert_eq!(say(OPEN_MPI, soon, for_ever), Farewell::Unanswered);
        assert_eq!(say(DEBIAN_12, soon, || panic!("it would have waited for ever")), Farewell::LeftOut);
    }
}
