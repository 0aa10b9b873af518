//! The host's clock: a plausible year, an even gait, and whether something keeps it right. No result depends on it; log
//! lines, `since` in a lock and file names of events do.

use std::ffi::OsStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Finding;
use super::program::{Answer, ask};

/// How long the gait is watched.
const WATCHED: Duration = Duration::from_millis(100);
/// More than a slew of 500 ppm or a busy machine's scheduling puts between two readings.
const STEP: Duration = Duration::from_millis(50);
const YEAR: u64 = 31_556_952;

/// Looks at the clock; `path` is where programs are.
pub fn look(path: Option<&OsStr>) -> Vec<Finding> {
    let (wall, steady) = (SystemTime::now(), Instant::now());
    std::thread::sleep(WATCHED);
    let went = SystemTime::now().duration_since(wall);
    let mut findings = vec![date(wall), gait(went.ok(), steady.elapsed())];
    findings.push(synchronised(&ask(path, "timedatectl", &["show", "--property=NTPSynchronized", "--value"])));
    findings
}

fn date(now: SystemTime) -> Finding {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let year = 1970 + seconds / YEAR;
    let found = format!("the year {year}");
    if (2025..2100).contains(&year) {
        return Finding::ok("date", found);
    }
    Finding::warn("date", found, "the host's clock is wrong: dates in logs and file names of events will be too")
}

fn gait(wall: Option<Duration>, steady: Duration) -> Finding {
    let found = |apart: Duration| format!("wall clock and monotonic clock went {} ms apart", apart.as_millis());
    match wall {
        Some(wall) if wall.abs_diff(steady) < STEP => Finding::ok("gait", found(wall.abs_diff(steady))),
        Some(wall) => Finding::warn("gait", found(wall.abs_diff(steady)), "something sets the clock right now"),
        None => Finding::warn("gait", "the wall clock went backwards", "something sets the clock right now"),
    }
}

fn synchronised(answer: &Answer) -> Finding {
    let what = "kept right";
    match answer {
        Answer::Said { text, well: true } if text.trim() == "yes" => Finding::ok(what, "by NTP"),
        Answer::Said { text, well: true } if text.trim() == "no" => Finding::warn(
            what,
            "not by NTP",
            "several nodes' logs may disagree in time; ask your administrators for NTP",
        ),
        _ => Finding::ok(what, "not told by this system"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_wrong_year_and_a_jump_are_warnings() {
        let at = |years: u64| date(UNIX_EPOCH + Duration::from_secs(years * YEAR + YEAR / 2));
        assert_eq!((at(0).verdict, at(56).verdict, at(140).verdict), (Verdict::Warn, Verdict::Ok, Verdict::Warn));
        assert_eq!(at(56).found, "the year 2026");
        let s = Duration::from_secs;
        assert_eq!(gait(Some(s(1)), s(1)).verdict, Verdict::Ok);
        assert_eq!(gait(Some(s(3601)), s(1)).verdict, Verdict::Warn);
        assert_eq!(gait(None, s(1)).verdict, Verdict::Warn);
    }

    #[test]
    fn what_keeps_the_clock_is_told_where_it_is_known() {
        let said = |text: &str, well| synchronised(&Answer::Said { text: text.into(), well });
        assert_eq!((said("yes\n", true).verdict, said("no\n", true).verdict), (Verdict::Ok, Verdict::Warn));
        let container = said("System has not been booted with systemd as init system\n", false);
        assert_eq!((container.verdict, container.found.as_str()), (Verdict::Ok, "not told by this system"));
    }
}
