//! Which observations train, select and judge: by section, by donor, or by blocks of every section (design §5).

use super::config::{SplitConfig, SplitKind};
use super::error::ProcessError;
use super::neighbours::{BASE_NEIGHBOURS, symmetrised_hops};
use crate::processed::Split;
use crate::section::Section;

/// The rule, with names resolved.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// The split of each section, in the order given.
    Whole(Vec<Split>),
    /// Every section is cut in three.
    Blocks,
}

/// Resolves names and defaults: without any, one section is cut into blocks and of several the last is val.
///
/// # Errors
/// `UnknownName`, `NamedTwice`, `NoTraining`, `NoDonor`.
pub fn resolve(sections: &[Section], config: &SplitConfig) -> Result<Rule, ProcessError> {
    let none_named = config.val.is_empty() && config.test.is_empty();
    let kind =
        config.kind.unwrap_or(if none_named && sections.len() == 1 { SplitKind::Block } else { SplitKind::Section });
    let (units, kind_name): (Vec<&str>, _) = match kind {
        SplitKind::Block => return Ok(Rule::Blocks),
        SplitKind::Section => (sections.iter().map(|s| s.library_id.as_str()).collect(), "section"),
        SplitKind::Donor => (sections.iter().map(donor).collect::<Result<_, _>>()?, "donor"),
    };
    let mut named: Vec<(&str, Split)> = Vec::new();
    for (list, names, split) in [("val", &config.val, Split::Val), ("test", &config.test, Split::Test)] {
        for name in names {
            if !units.contains(&name.as_str()) {
                let mut present = units.clone();
                present.sort_unstable();
                present.dedup();
                let (name, present) = (name.clone(), present.join(", "));
                return Err(ProcessError::UnknownName { list, name, kind: kind_name, present });
            }
            if named.iter().any(|(earlier, _)| earlier == name) {
                return Err(ProcessError::NamedTwice { name: name.clone() });
            }
            named.push((name, split));
        }
    }
    if none_named && units.len() > 1 {
        named.extend(units.last().map(|last| (*last, Split::Val)));
    }
    let split_of = |unit: &&str| named.iter().find(|(name, _)| name == unit).map_or(Split::Train, |n| n.1);
    let splits: Vec<Split> = units.iter().map(split_of).collect();
    if !splits.contains(&Split::Train) {
        return Err(ProcessError::NoTraining { kind: kind_name });
    }
    Ok(Rule::Whole(splits))
}

fn donor(section: &Section) -> Result<&str, ProcessError> {
    section
        .donor_id
        .as_deref()
        .ok_or_else(|| ProcessError::NoDonor { key: "split.kind", library_id: section.library_id.clone() })
}

/// Cuts a section into three slabs along its longer side (x on a tie), at the `cuts` shares of its observations in order of
/// (coordinate, index), then takes from each larger block what lies within `guard_hops` of a smaller one on the symmetrised
/// graph of six nearest (of equal blocks the earlier gives way: test judges). `None` marks the guard band.
pub fn blocks(xy: &[[f64; 2]], cuts: [f64; 2], guard_hops: usize) -> Vec<Option<Split>> {
    let extent = |axis: usize| {
        let (low, high) =
            xy.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p[axis]), h.max(p[axis])));
        high - low
    };
    let axis = usize::from(extent(1) > extent(0));
    let mut order: Vec<usize> = (0..xy.len()).collect();
    order.sort_by(|&a, &b| xy[a][axis].total_cmp(&xy[b][axis]).then(a.cmp(&b)));
    let ends = cuts.map(|cut| (cut * xy.len() as f64).round() as usize);
    let mut slab = vec![Split::Test; xy.len()];
    for (rank, &i) in order.iter().enumerate() {
        if rank < ends[0] {
            slab[i] = Split::Train;
        } else if rank < ends[1] {
            slab[i] = Split::Val;
        }
    }
    // larger blocks give way to smaller ones
    let size = |split: Split| slab.iter().filter(|&&s| s == split).count();
    let gives_way_to = |own: Split, other: Split| (size(own), other) > (size(other), own);
    let gives_way: Vec<(Split, Split)> = [Split::Train, Split::Val, Split::Test]
        .into_iter()
        .flat_map(|own| [Split::Train, Split::Val, Split::Test].map(|other| (own, other)))
        .filter(|&(own, other)| own != other && gives_way_to(own, other))
        .collect();
    let hops = symmetrised_hops(xy, BASE_NEIGHBOURS, guard_hops);
    (0..xy.len())
        .map(|i| {
            let near = |&j: &u32| gives_way.contains(&(slab[i], slab[j as usize]));
            (!hops.others_within(i, guard_hops).iter().any(near)).then_some(slab[i])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fixture::{hexagonal, section};

    fn sections(names: &[&str]) -> Vec<Section> {
        names.iter().map(|n| section(n, &["G1"], &[&[1.0]])).collect()
    }

    fn by_names(val: &[&str], test: &[&str]) -> SplitConfig {
        let owned = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        SplitConfig { val: owned(val), test: owned(test), ..SplitConfig::default() }
    }

    #[test]
    fn without_a_word_one_section_is_cut_and_of_several_the_last_is_val() {
        let nothing = SplitConfig::default();
        assert_eq!(resolve(&sections(&["a"]), &nothing).unwrap(), Rule::Blocks);
        let rule = resolve(&sections(&["a", "b", "c"]), &nothing).unwrap();
        assert_eq!(rule, Rule::Whole(vec![Split::Train, Split::Train, Split::Val]));
    }

    #[test]
    fn one_section_asked_for_whole_trains() {
        let whole = SplitConfig { kind: Some(SplitKind::Section), ..SplitConfig::default() };
        assert_eq!(resolve(&sections(&["a"]), &whole).unwrap(), Rule::Whole(vec![Split::Train]));
    }

    #[test]
    fn names_are_obeyed_and_checked() {
        let three = sections(&["a", "b", "c"]);
        let rule = resolve(&three, &by_names(&["a"], &["c"])).unwrap();
        assert_eq!(rule, Rule::Whole(vec![Split::Val, Split::Train, Split::Test]));
        let refused = resolve(&three, &by_names(&["d"], &[])).unwrap_err().to_string();
        assert_eq!(refused, "split.val names `d`, but the sections are: a, b, c");
        assert!(matches!(resolve(&three, &by_names(&["a"], &["a"])), Err(ProcessError::NamedTwice { .. })));
        assert!(matches!(resolve(&three, &by_names(&["a", "b", "c"], &[])), Err(ProcessError::NoTraining { .. })));
    }

    #[test]
    fn a_donor_keeps_its_sections_together() {
        let mut three = sections(&["a", "b", "c"]);
        let config = SplitConfig { kind: Some(SplitKind::Donor), ..by_names(&["d1"], &[]) };
        assert!(matches!(resolve(&three, &config), Err(ProcessError::NoDonor { .. })));
        for (section, donor) in three.iter_mut().zip(["d1", "d2", "d1"]) {
            section.donor_id = Some(donor.to_string());
        }
        let rule = resolve(&three, &config).unwrap();
        assert_eq!(rule, Rule::Whole(vec![Split::Val, Split::Train, Split::Val]));
    }

    /// 20 columns × 10 rows: slabs of 14, 3 and 3 columns; train and val lose three columns each, test none.
    #[test]
    fn slabs_lie_along_the_longer_side_and_the_larger_gives_the_band() {
        let xy = hexagonal(10, 20);
        let kept = blocks(&xy, [0.70, 0.85], 1);
        let n = |split: Option<Split>| kept.iter().filter(|&&s| s == split).count();
        assert_eq!(n(Some(Split::Test)), 30, "test keeps all");
        assert!(kept.iter().zip(&xy).all(|(s, p)| *s != Some(Split::Train) || p[0] < 1400.0));
        assert!(kept.iter().zip(&xy).all(|(s, p)| *s != Some(Split::Test) || p[0] > 1600.0));
        assert!(n(Some(Split::Train)) < 140 && n(Some(Split::Val)) < 30 && n(None) > 0);
    }

    #[test]
    fn no_two_blocks_are_within_the_guard() {
        let xy = hexagonal(12, 40);
        for guard in [1, 3] {
            let kept = blocks(&xy, [0.70, 0.85], guard);
            let hops = symmetrised_hops(&xy, BASE_NEIGHBOURS, guard);
            for (i, own) in kept.iter().enumerate().filter_map(|(i, s)| s.map(|s| (i, s))) {
                for &j in hops.others_within(i, guard) {
                    assert!(kept[j as usize].is_none_or(|other| other == own), "{i} and {j} under guard {guard}");
                }
            }
        }
    }

    #[test]
    fn without_a_guard_all_observations_stay_at_the_cuts() {
        let kept = blocks(&hexagonal(10, 20), [0.70, 0.85], 0);
        let n = |split| kept.iter().filter(|&&s| s == Some(split)).count();
        assert_eq!((n(Split::Train), n(Split::Val), n(Split::Test)), (140, 30, 30));
    }
}
