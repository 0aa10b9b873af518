//! Other programs, asked what they are: found on the path, given a few seconds, ended if they say nothing.

use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a program may take to say what it is: less than a look has. A controller that does not answer keeps Slurm's
/// tools waiting for its own `MessageTimeout`, 10 s and more.
const PATIENCE: Duration = Duration::from_secs(4);

/// What became of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// No such program on the path.
    Absent,
    /// It is there and cannot be asked, or did not answer in time.
    Silent(String),
    /// What it said, on stdout and then stderr, and whether it ended well.
    Said {
        /// Its words.
        text: String,
        /// Whether it ended with 0.
        well: bool,
    },
}

/// Where a program is, as a shell would find it.
pub fn find(path: Option<&OsStr>, name: &str) -> Option<PathBuf> {
    let candidates = std::env::split_paths(path?).map(|folder| folder.join(name)).collect::<Vec<_>>();
    candidates.into_iter().find(|file| file.is_file())
}

/// Runs `name` from `path` with `args` and listens.
pub fn ask(path: Option<&OsStr>, name: &str, args: &[&str]) -> Answer {
    let Some(program) = find(path, name) else { return Answer::Absent };
    let mut command = Command::new(&program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Answer::Silent(format!("cannot be started: {error}")),
    };
    let listen = |pipe: Option<Box<dyn Read + Send>>| {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes)); // what was read before an error is read
            let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        told
    };
    let stdout = listen(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let stderr = listen(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let asked = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if asked.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Answer::Silent(format!("no answer in {} s", PATIENCE.as_secs()));
            }
        }
    };
    // A grandchild may hold the pipe open: what does not come soon is not waited for.
    let heard = |told: &mpsc::Receiver<String>| told.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    Answer::Said { text: format!("{}{}", heard(&stdout), heard(&stderr)), well: status.success() }
}

/// The first word that looks like a version: digits and dots.
pub fn version(text: &str) -> Option<&str> {
    let words = text.split(|c: char| c.is_whitespace() || c == ',');
    words
        .map(|word| word.trim_matches(|c: char| "()v:".contains(c)))
        .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()) && !word.ends_with('.'))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_asked_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = std::env::join_paths([dir.path(), std::path::Path::new("/bin"), std::path::Path::new("/usr/bin")]);
        let path = path.unwrap();
        assert_eq!(ask(Some(&path), "surely-not-there", &[]), Answer::Absent);
        assert_eq!(ask(None, "sh", &[]), Answer::Absent);
        let said = ask(Some(&path), "sh", &["-c", "echo one; echo two >&2; exit 3"]);
        assert_eq!(said, Answer::Said { text: "one\ntwo\n".into(), well: false });
        std::fs::write(dir.path().join("plain"), "no program").unwrap();
        assert!(matches!(ask(Some(&path), "plain", &[]), Answer::Silent(_)));
        let asked = Instant::now();
        assert!(matches!(ask(Some(&path), "sleep", &["60"]), Answer::Silent(_)));
        assert!(asked.elapsed() < PATIENCE * 3);
    }

    #[test]
    fn versions_are_read_from_what_programs_really_say() {
        for (said, expected) in [
            ("mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n", Some("4.1.4")),
            ("HYDRA build details:\n    Version:                                 4.0.2\n", Some("4.0.2")),
            ("Intel(R) MPI Library for Linux* OS, Version 2021.11 Build 20231005", Some("2021.11")),
            ("slurm 22.05.8\n", Some("22.05.8")),
            ("usage: something", None),
        ] {
            assert_eq!(version(said), expected, "{said}");
        }
    }
}
