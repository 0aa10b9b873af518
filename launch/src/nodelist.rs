//! Slurm's host lists, read by ourselves: `n[01-03,7]-ib,login1` and task counts like `2(x3),1`. There is no `scontrol`
//! inside a container (and Lightning's launcher fails there for that). Must not know which variable a list came from.
//!
//! ```text
//! list  = name { "," name }             blanks around a name are ignored
//! name  = ( text | "[" range { "," range } "]" ) …    several groups: the last one runs fastest
//! range = digits [ "-" digits ]         as wide as its first number is written: [008-012]
//! ```

use std::fmt;

/// More than any machine has nodes; a list that says more is damaged, and expanding it would eat the memory.
const MAX_HOSTS: usize = 100_000;

/// A DNS name is at most this long.
const MAX_NAME: usize = 253;

/// Longer lists are cut in an error's text.
const MAX_SHOWN: usize = 200;

/// A host list or a list of task counts that cannot be read: where, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the list `{list}`: {fault} at character {position}")]
pub struct NodelistError {
    /// The list, cut after 200 characters.
    pub list: String,
    /// Character of the list where reading stopped, counted from 1.
    pub position: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing between two commas, or nothing at all.
    NoName,
    /// A blank inside a name.
    Blank,
    /// A bracket that is never closed.
    Unclosed,
    /// A closing bracket without an opening one, or a bracket inside brackets.
    Bracket,
    /// Something else than a number of at most 18 digits where one is expected.
    NoNumber,
    /// A range whose end is below its start.
    Backwards,
    /// More than 100,000 hosts.
    TooMany,
    /// A name longer than 253 bytes.
    TooLong,
    /// A repetition that is not written `(x3)`.
    Repetition,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::NoName => "a name is missing",
            Fault::Blank => "a blank inside a name",
            Fault::Unclosed => "`[` is never closed",
            Fault::Bracket => "a bracket out of place",
            Fault::NoNumber => "a number is expected",
            Fault::Backwards => "the range runs backwards",
            Fault::TooMany => "more than 100000 entries",
            Fault::TooLong => "a name of more than 253 bytes",
            Fault::Repetition => "a repetition is written `(x3)`",
        })
    }
}

/// The hosts of a Slurm host list, in its order.
///
/// ```
/// let hosts = syncytia_launch::nodelist::expand("n[01-03,7]-ib,login1")?;
/// assert_eq!(hosts, ["n01-ib", "n02-ib", "n03-ib", "n7-ib", "login1"]);
/// # Ok::<(), syncytia_launch::nodelist::NodelistError>(())
/// ```
///
/// # Errors
/// [`NodelistError`] with the place, also for more than 100,000 hosts.
pub fn expand(list: &str) -> Result<Vec<String>, NodelistError> {
    let mut hosts = Vec::new();
    for (start, name) in names(list).map_err(|(at, fault)| error(list, at, fault))? {
        expand_name(name, &mut hosts).map_err(|(at, fault)| error(list, start + at, fault))?;
    }
    Ok(hosts)
}

/// Tasks on each node, in the order of the host list: `2(x3),1` is 2, 2, 2, 1.
///
/// # Errors
/// [`NodelistError`] with the place, also for more than 100,000 nodes.
pub fn tasks_per_node(list: &str) -> Result<Vec<u32>, NodelistError> {
    let mut counts = Vec::new();
    let mut start = 0;
    for item in list.split(',') {
        let (text, blanks) = trimmed(item);
        let at = |offset: usize| start + blanks + offset;
        let (count, times) = match text.find('(') {
            None => (text, 1),
            Some(open) => {
                let inner = text[open..].strip_prefix("(x").and_then(|t| t.strip_suffix(')'));
                let times = inner.ok_or_else(|| error(list, at(open), Fault::Repetition))?;
                let times = number(times).ok_or_else(|| error(list, at(open + 2), Fault::NoNumber))?;
                (&text[..open], usize::try_from(times).unwrap_or(usize::MAX))
            }
        };
        let count = number(count).and_then(|n| u32::try_from(n).ok());
        let count = count.ok_or_else(|| error(list, at(0), Fault::NoNumber))?;
        if times > MAX_HOSTS - counts.len() {
            return Err(error(list, at(0), Fault::TooMany));
        }
        counts.extend(std::iter::repeat_n(count, times));
        start += item.len() + 1;
    }
    Ok(counts)
}

/// A fault and the byte where it is.
type Found<T> = Result<T, (usize, Fault)>;

/// The names of a list with the byte each starts at: split at the commas outside brackets.
fn names(list: &str) -> Found<Vec<(usize, &str)>> {
    let mut names = Vec::new();
    let mut start = 0;
    let mut open = None;
    for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
        match (c, open) {
            ('[', None) => open = Some(at),
            (']', Some(_)) => open = None,
            ('[', Some(_)) | (']', None) => return Err((at, Fault::Bracket)),
            (',', None) => {
                let (name, blanks) = trimmed(&list[start..at]);
                if name.is_empty() {
                    return Err((start, Fault::NoName));
                }
                names.push((start + blanks, name));
                start = at + 1;
            }
            _ => {}
        }
    }
    open.map_or(Ok(names), |at| Err((at, Fault::Unclosed)))
}

/// One name with its bracket groups, expanded into `hosts`. Brackets are balanced here.
fn expand_name(name: &str, hosts: &mut Vec<String>) -> Found<()> {
    if let Some(at) = name.find(char::is_whitespace) {
        return Err((at, Fault::Blank));
    }
    let room = MAX_HOSTS - hosts.len();
    let mut expanded = vec![String::new()];
    let mut at = 0;
    while at < name.len() {
        let rest = &name[at..];
        let (parts, used) = match rest.strip_prefix('[') {
            Some(group) => {
                let group = &group[..group.find(']').unwrap_or(group.len())];
                (ranges(group, room).map_err(|(offset, fault)| (at + 1 + offset, fault))?, group.len() + 2)
            }
            None => {
                let text = &rest[..rest.find('[').unwrap_or(rest.len())];
                (vec![text.to_owned()], text.len())
            }
        };
        if expanded.len() * parts.len() > room {
            return Err((at, Fault::TooMany));
        }
        // All parts of a group may differ in width; the longest decides whether a name is too long.
        let longest = |names: &[String]| names.iter().map(String::len).max().unwrap_or(0);
        if longest(&expanded) + longest(&parts) > MAX_NAME {
            return Err((at, Fault::TooLong));
        }
        expanded = expanded.iter().flat_map(|head| parts.iter().map(move |part| format!("{head}{part}"))).collect();
        at += used;
    }
    hosts.append(&mut expanded);
    Ok(())
}

/// The numbers of one bracket group as they are written: `01-03,7`.
fn ranges(group: &str, room: usize) -> Found<Vec<String>> {
    let mut numbers = Vec::new();
    let mut at = 0;
    for range in group.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let from = number(first).ok_or((at, Fault::NoNumber))?;
        let to = number(last).ok_or((at + range.len() - last.len(), Fault::NoNumber))?;
        if to < from {
            return Err((at, Fault::Backwards));
        }
        if to - from >= (room - numbers.len()) as u64 {
            return Err((at, Fault::TooMany));
        }
        let width = first.len();
        numbers.extend((from..=to).map(|n| format!("{n:0width$}")));
        at += range.len() + 1;
    }
    Ok(numbers)
}

/// Digits only (no sign, as `u64::from_str` would allow), and few: each number of a range is as wide as its first.
fn number(digits: &str) -> Option<u64> {
    let plain = digits.len() <= 18 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// A text without blanks around it, and how many bytes of blanks were before it.
fn trimmed(text: &str) -> (&str, usize) {
    (text.trim(), text.len() - text.trim_start().len())
}

fn error(list: &str, at: usize, fault: Fault) -> NodelistError {
    let position = list.char_indices().take_while(|(byte, _)| *byte < at).count() + 1;
    let mut shown: String = list.chars().take(MAX_SHOWN).collect();
    if shown.len() < list.len() {
        shown.push('…');
    }
    NodelistError { list: shown, position, fault }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(list: &str, expected: &str) {
        assert_eq!(expand(list).unwrap().join(" "), expected, "{list}");
    }

    fn refused(list: &str, position: usize, fault: Fault) {
        assert_eq!(expand(list).map_err(|e| (e.position, e.fault)), Err((position, fault)), "{list}");
    }

    #[test]
    fn host_lists_of_real_sites_are_read() {
        check("localhost", "localhost");
        check("n[9-11]", "n9 n10 n11");
        check("n[01-03,7]-ib", "n01-ib n02-ib n03-ib n7-ib");
        check("a1,b[2-3]", "a1 b2 b3");
        check("nid[001234-001237,001240]", "nid001234 nid001235 nid001236 nid001237 nid001240");
        check("cn-[0001-0002]", "cn-0001 cn-0002");
        check("gpu-a100-[01-04],gpu-h100-1", "gpu-a100-01 gpu-a100-02 gpu-a100-03 gpu-a100-04 gpu-h100-1");
        check(
            "compute-b24-[1-2,5],compute-b25-[1,8]",
            "compute-b24-1 compute-b24-2 compute-b24-5 compute-b25-1 compute-b25-8",
        );
        check("r[1-2]c[01-02]", "r1c01 r1c02 r2c01 r2c02");
        check("jwb[0097,0101].juwels", "jwb0097.juwels jwb0101.juwels");
        check("x1000c0s[0-1]b0n[0-1]", "x1000c0s0b0n0 x1000c0s0b0n1 x1000c0s1b0n0 x1000c0s1b0n1");
        check(" n[098-101] , login1\n", "n098 n099 n100 n101 login1");
        // an arbitrary distribution names a host once per turn
        check("n2,n1,n2", "n2 n1 n2");
    }

    #[test]
    fn what_is_no_host_list_is_refused_at_its_place() {
        refused("", 1, Fault::NoName);
        refused("a,,b", 3, Fault::NoName);
        refused("n1,", 4, Fault::NoName);
        refused("n1, n[2-3", 6, Fault::Unclosed);
        refused("n]1", 2, Fault::Bracket);
        refused("n[1-[2-3]]", 5, Fault::Bracket);
        refused("n[]", 3, Fault::NoNumber);
        refused("n[1,x]", 5, Fault::NoNumber);
        refused("n[1-]", 5, Fault::NoNumber);
        refused("n[+1-2]", 3, Fault::NoNumber);
        refused("n[3-1]", 3, Fault::Backwards);
        refused("n1 n2", 3, Fault::Blank);
        let words = expand("é,n[1-x]").unwrap_err().to_string();
        assert_eq!(words, "cannot read the list `é,n[1-x]`: a number is expected at character 7");
    }

    #[test]
    fn a_list_that_would_eat_the_memory_is_refused() {
        assert_eq!(expand("n[1-100000]").unwrap().len(), 100_000);
        refused("n[0-100000]", 3, Fault::TooMany);
        refused("n[1-99999],m[1-2]", 14, Fault::TooMany);
        refused("r[1-1000]c[1-1000]", 11, Fault::TooMany);
        refused("n[0-999999999999999999]", 3, Fault::TooMany);
        refused(&format!("n[{}1-9999]", "0".repeat(100_000)), 3, Fault::NoNumber);
        refused(&format!("{}[1-9]", "n".repeat(253)), 254, Fault::TooLong);
    }

    #[test]
    fn task_counts_are_repeated_as_slurm_writes_them() {
        assert_eq!(tasks_per_node("2(x3),1"), Ok(vec![2, 2, 2, 1]));
        assert_eq!(tasks_per_node("1(x2)"), Ok(vec![1, 1]));
        assert_eq!(tasks_per_node("72"), Ok(vec![72]));
        let refused = |list: &str| tasks_per_node(list).map_err(|e| (e.position, e.fault));
        assert_eq!(refused("2(3)"), Err((2, Fault::Repetition)));
        assert_eq!(refused("1,2(x3"), Err((4, Fault::Repetition)));
        assert_eq!(refused("1,(x3)"), Err((3, Fault::NoNumber)));
        assert_eq!(refused("4294967296"), Err((1, Fault::NoNumber)));
        assert_eq!(refused("1(x99999999)"), Err((1, Fault::TooMany)));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(any in ".*", near in "[a-b0-9,\\[\\]()x \u{e9}-]{0,40}") {
            for list in [any, near] {
                let _ = tasks_per_node(&list);
                if let Ok(hosts) = expand(&list) {
                    prop_assert!(!hosts.is_empty() && hosts.iter().all(|h| !h.is_empty() && !h.contains(['[', ']', ','])));
                }
            }
        }
    }
}
