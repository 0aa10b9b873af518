//! What one job asks of Slurm, and the `#SBATCH` lines that say so.

use super::SlurmError;
use super::units::{parse_mem, parse_time};

/// What one job asks of Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Name in the queue.
    pub job_name: String,
    /// Nodes.
    pub nodes: u32,
    /// Processes on each.
    pub tasks_per_node: u32,
    /// Cores of each process.
    pub cpus_per_task: u32,
    /// GPUs of each node; 0 asks for none.
    pub gpus_per_node: u32,
    /// Memory of each node as Slurm writes it, `64G`; the site's default without it.
    pub mem: Option<String>,
    /// Partition; the site's default without it.
    pub partition: Option<String>,
    /// Account; the user's default without it.
    pub account: Option<String>,
    /// Time limit as Slurm writes it, `4:00:00`.
    pub time: String,
    /// Seconds before the limit at which USR1 comes to the script.
    pub signal_before_s: Option<u64>,
    /// Indices of an array, `42-44`.
    pub array: Option<String>,
    /// Where the log goes, with Slurm's `%x` and `%j`.
    pub output: String,
}

impl Request {
    /// Processes of the job.
    pub fn tasks(&self) -> u64 {
        u64::from(self.nodes) * u64::from(self.tasks_per_node)
    }

    /// The lines that ask for it, in the order of the templates.
    ///
    /// # Errors
    /// [`SlurmError`] for a value that Slurm would refuse or that would not stay one word.
    pub fn lines(&self) -> Result<Vec<String>, SlurmError> {
        let time_s = parse_time(&self.time)?;
        let words = [
            ("--job-name", Some(&self.job_name), "._+-"),
            ("--partition", self.partition.as_ref(), "._+,-"),
            ("--account", self.account.as_ref(), "._+-"),
            ("--array", self.array.as_ref(), ",:%-"),
        ];
        for (option, value, allowed) in words {
            if let Some(value) = value
                && (value.is_empty() || value.chars().any(|c| !c.is_ascii_alphanumeric() && !allowed.contains(c)))
            {
                return Err(SlurmError::Word { option, value: value.clone(), allowed });
            }
        }
        if self.output.contains(['\n', '"']) {
            return Err(SlurmError::Word { option: "--run", value: self.output.clone(), allowed: "all but quotes" });
        }
        let mut lines = vec![
            format!("--job-name={}", self.job_name),
            format!("--nodes={}", self.nodes),
            format!("--ntasks-per-node={}", self.tasks_per_node),
            format!("--cpus-per-task={}", self.cpus_per_task),
        ];
        if self.gpus_per_node > 0 {
            lines.push(format!("--gpus-per-node={}", self.gpus_per_node));
        }
        if let Some(mem) = &self.mem {
            parse_mem(mem)?;
            lines.push(format!("--mem={mem}"));
        }
        for (option, value) in [("partition", &self.partition), ("account", &self.account), ("array", &self.array)] {
            lines.extend(value.as_ref().map(|v| format!("--{option}={v}")));
        }
        lines.push(format!("--time={}", self.time));
        if let Some(before_s) = self.signal_before_s {
            if time_s.is_some_and(|time_s| before_s >= time_s) {
                return Err(SlurmError::Warning { before_s, time: self.time.clone() });
            }
            lines.push(format!("--signal=B:USR1@{before_s}"));
        }
        lines.extend([
            "--requeue".to_owned(),
            "--open-mode=append".to_owned(),
            format!("--output=\"{}\"", self.output),
        ]);
        Ok(lines.into_iter().map(|line| format!("#SBATCH {line}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::fixture::request;

    #[test]
    fn a_value_cannot_bring_a_line_of_its_own() {
        let refused = |change: fn(&mut Request)| {
            let mut request = request();
            change(&mut request);
            request.lines().unwrap_err().to_string()
        };
        assert!(refused(|r| r.partition = Some("gpu\n#SBATCH --uid=0".into())).contains("--partition"));
        assert!(refused(|r| r.account = Some("a b".into())).contains("--account"));
        assert!(refused(|r| r.array = Some("1-3;rm".into())).contains("--array"));
        assert!(refused(|r| r.time = "4h".into()).contains("HH:MM:SS"));
        assert!(refused(|r| r.mem = Some("64 GB".into())).contains("64G"));
        assert!(refused(|r| r.signal_before_s = Some(14_400)).contains("not less than --time 4:00:00"));
    }
}
