//! Slurm before a job starts: the batch script, what `sinfo` says, and whether a job can ever start there. Texts and values
//! in, values out: who runs the commands is `cmd/submit.rs`. Must not know what a job trains.

use std::fmt;

/// `slurm/train.sbatch`, as it runs when a user submits it.
pub const TRAIN: &str = include_str!("../../slurm/train.sbatch");
/// `slurm/shard.sbatch`.
pub const SHARD: &str = include_str!("../../slurm/shard.sbatch");
/// `slurm/evaluate.sbatch`.
pub const EVALUATE: &str = include_str!("../../slurm/evaluate.sbatch");

/// The format in which [`parse_sinfo`] reads partitions: `sinfo -h -e -o FORMAT`; `-e` keeps unequal nodes apart.
pub const SINFO_ARGS: [&str; 4] = ["-h", "-e", "-o", "%P|%a|%l|%D|%c|%m|%G"];

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

/// What Slurm would not take, or what could never start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlurmError {
    /// Not a duration.
    #[error("{text:?} is not a time that Slurm knows; write minutes, HH:MM:SS or DAYS-HH:MM:SS")]
    Time {
        /// As given.
        text: String,
    },
    /// Not an amount of memory.
    #[error("{text:?} is not an amount of memory that Slurm knows; write 64G or 512M")]
    Memory {
        /// As given.
        text: String,
    },
    /// A value that would not stay one word in a `#SBATCH` line.
    #[error("{option} {value:?}: only letters, digits and {allowed} may stand here")]
    Word {
        /// Option of the command line.
        option: &'static str,
        /// Its value.
        value: String,
        /// Which other characters may stand there.
        allowed: &'static str,
    },
    /// The warning would come before the job.
    #[error("--signal-before {before_s} s is not less than --time {time}: the warning would come at once")]
    Warning {
        /// Seconds.
        before_s: u64,
        /// The limit.
        time: String,
    },
    /// A line of sinfo that has another form.
    #[error("sinfo said {line:?}, which is not {}", SINFO_ARGS[3])]
    Sinfo {
        /// The line.
        line: String,
    },
    /// No partition was named and the site has no default.
    #[error("this Slurm has no default partition: choose one with --partition ({known})")]
    NoDefault {
        /// Names of all.
        known: String,
    },
    /// No such partition.
    #[error("this Slurm has no partition {partition:?}; it has {known}")]
    NoPartition {
        /// As asked.
        partition: String,
        /// Names of all.
        known: String,
    },
    /// The partition starts nothing.
    #[error("partition {partition} is {state}: it starts no jobs; others are {others}")]
    NotUp {
        /// Its name.
        partition: String,
        /// `down`, `drain` or `inact`.
        state: String,
        /// Partitions that are up.
        others: String,
    },
    /// The job would run longer than any may.
    #[error(
        "--time {asked} is longer than the {limit} of partition {partition}: a run goes on in the next life, so ask for less"
    )]
    Limit {
        /// As asked.
        asked: String,
        /// The partition's.
        limit: String,
        /// Its name.
        partition: String,
    },
    /// Too few nodes that have what is asked.
    #[error("--nodes {nodes}, but {have} of the {all} nodes of partition {partition} {have_what}")]
    Nodes {
        /// As asked.
        nodes: u32,
        /// Nodes that would do.
        have: u32,
        /// All of the partition.
        all: u32,
        /// Its name.
        partition: String,
        /// What they would need.
        have_what: Needs,
    },
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

impl NodeGroup {
    fn has(&self, needs: &Needs) -> bool {
        let (cpus, more_cpus) = self.cpus;
        let (mem, more_mem) = self.mem_mib;
        (cpus >= needs.cpus || more_cpus)
            && needs.mem_mib.is_none_or(|asked| mem >= asked || more_mem)
            && self.gpus >= needs.gpus
    }
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

/// Seconds of a time as Slurm writes it; `None` is no limit.
///
/// # Errors
/// [`SlurmError::Time`].
pub fn parse_time(text: &str) -> Result<Option<u64>, SlurmError> {
    if ["infinite", "unlimited"].contains(&text.to_ascii_lowercase().as_str()) {
        return Ok(None);
    }
    let wrong = || SlurmError::Time { text: text.to_owned() };
    let numbers = |text: &str| -> Result<Vec<u64>, SlurmError> {
        let digits = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
        text.split(':')
            .map(|part| if digits(part) { part.parse().map_err(|_| wrong()) } else { Err(wrong()) })
            .collect()
    };
    let seconds = match text.split_once('-') {
        Some((days, rest)) => {
            let days = numbers(days)?;
            match (&days[..], &numbers(rest)?[..]) {
                ([days], [h]) => days * 86_400 + h * 3600,
                ([days], [h, m]) => days * 86_400 + h * 3600 + m * 60,
                ([days], [h, m, s]) => days * 86_400 + h * 3600 + m * 60 + s,
                _ => return Err(wrong()),
            }
        }
        None => match numbers(text)?[..] {
            [m] => m * 60,
            [m, s] => m * 60 + s,
            [h, m, s] => h * 3600 + m * 60 + s,
            _ => return Err(wrong()),
        },
    };
    if seconds == 0 { Err(wrong()) } else { Ok(Some(seconds)) }
}

/// MiB of an amount as Slurm writes it: `64G`, `512M`, `1T`; without a letter MiB.
fn parse_mem(text: &str) -> Result<u64, SlurmError> {
    let wrong = || SlurmError::Memory { text: text.to_owned() };
    let (digits, unit) = match text.char_indices().last() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => (&text[..at], letter.to_ascii_uppercase()),
        _ => (text, 'M'),
    };
    let n: u64 = digits.parse().map_err(|_| wrong())?;
    match unit {
        'K' => Ok(n.div_ceil(1024)),
        'M' => Ok(n),
        'G' => n.checked_mul(1024).ok_or_else(wrong),
        'T' => n.checked_mul(1024 * 1024).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// A template with other `#SBATCH` lines, defaults for its variables (the environment's still win) and its arguments.
pub fn script(template: &str, lines: &[String], variables: &[(&str, String)], arguments: &[String]) -> String {
    const AFTER: &str = "set -uo pipefail";
    let mut script: Vec<String> = Vec::new();
    for line in template.lines() {
        if line.starts_with("#SBATCH ") {
            continue;
        }
        script.push(line.to_owned());
        if script.len() == 1 {
            script.extend(lines.iter().cloned());
        }
        if line == AFTER {
            let given =
                |(name, value): &(&str, String)| format!("[ -n \"${{{name}:-}}\" ] || {name}={}", quoted(value));
            let words: Vec<String> = arguments.iter().map(|a| quoted(a)).collect();
            script.extend(["".to_owned(), "# what was given to `syncytia submit`".to_owned()]);
            script.extend(variables.iter().map(given));
            script.push(format!("set -- {} \"$@\"", words.join(" ")));
        }
    }
    script.join("\n") + "\n"
}

/// A word of a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The id in what `sbatch --parsable` printed: `1234` or `1234;cluster`.
pub fn job_id(said: &str) -> Option<String> {
    let id = said.lines().last()?.split(';').next()?.trim();
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slurm 22.05.8 with nodes of three kinds, as it printed it.
    const SITE: &str = include_str!("../tests/sinfo-22.05.txt");

    fn request() -> Request {
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

    fn words(change: impl FnOnce(&mut Request)) -> String {
        let mut request = request();
        change(&mut request);
        match request.fits(&parse_sinfo(SITE).unwrap()) {
            Ok(partition) => format!("starts in {partition}"),
            Err(error) => error.to_string(),
        }
    }

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

    #[test]
    fn times_are_those_of_slurm() {
        for (text, seconds) in [
            ("30", Some(1800)),
            ("30:00", Some(1800)),
            ("4:00:00", Some(14_400)),
            ("2-00", Some(172_800)),
            ("1-12:30", Some(131_400)),
            ("1-12:00:05", Some(129_605)),
            ("infinite", None),
            ("UNLIMITED", None),
        ] {
            assert_eq!(parse_time(text), Ok(seconds), "{text}");
        }
        for text in ["", "4h", "1:2:3:4", "-5", "1-", "0", "0:00", "1:-1", "99999999999"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_script_is_the_template_with_other_lines_and_what_was_given() {
        let request = Request {
            partition: Some("gpu".into()),
            account: Some("p-12".into()),
            array: Some("42-44%2".into()),
            gpus_per_node: 4,
            mem: Some("64G".into()),
            output: "/runs of mine/log/%x-%j.out".into(),
            ..request()
        };
        let variables = [("MAX_REQUEUES", "9".to_owned()), ("SYNCYTIA", "/it's/syncytia".to_owned())];
        let arguments = ["a b.toml".to_owned(), "D".to_owned(), "R".to_owned()];
        let script = script(TRAIN, &request.lines().unwrap(), &variables, &arguments);
        let asked: Vec<&str> = script.lines().filter_map(|l| l.strip_prefix("#SBATCH ")).collect();
        assert_eq!(
            asked,
            [
                "--job-name=syncytia",
                "--nodes=2",
                "--ntasks-per-node=4",
                "--cpus-per-task=2",
                "--gpus-per-node=4",
                "--mem=64G",
                "--partition=gpu",
                "--account=p-12",
                "--array=42-44%2",
                "--time=4:00:00",
                "--signal=B:USR1@300",
                "--requeue",
                "--open-mode=append",
                "--output=\"/runs of mine/log/%x-%j.out\"",
            ]
        );
        // Slurm reads the lines only before the first command
        let first = script.lines().position(|l| !l.starts_with('#')).unwrap();
        assert!(script.lines().skip(first).all(|l| !l.starts_with("#SBATCH")));
        assert!(
            script
                .contains("[ -n \"${SYNCYTIA:-}\" ] || SYNCYTIA='/it'\\''s/syncytia'\nset -- 'a b.toml' D R \"$@\"\n")
        );
        let rest = |text: &str| text.split_once("\nif [ $#").unwrap().1.to_owned();
        assert_eq!(rest(&script), rest(TRAIN));
    }

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

    #[test]
    fn the_id_of_a_job_is_the_first_word() {
        assert_eq!(job_id("1234\n"), Some("1234".into()));
        assert_eq!(job_id("1234;cluster\n"), Some("1234".into()));
        assert_eq!(job_id("sbatch: a note of the site\n1234\n"), Some("1234".into()));
        assert_eq!(job_id("Submitted batch job"), None);
    }
}
