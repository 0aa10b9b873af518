//! Processes of one host, started and seen to their end: when one fails the others follow, and a wish to stop reaches all.
//! Knows no command and no variable.

use std::io;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long the others may take to come to their own end once one has failed.
const GRACE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Runs the commands together; `stopping` says when a wish to stop has come, which `tell` then brings to each once. Gives the
/// code of the first that failed, or 0.
///
/// # Errors
/// The system's, when one cannot be started: those that were are ended.
pub fn run(commands: Vec<Command>, stopping: impl Fn() -> bool, tell: impl Fn(&Child)) -> io::Result<i32> {
    let mut running: Vec<Child> = Vec::new();
    for mut command in commands {
        match command.spawn() {
            Ok(child) => running.push(child),
            Err(error) => {
                end(&mut running);
                return Err(error);
            }
        }
    }
    let (mut first, mut told) = (None, false);
    while !running.is_empty() {
        if stopping() && !told {
            told = true;
            running.iter().for_each(&tell);
        }
        let mut left = Vec::new();
        for mut child in running {
            match child.try_wait() {
                Ok(None) => left.push(child),
                Ok(Some(status)) if status.success() => {}
                // none: by a signal
                Ok(Some(status)) => first = first.or_else(|| Some((status.code().unwrap_or(4), Instant::now()))),
                Err(error) => {
                    end(&mut left);
                    return Err(error);
                }
            }
        }
        running = left;
        if first.is_some_and(|(_, since)| since.elapsed() > GRACE) {
            end(&mut running);
        }
        std::thread::sleep(LOOK);
    }
    Ok(first.map_or(0, |(code, _)| code))
}

fn end(children: &mut Vec<Child>) {
    for mut child in children.drain(..) {
        let _ = child.kill(); // one that has ended by itself needs none
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn all_that_end_well_are_a_zero_and_the_first_that_fails_gives_the_code() {
        let none = || false;
        assert_eq!(run(vec![shell("exit 0"), shell("sleep .1")], none, |_| {}).unwrap(), 0);
        assert_eq!(run(vec![shell("kill -9 $$")], none, |_| {}).unwrap(), 4, "a peer that is killed");
        assert_eq!(run(vec![shell("sleep .3; exit 75"), shell("sleep .1; exit 7")], none, |_| {}).unwrap(), 7);
    }

    #[test]
    fn who_does_not_follow_a_failure_is_ended() {
        let began = Instant::now();
        assert_eq!(run(vec![shell("exit 6"), shell("exec sleep 600")], || false, |_| {}).unwrap(), 6);
        assert!(began.elapsed() >= GRACE && began.elapsed() < 3 * GRACE);
    }

    #[test]
    fn a_wish_to_stop_reaches_all_once() {
        let told = std::sync::atomic::AtomicUsize::new(0);
        let tell = |_: &Child| {
            told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        assert_eq!(run(vec![shell("sleep .3"), shell("sleep .3")], || true, tell).unwrap(), 0);
        assert_eq!(told.into_inner(), 2);
    }

    #[test]
    fn a_program_that_is_not_there_ends_those_that_started() {
        let began = Instant::now();
        assert!(run(vec![shell("exec sleep 600"), Command::new("/nowhere/at/all")], || false, |_| {}).is_err());
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
