//! Which MPI this program was built with, and whether the launcher on the path is of the same family: another family's
//! launcher starts N worlds of one process each, and every one of them trains.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::program::{self, Answer, ask};
use super::{Finding, engines};

/// MPI libraries that speak to each other's launchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Open MPI.
    OpenMpi,
    /// MPICH, Intel MPI, Cray, MVAPICH.
    Mpich,
}

impl Family {
    /// As people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::OpenMpi => "Open MPI",
            Family::Mpich => "MPICH (or Intel, Cray, MVAPICH)",
        }
    }

    /// By the file name of the library.
    fn of_library(name: &str) -> Option<Family> {
        // libmpi.so.40 is Open MPI's; .12 is the number that MPICH and all who share its binary interface agreed on
        match name {
            _ if name.starts_with("libmpi.so.40") || name.starts_with("libopen-rte") => Some(Family::OpenMpi),
            _ if name.starts_with("libmpich") || name.starts_with("libmpi.so.12") => Some(Family::Mpich),
            _ => None,
        }
    }

    /// By what its `mpirun --version` says.
    fn of_launcher(said: &str) -> Option<Family> {
        if said.contains("Open MPI") || said.contains("OpenRTE") || said.contains("PRRTE") {
            return Some(Family::OpenMpi);
        }
        let mpich = ["HYDRA", "MPICH", "Intel(R) MPI", "MVAPICH"].iter().any(|name| said.contains(name));
        mpich.then_some(Family::Mpich)
    }
}

/// Looks at the library this process has loaded and the launchers on `path`.
pub fn look(path: Option<&OsStr>) -> Vec<Finding> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let library = loaded_library(&maps);
    let built_for = library.and_then(Family::of_library);
    let engines = engines::engines().join(", ");
    let of_library = match library {
        Some(library) => format!("engines {engines}; linked with {library}"),
        None if engines::joins_processes() => format!("engines {engines}; no MPI library is loaded"),
        None => format!("engines {engines}: one process per run, no MPI needed"),
    };
    let mut findings = vec![Finding::ok("this build", of_library)];
    let launchers = ["mpirun", "mpiexec"].map(|name| (name, ask(path, name, &["--version"])));
    let (name, answer) =
        launchers.into_iter().find(|(_, a)| *a != Answer::Absent).unwrap_or(("mpirun", Answer::Absent));
    findings.push(launcher(name, &answer, built_for));
    findings
}

/// The family that this process has loaded a library of.
pub fn built_for() -> Option<Family> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    loaded_library(&maps).and_then(Family::of_library)
}

/// The first launcher on `path` that is of `family`; Debian has both under names of their own.
pub fn launcher_of(family: Family, path: Option<&OsStr>) -> Option<PathBuf> {
    let names = ["mpirun", "mpiexec", "mpirun.openmpi", "mpirun.mpich", "mpiexec.hydra"];
    let fits = |name: &&str| match ask(path, name, &["--version"]) {
        Answer::Said { text, .. } => Family::of_launcher(&text) == Some(family),
        Answer::Absent | Answer::Silent(_) => false,
    };
    names.iter().find(|name| fits(name)).and_then(|name| program::find(path, name))
}

/// The file name of the first MPI library in `/proc/self/maps`.
fn loaded_library(maps: &str) -> Option<&str> {
    let files = maps.lines().filter_map(|line| line.rsplit('/').next());
    files.into_iter().find(|name| name.starts_with("libmpi"))
}

fn launcher(name: &str, answer: &Answer, built_for: Option<Family>) -> Finding {
    let text = match answer {
        Answer::Absent if built_for.is_some() => {
            let advice = "start with srun, or put the mpirun of the library above on PATH (often `module load`)";
            return Finding::warn("mpirun", "not on PATH", advice);
        }
        Answer::Absent => return Finding::ok("mpirun", "not on PATH (not needed by this build)"),
        Answer::Silent(problem) => {
            return Finding::warn(name, problem.clone(), "the run does not need it unless started by it");
        }
        Answer::Said { text, .. } => text,
    };
    let family = Family::of_launcher(text);
    let version = program::version(text).unwrap_or("of an unknown version");
    let found = match family {
        Some(family) => format!("{} {version}", family.as_str()),
        None => format!("of an unknown family: {}", text.lines().next().unwrap_or("it says nothing")),
    };
    match (built_for, family) {
        (Some(built_for), Some(family)) if built_for != family => {
            let advice = format!(
                "this program is linked with {}: start it with that one's mpirun, or every process is a world of its own",
                built_for.as_str()
            );
            Finding::warn(name, found, advice)
        }
        _ => Finding::ok(name, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn said(text: &str) -> Answer {
        Answer::Said { text: text.to_owned(), well: true }
    }

    #[test]
    fn a_launcher_of_another_family_is_a_warning() {
        let open_mpi = said("mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n");
        let hydra = said("HYDRA build details:\n    Version:                                 4.0.2\n");
        for (answer, built_for, verdict, fragment) in [
            (&open_mpi, Some(Family::OpenMpi), Verdict::Ok, "Open MPI 4.1.4"),
            (&open_mpi, Some(Family::Mpich), Verdict::Warn, "Open MPI 4.1.4"),
            (&hydra, Some(Family::OpenMpi), Verdict::Warn, "4.0.2"),
            (&hydra, None, Verdict::Ok, "MPICH"),
            (&Answer::Absent, Some(Family::Mpich), Verdict::Warn, "not on PATH"),
            (&Answer::Absent, None, Verdict::Ok, "not needed"),
        ] {
            let finding = launcher("mpirun", answer, built_for);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.found.contains(fragment), "{finding:?}");
        }
    }

    #[test]
    fn the_loaded_library_is_known_by_its_name() {
        let maps = "7f00-7f01 r-xp 00000000 fd:01 12 /usr/lib/x86_64-linux-gnu/libm.so.6\n\
                    7f02-7f03 r-xp 00000000 fd:01 13 /usr/lib/x86_64-linux-gnu/libmpi.so.40.30.4\n";
        assert_eq!(loaded_library(maps).and_then(Family::of_library), Some(Family::OpenMpi));
        assert_eq!(Family::of_library("libmpich.so.12"), Some(Family::Mpich));
        assert_eq!(loaded_library("7f00-7f01 r-xp 00000000 fd:01 12 /usr/lib/libm.so.6"), None);
    }
}
