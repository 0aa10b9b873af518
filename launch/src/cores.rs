//! How many cores this process may use. Must not know what they are used for.

use std::thread::available_parallelism;

/// Cores: those that the system lets this process run on, and of them at most what Slurm gave its task. Where Slurm only
/// counts cores (`TaskPlugin=task/none`) nothing else keeps a process from taking its neighbour's.
pub fn usable(vars: impl Fn(&str) -> Option<String>) -> usize {
    let system = available_parallelism().map_or(1, std::num::NonZero::get);
    let task = vars("SLURM_CPUS_PER_TASK").and_then(|n| n.trim().parse().ok());
    task.map_or(system, |task: usize| task.clamp(1, system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slurm_task_uses_its_own_cores_and_never_more_than_there_are() {
        let with =
            |value: Option<&str>| usable(|name| value.filter(|_| name == "SLURM_CPUS_PER_TASK").map(str::to_owned));
        let all = with(None);
        assert!(all >= 1);
        for (value, cores) in [("1", 1), ("100000", all), ("0", 1), ("many", all)] {
            assert_eq!(with(Some(value)), cores, "{value}");
        }
    }
}
