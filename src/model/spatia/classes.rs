//! Class families: what a cell may be called, from leaves to parents (`spatia.md` §2, §4). A family's table of names stands in
//! the config, so it is part of every checkpoint, compared on resume and exported with the sizes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One class family: `[[model.spatia.gene.families]]`. It has an extra token among the genes', and a head if it has classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassFamily {
    /// `cell_type`, `tissue`, `disease`, …: the shards' column of labels.
    pub name: String,
    /// Names of the leaves, in the order of the head's outputs; none: no head.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Labels that say nothing, like `Unassigned`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Names of parents with those of their leaves; the j-th by name has the label `leaves + j`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parents: BTreeMap<String, Vec<String>>,
}

/// A label of which nothing is known.
pub const UNKNOWN: i32 = -1;

impl ClassFamily {
    /// Without classes.
    pub fn named(name: &str) -> ClassFamily {
        ClassFamily { name: name.to_owned(), classes: Vec::new(), unknown: Vec::new(), parents: BTreeMap::new() }
    }

    /// Number of leaves.
    pub fn n_leaves(&self) -> usize {
        self.classes.len()
    }

    /// The number of a label: a leaf, a parent, or [`UNKNOWN`] where there is none; `None` for a name that is not in the table.
    pub fn number(&self, label: Option<&str>) -> Option<i32> {
        let Some(label) = label.filter(|label| !label.is_empty()) else { return Some(UNKNOWN) };
        if self.unknown.iter().any(|name| name == label) {
            return Some(UNKNOWN);
        }
        let leaf = self.classes.iter().position(|name| name == label);
        let parent = || self.parents.keys().position(|name| name == label).map(|at| self.n_leaves() + at);
        leaf.or_else(parent).map(|number| number as i32)
    }

    /// Leaves of each parent, by number.
    pub fn leaves_of_parents(&self) -> Vec<Vec<u32>> {
        let leaf = |name: &String| self.classes.iter().position(|class| class == name).map(|at| at as u32);
        self.parents.values().map(|leaves| leaves.iter().filter_map(leaf).collect()).collect()
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let named = format!("gene.families `{}`", self.name);
        let names = || self.classes.iter().chain(&self.unknown).chain(self.parents.keys());
        if let Some(twice) = names().enumerate().find(|&(at, name)| names().take(at).any(|other| other == name)) {
            problems.push(format!("{named}: `{}` is there twice", twice.1));
        }
        if names().any(String::is_empty) {
            problems.push(format!("{named}: a class has a name"));
        }
        for (parent, leaves) in &self.parents {
            let foreign = leaves.iter().find(|leaf| !self.classes.contains(leaf));
            if let Some(leaf) = foreign {
                problems.push(format!("{named}: parent `{parent}` names `{leaf}`, which is no class"));
            } else if leaves.is_empty() {
                problems.push(format!("{named}: parent `{parent}` has no leaf"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family() -> ClassFamily {
        let names = |of: &[&str]| of.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let parents = [("T".to_owned(), names(&["CD8", "CD4"])), ("B".to_owned(), names(&["plasma"]))].into();
        ClassFamily {
            classes: names(&["CD4", "CD8", "plasma"]),
            unknown: names(&["?"]),
            parents,
            ..ClassFamily::named("cell_type")
        }
    }

    #[test]
    fn a_label_is_a_leaf_a_parent_unknown_or_foreign() {
        let family = family();
        let numbers = ["CD4", "plasma", "B", "T", "?", "", "mast"].map(|label| family.number(Some(label)));
        assert_eq!(numbers, [Some(0), Some(2), Some(3), Some(4), Some(UNKNOWN), Some(UNKNOWN), None]);
        assert_eq!(family.number(None), Some(UNKNOWN));
        assert_eq!(family.leaves_of_parents(), [vec![2], vec![1, 0]]);
        assert_eq!(family.problems(), Vec::<String>::new());
    }

    #[test]
    fn a_table_that_contradicts_itself_is_told_by_name() {
        let mut wrong = family();
        wrong.classes.push("B".to_owned());
        wrong.parents.insert("M".to_owned(), vec!["mast".to_owned()]);
        wrong.parents.insert("N".to_owned(), Vec::new());
        let problems = wrong.problems().join("; ");
        for fragment in ["`B` is there twice", "parent `M` names `mast`", "parent `N` has no leaf"] {
            assert!(problems.contains(fragment), "{problems}");
        }
    }
}
