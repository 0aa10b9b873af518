//! Signals as a process feels them: each test starts this binary again as a child that installs the handlers, and
//! signals it through the shell.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use syncytia_launch::{ExitCode, StopVote};

const CHILD: &str = "SYNCYTIA_TEST_SIGNAL_CHILD";

/// Not a test of its own: the child's body. Prints `ready`, then the first signal's name; without a vote it ends by
/// itself after 20 s so that a broken handler cannot leave it behind.
#[test]
fn child() {
    let Ok(mode) = std::env::var(CHILD) else { return };
    let vote = StopVote::on_signals().unwrap();
    println!("\nready");
    let until = Instant::now() + Duration::from_secs(20);
    while !vote.is_cast() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("\nfirst {}", vote.first().map_or("none", |s| s.name()));
    if mode == "save" {
        // a save that takes long: only a second INT may cut it short
        std::thread::sleep(Duration::from_secs(20));
    }
    std::process::exit(i32::from(ExitCode::Stopped.code()));
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mode: &str) -> Running {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, mode)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut running = Running { child, lines };
        running.read_until("ready");
        running
    }

    fn read_until(&mut self, start: &str) -> String {
        self.lines
            .by_ref()
            .map(|l| l.unwrap())
            .find(|l| l.starts_with(start))
            .unwrap_or_else(|| panic!("the child ended before it printed `{start}`"))
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    fn end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

#[test]
fn each_of_four_signals_is_a_vote_and_the_process_goes_on_to_its_own_end() {
    for name in ["TERM", "INT", "USR1", "USR2"] {
        let mut running = Running::start("stop");
        running.signal(name);
        assert_eq!(running.read_until("first"), format!("first SIG{name}"));
        assert_eq!(running.end().code(), Some(75), "after {name}");
    }
}

#[test]
fn a_second_interrupt_ends_at_once_with_130() {
    let mut running = Running::start("save");
    running.signal("INT");
    running.read_until("first SIGINT");
    let asked = Instant::now();
    running.signal("INT");
    assert_eq!(running.end().code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(10), "took {:?}", asked.elapsed());
}

#[test]
fn repeated_term_and_usr1_do_not_cut_a_save_short() {
    let mut running = Running::start("save");
    running.signal("USR1");
    assert_eq!(running.read_until("first"), "first SIGUSR1");
    for name in ["TERM", "USR1", "TERM", "USR2", "INT"] {
        running.signal(name);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(running.child.try_wait().unwrap().is_none(), "still saving");
    running.signal("INT"); // the second one
    assert_eq!(running.end().code(), Some(130));
}
