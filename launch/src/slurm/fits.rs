//! Whether a job could ever start at a site, as `sinfo` shows it.

use std::fmt;

use super::units::{parse_mem, parse_time};
use super::{NodeGroup, Request, SlurmError};

impl Request {
    /// Whether the job could start in a partition that `sinfo` showed; gives the partition's name.
    ///
    /// # Errors
    /// [`SlurmError`] in words when it never could.
    pub fn fits(&self, groups: &[NodeGroup]) -> Result<String, SlurmError> {
        let partition = match &self.partition {
            Some(asked) => asked.clone(),
            None => match groups.iter().find(|g| g.is_default) {
                Some(group) => group.partition.clone(),
                None => return Err(SlurmError::NoDefault { known: names(groups, |_| true) }),
            },
        };
        // sbatch takes a list and starts the job where it can first
        let mut last = None;
        for name in partition.split(',') {
            match self.fits_in(name, groups) {
                Ok(()) => return Ok(name.to_owned()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("split gives at least one name"))
    }

    fn fits_in(&self, partition: &str, groups: &[NodeGroup]) -> Result<(), SlurmError> {
        let ours: Vec<&NodeGroup> = groups.iter().filter(|g| g.partition == partition).collect();
        let Some(first) = ours.first() else {
            return Err(SlurmError::NoPartition { partition: partition.to_owned(), known: names(groups, |_| true) });
        };
        let partition = partition.to_owned();
        if first.state != "up" {
            return Err(SlurmError::NotUp {
                partition,
                state: first.state.clone(),
                others: names(groups, |g| g.state == "up"),
            });
        }
        let asked = parse_time(&self.time)?;
        let limit = parse_time(&first.limit).unwrap_or(None);
        if limit.is_some_and(|limit| asked.is_none_or(|asked| asked > limit)) {
            return Err(SlurmError::Limit { asked: self.time.clone(), limit: first.limit.clone(), partition });
        }
        let needs = Needs {
            cpus: self.tasks_per_node.saturating_mul(self.cpus_per_task),
            mem_mib: self.mem.as_deref().map(parse_mem).transpose()?,
            gpus: self.gpus_per_node,
            tasks: (self.tasks_per_node, self.cpus_per_task),
        };
        let count = |of: &dyn Fn(&NodeGroup) -> bool| ours.iter().filter(|g| of(g)).map(|g| g.n_nodes).sum::<u32>();
        let have = count(&|g| g.has(&needs));
        if have < self.nodes {
            let all = count(&|_| true);
            return Err(SlurmError::Nodes { nodes: self.nodes, have, all, partition, have_what: needs });
        }
        Ok(())
    }
}

/// Names of the partitions of some groups, for an error.
fn names(groups: &[NodeGroup], of: impl Fn(&NodeGroup) -> bool) -> String {
    let mut names: Vec<&str> = groups.iter().filter(|g| of(g)).map(|g| g.partition.as_str()).collect();
    names.dedup();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What a job needs of each node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    cpus: u32,
    mem_mib: Option<u64>,
    gpus: u32,
    tasks: (u32, u32),
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tasks, cores) = self.tasks;
        write!(f, "have {} CPUs ({tasks} tasks of {cores})", self.cpus)?;
        if let Some(mem) = self.mem_mib {
            write!(f, ", {mem} MiB of memory")?;
        }
        if self.gpus > 0 {
            write!(f, ", {} GPUs", self.gpus)?;
        }
        Ok(())
    }
}

impl NodeGroup {
    fn has(&self, needs: &Needs) -> bool {
        let (cpus, more_cpus) = self.cpus;
        let (mem, more_mem) = self.mem_mib;
        (cpus >= needs.cpus || more_cpus)
            && needs.mem_mib.is_none_or(|asked| mem >= asked || more_mem)
            && self.gpus >= needs.gpus
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::fixture::{SITE, request};
    use crate::slurm::parse_sinfo;

    fn words(change: impl FnOnce(&mut Request)) -> String {
        let mut request = request();
        change(&mut request);
        match request.fits(&parse_sinfo(SITE).unwrap()) {
            Ok(partition) => format!("starts in {partition}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_could_never_start_is_refused_in_words() {
        type Change = fn(&mut Request);
        let cases: [(Change, &str); 14] = [
            (|_| {}, "starts in standard"),
            (|r| r.partition = Some("gpu".into()), "starts in gpu"),
            (|r| r.partition = Some("debug,gpu".into()), "starts in gpu"),
            (
                |r| r.partition = Some("gpus".into()),
                "no partition \"gpus\"; it has standard, gpu, debug, long, old, empty",
            ),
            (
                |r| r.partition = Some("old".into()),
                "partition old is down: it starts no jobs; others are standard, gpu, debug, long",
            ),
            (|r| r.partition = Some("empty".into()), "partition empty is drain"),
            (|r| r.time = "2-00:00:01".into(), "--time 2-00:00:01 is longer than the 2-00:00:00 of partition standard"),
            (|r| r.time = "infinite".into(), "is longer than"),
            (|r| r.nodes = 45, "--nodes 45, but 44 of the 44 nodes of partition standard have 8 CPUs (4 tasks of 2)"),
            (|r| (r.nodes, r.cpus_per_task) = (5, 17), "--nodes 5, but 4 of the 44 nodes"),
            (
                |r| r.mem = Some("1T".into()),
                "0 of the 44 nodes of partition standard have 8 CPUs (4 tasks of 2), 1048576 MiB of memory",
            ),
            (|r| r.gpus_per_node = 1, "0 of the 44 nodes of partition standard have 8 CPUs (4 tasks of 2), 1 GPUs"),
            (|r| (r.partition, r.gpus_per_node) = (Some("gpu".into()), 4), "starts in gpu"),
            (
                |r| (r.partition, r.gpus_per_node, r.nodes) = (Some("gpu".into()), 3, 9),
                "but 8 of the 10 nodes of partition gpu",
            ),
        ];
        for (change, wanted) in cases {
            let said = words(change);
            assert!(said.contains(wanted), "{said:?} does not say {wanted:?}");
        }
        let no_default = request().fits(&parse_sinfo("a|up|1:00|1|8|8000|(null)").unwrap()).unwrap_err().to_string();
        assert!(no_default.contains("--partition (a)"), "{no_default}");
    }
}
