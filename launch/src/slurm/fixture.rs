//! A site and a job for the tests of this folder.

use super::Request;

/// Slurm 22.05.8 with nodes of three kinds, as it printed it.
pub(super) const SITE: &str = include_str!("../../tests/sinfo-22.05.txt");

/// Two nodes for four hours.
pub(super) fn request() -> Request {
    Request {
        job_name: "syncytia".into(),
        nodes: 2,
        tasks_per_node: 4,
        cpus_per_task: 2,
        gpus_per_node: 0,
        mem: None,
        partition: None,
        account: None,
        time: "4:00:00".into(),
        signal_before_s: Some(300),
        array: None,
        output: "/r/log/%x-%j.out".into(),
    }
}
