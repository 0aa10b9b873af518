//! The batch script: a template of `slurm/` with a job's own lines, and what `sbatch` says of it.

/// `slurm/train.sbatch`, as it runs when a user submits it.
pub const TRAIN: &str = include_str!("../../../slurm/train.sbatch");
/// `slurm/shard.sbatch`.
pub const SHARD: &str = include_str!("../../../slurm/shard.sbatch");
/// `slurm/evaluate.sbatch`.
pub const EVALUATE: &str = include_str!("../../../slurm/evaluate.sbatch");

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
    use crate::slurm::Request;
    use crate::slurm::fixture::request;

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
        let variables = [("SYNCYTIA_MAX_REQUEUES", "9".to_owned()), ("SYNCYTIA", "/it's/syncytia".to_owned())];
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
    fn the_id_of_a_job_is_the_first_word() {
        assert_eq!(job_id("1234\n"), Some("1234".into()));
        assert_eq!(job_id("1234;cluster\n"), Some("1234".into()));
        assert_eq!(job_id("sbatch: a note of the site\n1234\n"), Some("1234".into()));
        assert_eq!(job_id("Submitted batch job"), None);
    }
}
