//! Which genes a data set shares with its single-cell reference, by id or by symbol, and what to say where there are none.

use std::collections::HashMap;

use super::align::strip_version;
use super::error::ProcessError;
use crate::holdout::GeneCase;
use crate::section::Gene;

/// Genes of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Columns of the sections, ascending.
    pub ours: Vec<u32>,
    /// The reference's column of each.
    pub theirs: Vec<u32>,
    /// By what: `id = id`, `id = symbol` (theirs), ...
    pub matched_by: String,
}

/// The two names of a gene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Id,
    Symbol,
}

impl Name {
    fn of(self, gene: &Gene, case: GeneCase) -> String {
        let name = match self {
            Name::Id => strip_version(&gene.id),
            Name::Symbol => gene.symbol.as_str(),
        };
        match case {
            GeneCase::Exact => name.to_owned(),
            GeneCase::Ignore => name.to_lowercase(),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Name::Id => "id",
            Name::Symbol => "symbol",
        }
    }
}

/// Finds them by the pair of names that most genes share (ids before symbols on a tie); of several bearers of a name the first counts.
///
/// # Errors
/// [`ProcessError::NoSharedGene`] with the nearest names.
pub fn shared_genes(ours: &[Gene], theirs: &[Gene], case: GeneCase) -> Result<Shared, ProcessError> {
    let best = best_match(ours, theirs, case);
    if !best.ours.is_empty() {
        return Ok(best);
    }
    let without_case = best_match(ours, theirs, GeneCase::Ignore).ours.len();
    let nearest: Vec<String> = ours.iter().take(3).filter_map(|gene| nearest_name(&gene.symbol, theirs)).collect();
    Err(ProcessError::NoSharedGene {
        n_ours: ours.len(),
        n_theirs: theirs.len(),
        nearest: nearest.join(", "),
        advice: match without_case {
            0 => "are both of one species and one kind of identifier?".to_owned(),
            n => format!(
                "{n} would be the same without regard to case: where that is a lost capital and not another species, set \
                 data.gene_case = \"ignore\""
            ),
        },
    })
}

fn best_match(ours: &[Gene], theirs: &[Gene], case: GeneCase) -> Shared {
    let mut best = Shared { ours: Vec::new(), theirs: Vec::new(), matched_by: String::new() };
    for (own, other) in
        [(Name::Id, Name::Id), (Name::Symbol, Name::Symbol), (Name::Id, Name::Symbol), (Name::Symbol, Name::Id)]
    {
        let mut columns: HashMap<String, u32> = HashMap::new();
        for (column, gene) in (0u32..).zip(theirs) {
            columns.entry(other.of(gene, case)).or_insert(column);
        }
        // `remove`: a column of theirs is shared once
        let found: Vec<(u32, u32)> = (0u32..)
            .zip(ours)
            .filter_map(|(column, gene)| Some((column, columns.remove(&own.of(gene, case))?)))
            .collect();
        if found.len() > best.ours.len() {
            let ignored = if case == GeneCase::Ignore { ", case ignored" } else { "" };
            best = Shared {
                ours: found.iter().map(|f| f.0).collect(),
                theirs: found.iter().map(|f| f.1).collect(),
                matched_by: format!("{} = {}{ignored}", own.as_str(), other.as_str()),
            };
        }
    }
    best
}

/// `Actb ~ ACTB`: the name of theirs with the fewest edits, those of case counted last.
fn nearest_name(name: &str, theirs: &[Gene]) -> Option<String> {
    let names = theirs.iter().flat_map(|gene| [gene.symbol.as_str(), strip_version(&gene.id)]);
    let small = name.to_lowercase();
    let nearest = names.min_by_key(|other| (edits(&small, &other.to_lowercase()), edits(name, other)))?;
    Some(format!("`{name}` ~ `{nearest}`"))
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn genes(names: &[(&str, &str)]) -> Vec<Gene> {
        names.iter().map(|(id, symbol)| Gene { id: id.to_string(), symbol: symbol.to_string() }).collect()
    }

    #[test]
    fn symbols_of_a_panel_meet_ids_with_symbols() {
        let ours = genes(&[("Actb", "Actb"), ("Fos", "Fos"), ("Xist", "Xist")]);
        let theirs = genes(&[("ENSMUSG2.1", "Xist"), ("ENSMUSG1", "Actb"), ("ENSMUSG3", "Actb")]);
        let shared = shared_genes(&ours, &theirs, GeneCase::Exact).unwrap();
        assert_eq!((shared.ours, shared.theirs), (vec![0, 2], vec![1, 0]));
        assert_eq!(shared.matched_by, "symbol = symbol");
        let by_id = shared_genes(&genes(&[("ENSMUSG2.7", "?")]), &theirs, GeneCase::Exact).unwrap();
        assert_eq!((by_id.theirs, by_id.matched_by.as_str()), (vec![0], "id = id"));
    }

    #[test]
    fn another_species_is_refused_with_the_nearest_names() {
        let ours = genes(&[("Col6a1", "Col6a1"), ("Efnb2", "Efnb2")]);
        let theirs = genes(&[("ENSG1", "EFNB2"), ("ENSG2", "COL6A1"), ("ENSG3", "Efnb3")]);
        let words = shared_genes(&ours, &theirs, GeneCase::Exact).unwrap_err().to_string();
        assert!(
            words.contains("`Col6a1` ~ `COL6A1`, `Efnb2` ~ `EFNB2`") && words.contains("2 would be the same"),
            "{words}"
        );
        assert!(words.contains("data.gene_case"), "{words}");
        let shared = shared_genes(&ours, &theirs, GeneCase::Ignore).unwrap();
        assert_eq!((shared.theirs, shared.matched_by.as_str()), (vec![1, 0], "symbol = symbol, case ignored"));
        let fly = shared_genes(&genes(&[("zen", "zen")]), &theirs, GeneCase::Exact).unwrap_err().to_string();
        assert!(fly.contains("one species") && !fly.contains("gene_case"), "{fly}");
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, n) in [("", "abc", 3), ("kitten", "sitting", 3), ("zen", "zen2", 1), ("zen", "zen", 0)] {
            assert_eq!(edits(a, b), n, "{a} {b}");
        }
    }
}
