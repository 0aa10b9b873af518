//! Slurm's tools, the ways its `srun` starts MPI, the job this runs in, and the world as the launcher tells it.

use std::ffi::OsStr;

use syncytia_launch::ExitCode;
use syncytia_launch::world::{Job, World};

use super::program::{self, Answer, ask};
use super::{Finding, engines};

/// Looks at the tools on `path`.
pub fn tools(path: Option<&OsStr>) -> Vec<Finding> {
    let srun = ask(path, "srun", &["--version"]);
    let others = ["sbatch", "sinfo", "scontrol"].into_iter().filter(|name| program::find(path, name).is_none());
    let missing: Vec<&str> = others.collect();
    match srun {
        Answer::Absent if missing.len() == 3 => {
            return vec![Finding::ok("Slurm", "not on PATH (not needed on one machine)")];
        }
        Answer::Absent => {
            let found = format!("srun is not on PATH, others are (missing: {})", missing.join(", "));
            return vec![Finding::warn("Slurm", found, "put Slurm's bin folder on PATH")];
        }
        _ => {}
    }
    let text = match srun {
        Answer::Said { text, well: true } => text,
        Answer::Said { text, .. } | Answer::Silent(text) => {
            let found = format!("srun is installed and does not answer: {}", text.lines().next().unwrap_or_default());
            return vec![Finding::warn("Slurm", found, "not needed on one machine; else ask your administrators")];
        }
        Answer::Absent => unreachable!("handled above"),
    };
    let version = program::version(&text).unwrap_or("of an unknown version");
    let mut findings = vec![match missing.as_slice() {
        [] => Finding::ok("Slurm", version),
        _ => {
            // containers often lack scontrol; the batch script requeues, not the program
            let advice = "slurm/train.sbatch requeues with scontrol: run the script outside the container";
            Finding::warn("Slurm", format!("{version}, without {}", missing.join(", ")), advice)
        }
    }];
    findings.push(match ask(path, "srun", &["--mpi=list"]) {
        Answer::Said { text, well: true } => Finding::ok("srun --mpi", kinds_of_mpi(&text).join(", ")),
        Answer::Said { text, .. } => {
            let first = text.lines().next().unwrap_or("it says nothing").to_owned();
            Finding::warn("srun --mpi", first, "ask your administrators; one process per job needs no --mpi")
        }
        Answer::Silent(problem) => Finding::warn("srun --mpi", problem, "Slurm's controller may be down: try `sinfo`"),
        Answer::Absent => Finding::ok("srun --mpi", "not told"),
    });
    findings
}

/// `pmix`, `pmi2`, … from what `srun --mpi=list` prints, in both of the forms it has had.
fn kinds_of_mpi(said: &str) -> Vec<&str> {
    let words = said.lines().map(|line| line.trim().trim_start_matches("srun:").trim());
    let kinds = words.filter(|w| !w.is_empty() && !w.contains(' ') && !w.ends_with(':'));
    kinds.collect()
}

/// The job and the world of this process; `vars` is the environment.
pub fn world(vars: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let job = match Job::from_env(&vars) {
        Ok(Some(job)) => Finding::ok("job", format!("{}, restart {}", job.id, job.restart_count)),
        Ok(None) => Finding::ok("job", "none"),
        Err(error) => Finding::fail(ExitCode::Usage, "job", error.to_string(), "unset it, or set what Slurm sets"),
    };
    let world = match World::from_env(&vars, None) {
        Err(error) => {
            let advice = "start through one launcher, or clear the variables it left";
            Finding::fail(ExitCode::Usage, "world", error.to_string(), advice)
        }
        Ok(world) => {
            let found = format!("{} of {} processes, by {}", world.rank + 1, world.world_size, world.launcher);
            match world.require_single() {
                Ok(()) => Finding::ok("world", found),
                Err(_) if engines::joins_processes() => Finding::ok("world", found),
                Err(error) => Finding::fail(ExitCode::Usage, "world", found, error.to_string()),
            }
        }
    };
    vec![job, world]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn kinds_of_mpi_are_read_from_old_and_new_lists() {
        // 22.05 writes to stderr with its name before each line; 23.11 to stdout without
        let old = "srun: MPI types are...\nsrun: none\nsrun: pmi2\nsrun: cray_shasta\n";
        assert_eq!(kinds_of_mpi(old), ["none", "pmi2", "cray_shasta"]);
        let new = "MPI plugin types are...\n\tnone\n\tpmix\nspecific pmix plugin versions available: pmix_v4\n";
        assert_eq!(kinds_of_mpi(new), ["none", "pmix"]);
    }

    #[test]
    fn a_world_that_train_would_refuse_is_refused_here() {
        let env = |pairs: &'static [(&'static str, &'static str)]| {
            move |name: &str| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned())
        };
        let alone = world(env(&[]));
        assert!(alone.iter().all(|f| f.verdict == Verdict::Ok), "{alone:?}");
        let broken = world(env(&[("PMI_SIZE", "2"), ("PMI_RANK", "2")]));
        assert_eq!(broken[1].verdict, Verdict::Fail(ExitCode::Usage), "{broken:?}");
    }
}
