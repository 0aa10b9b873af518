//! What `sinfo` says of a site's partitions and their nodes.

use super::SlurmError;

/// The format in which [`parse_sinfo`] reads partitions: `sinfo -h -e -o FORMAT`; `-e` keeps unequal nodes apart.
pub const SINFO_ARGS: [&str; 4] = ["-h", "-e", "-o", "%P|%a|%l|%D|%c|%m|%G"];

/// Equal nodes of one partition, a line of `sinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeGroup {
    /// Name of the partition.
    pub partition: String,
    /// Whether jobs that name none go here.
    pub is_default: bool,
    /// `up`, `down`, `drain`, `inact`.
    pub state: String,
    /// The longest job, as Slurm writes it.
    pub limit: String,
    /// Nodes.
    pub n_nodes: u32,
    /// CPUs of each, and whether some may have more.
    pub cpus: (u32, bool),
    /// Memory of each in MiB, and whether some may have more.
    pub mem_mib: (u64, bool),
    /// GPUs of each.
    pub gpus: u32,
}

/// Reads what `sinfo` printed with [`SINFO_ARGS`].
///
/// # Errors
/// [`SlurmError::Sinfo`] with the line that has another form.
pub fn parse_sinfo(text: &str) -> Result<Vec<NodeGroup>, SlurmError> {
    text.lines().filter(|line| !line.trim().is_empty()).map(parse_line).collect()
}

fn parse_line(line: &str) -> Result<NodeGroup, SlurmError> {
    let wrong = || SlurmError::Sinfo { line: line.to_owned() };
    let fields: Vec<&str> = line.trim().splitn(7, '|').map(str::trim).collect();
    let [partition, state, limit, n_nodes, cpus, mem, gres] = fields[..] else { return Err(wrong()) };
    // `64+`: unequal nodes in one line, and this is the least
    let least = |text: &str| Some((text.trim_end_matches('+').parse::<u64>().ok()?, text.ends_with('+')));
    let (cpus, more_cpus) = least(cpus).ok_or_else(wrong)?;
    Ok(NodeGroup {
        partition: partition.trim_end_matches('*').to_owned(),
        is_default: partition.ends_with('*'),
        state: state.to_owned(),
        limit: limit.to_owned(),
        n_nodes: n_nodes.parse().map_err(|_| wrong())?,
        cpus: (u32::try_from(cpus).map_err(|_| wrong())?, more_cpus),
        mem_mib: least(mem).ok_or_else(wrong)?,
        gpus: gpus_of(gres),
    })
}

/// `gpu:a100:4(S:0-1),nvme:1` has 4 GPUs; `(null)` none.
fn gpus_of(gres: &str) -> u32 {
    let mut depth = 0;
    let bare: String = gres
        .chars()
        .filter(|c| {
            depth += i32::from(*c == '(');
            let keep = depth == 0;
            depth -= i32::from(*c == ')');
            keep
        })
        .collect();
    let gpus = bare.split(',').filter(|entry| *entry == "gpu" || entry.starts_with("gpu:"));
    gpus.map(|entry| entry.rsplit(':').next().and_then(|n| n.parse().ok()).unwrap_or(1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::fixture::SITE;

    #[test]
    fn sinfo_is_read_as_it_prints() {
        let groups = parse_sinfo(SITE).unwrap();
        assert_eq!(groups.len(), 9);
        let first = NodeGroup {
            partition: "standard".into(),
            is_default: true,
            state: "up".into(),
            limit: "2-00:00:00".into(),
            n_nodes: 40,
            cpus: (64, false),
            mem_mib: (256_000, false),
            gpus: 0,
        };
        assert_eq!(groups[0], first);
        // without -e, and with the sockets that later versions name
        let line = "gpu|up|infinite|8|64+|515000+|gpu:a100:4(S:0,2),gpu:t4:1(S:1),nvme:1";
        let group = &parse_sinfo(line).unwrap()[0];
        assert_eq!((group.cpus, group.mem_mib, group.gpus), ((64, true), (515_000, true), 5));
        for (gres, gpus) in [("(null)", 0), ("gpu", 1), ("gpu:2", 2), ("gpu(S:0)", 1), ("mps:100,gpu:v100:2", 2)] {
            assert_eq!(gpus_of(gres), gpus, "{gres}");
        }
        assert!(parse_sinfo("sinfo: error: Unable to contact").is_err());
    }
}
