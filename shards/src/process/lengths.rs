//! Merged exon lengths of human and mouse genes, compiled in (`genes/README.md` says from where).

use std::collections::HashMap;
use std::io::Read;
use std::sync::OnceLock;

use flate2::read::GzDecoder;

/// A species whose lengths are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Species {
    /// `ENSG…`
    Human,
    /// `ENSMUSG…`
    Mouse,
}

impl Species {
    /// The species of most identifiers (human on a tie); `None` where none is an Ensembl gene id of human or mouse.
    pub fn of_ids<'a>(ids: impl Iterator<Item = &'a str>) -> Option<Species> {
        let (mut human, mut mouse) = (0_usize, 0_usize);
        for id in ids {
            human += usize::from(id.starts_with("ENSG"));
            mouse += usize::from(id.starts_with("ENSMUSG"));
        }
        match (human, mouse) {
            (0, 0) => None,
            (human, mouse) if human >= mouse => Some(Species::Human),
            _ => Some(Species::Mouse),
        }
    }

    /// `human` or `mouse`.
    pub fn as_str(self) -> &'static str {
        match self {
            Species::Human => "human",
            Species::Mouse => "mouse",
        }
    }

    /// The annotation the lengths come from.
    pub fn annotation(self) -> &'static str {
        match self {
            Species::Human => "GENCODE v43 basic (merged exons)",
            Species::Mouse => "GENCODE vM33 basic (merged exons)",
        }
    }

    /// Merged exon length in bases of a gene id without version.
    pub fn length_of(self, id: &str) -> Option<f64> {
        static HUMAN: OnceLock<HashMap<String, f64>> = OnceLock::new();
        static MOUSE: OnceLock<HashMap<String, f64>> = OnceLock::new();
        let table = match self {
            Species::Human => HUMAN.get_or_init(|| parse(include_bytes!("../../genes/lengths_human.tsv.gz"))),
            Species::Mouse => MOUSE.get_or_init(|| parse(include_bytes!("../../genes/lengths_mouse.tsv.gz"))),
        };
        table.get(id).copied()
    }
}

fn parse(compressed: &[u8]) -> HashMap<String, f64> {
    let mut text = String::new();
    GzDecoder::new(compressed).read_to_string(&mut text).expect("the table is compiled in and a test reads it");
    text.lines()
        .map(|line| {
            let (id, length) = line.split_once('\t').expect("two columns, by the same test");
            (id.to_string(), length.parse().expect("a number, by the same test"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_hold_what_their_source_holds() {
        assert_eq!(Species::Human.length_of("ENSG00000223972"), Some(632.0));
        assert_eq!(Species::Mouse.length_of("ENSMUSG00000064842"), Some(110.0));
        assert_eq!(Species::Human.length_of("ENSG00000198888"), None, "MT-ND1 has no length");
        assert_eq!(Species::Mouse.length_of("ENSG00000223972"), None);
        for table in [
            &include_bytes!("../../genes/lengths_human.tsv.gz")[..],
            &include_bytes!("../../genes/lengths_mouse.tsv.gz")[..],
        ] {
            assert!(parse(table).values().all(|&length| length >= 1.0));
        }
    }

    #[test]
    fn the_species_is_that_of_most_ids() {
        assert_eq!(Species::of_ids(["ENSG1", "ENSMUSG1", "ENSMUSG2"].into_iter()), Some(Species::Mouse));
        assert_eq!(Species::of_ids(["ENSG1", "Sox2"].into_iter()), Some(Species::Human));
        assert_eq!(Species::of_ids(["Sox2", "ENSRNOG1"].into_iter()), None);
    }
}
