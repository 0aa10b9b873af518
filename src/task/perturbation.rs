//! Counts of a cell with a gene changed: what would it look like without it, with twice as much (`spatia.md` §6).

use syncytia_shards::panel::PanelGene;

/// Genes named where one is unknown.
const NEAREST: usize = 3;

/// What happens to a gene's count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It becomes this count.
    To(f64),
    /// It is multiplied.
    Times(f64),
    /// Δ is added to ln(1 + count).
    Log(f64),
}

/// A gene of a panel and what happens to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perturbation {
    /// Place in the panel.
    pub gene: u32,
    /// What happens.
    pub change: Change,
}

impl Perturbation {
    /// Of `GENE=0`, `GENE=x2`, `GENE=+1.5` or `GENE=-1.5`; the gene by id or symbol.
    ///
    /// # Errors
    /// In words: an unknown gene with the nearest names; what is no change.
    pub fn parse(text: &str, panel: &[PanelGene]) -> Result<Perturbation, String> {
        let (name, how) = text.split_once('=').ok_or_else(|| format!("{text}: write GENE=0, GENE=x2 or GENE=+1.5"))?;
        let place = panel.iter().position(|g| g.id == name).or_else(|| panel.iter().position(|g| g.symbol == name));
        let gene = place.ok_or_else(|| {
            format!("{name} is no gene of the model's panel; the nearest are {}", nearest(name, panel).join(", "))
        })? as u32;
        let change = if let Some(times) = how.strip_prefix(['x', '×']) {
            times.parse().ok().filter(|t| *t >= 0.0).map(Change::Times)
        } else if how.starts_with(['+', '-']) {
            how.parse().ok().map(Change::Log)
        } else {
            how.parse().ok().filter(|to| *to >= 0.0).map(Change::To)
        };
        let finite = |change: &Change| match *change {
            Change::To(v) | Change::Times(v) | Change::Log(v) => v.is_finite(),
        };
        let change = change.filter(finite).ok_or_else(|| {
            format!(
                "{text}: {how} is no change; write 0 (or another count), x2 (times) or +1.5 (added to ln(1 + count))"
            )
        })?;
        Ok(Perturbation { gene, change })
    }
}

/// The cell's expressed genes, ascending, and their counts after all changes in order. A gene that loses its count stays, with
/// 0: the encoder is to read that it is not there, not to miss it.
pub fn perturbed(genes: &[u32], counts: &[f32], changes: &[Perturbation]) -> (Vec<u32>, Vec<f32>) {
    let mut cell: std::collections::BTreeMap<u32, f32> = genes.iter().copied().zip(counts.iter().copied()).collect();
    for &Perturbation { gene, change } in changes {
        let before = f64::from(cell.get(&gene).copied().unwrap_or(0.0));
        let after = match change {
            Change::To(count) => count,
            Change::Times(times) => before * times,
            Change::Log(delta) => libm::expm1(libm::log1p(before) + delta).max(0.0),
        };
        if before > 0.0 || after > 0.0 {
            cell.insert(gene, after as f32);
        }
    }
    cell.into_iter().unzip()
}

fn nearest<'a>(name: &str, panel: &'a [PanelGene]) -> Vec<&'a str> {
    let name = name.to_uppercase();
    let near = |known: &str| strsim::jaro_winkler(&name, &known.to_uppercase());
    let names = panel.iter().flat_map(|g| [g.symbol.as_str(), g.id.as_str()]).filter(|n| !n.is_empty());
    let mut names: Vec<(f64, &str)> = names.map(|known| (near(known), known)).collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut found: Vec<&str> = Vec::new();
    for (_, known) in names {
        if !found.contains(&known) && found.len() < NEAREST {
            found.push(known);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel() -> Vec<PanelGene> {
        let gene = |id: &str, symbol: &str| PanelGene {
            id: id.into(),
            symbol: symbol.into(),
            length: None,
            exp_frac: 0.0,
            glob_exp_frac: 0.0,
            moran: None,
        };
        vec![gene("ENSG1", "EPCAM"), gene("ENSG2", "PTPRC"), gene("ENSG3", "EPHA2")]
    }

    #[test]
    fn changes_are_read_by_id_or_symbol_and_unknown_genes_get_their_nearest() {
        let panel = panel();
        let read = |text| Perturbation::parse(text, &panel);
        assert_eq!(read("EPCAM=0"), Ok(Perturbation { gene: 0, change: Change::To(0.0) }));
        assert_eq!(read("ENSG2=x2"), Ok(Perturbation { gene: 1, change: Change::Times(2.0) }));
        assert_eq!(read("EPHA2=+1.5"), Ok(Perturbation { gene: 2, change: Change::Log(1.5) }));
        assert_eq!(read("EPHA2=-0.5"), Ok(Perturbation { gene: 2, change: Change::Log(-0.5) }));
        let unknown = read("epcam1=0").unwrap_err();
        assert!(unknown.contains("epcam1 is no gene") && unknown.contains("nearest are EPCAM"), "{unknown}");
        for wrong in ["EPCAM", "EPCAM=x-1", "EPCAM=twice", "EPCAM=+inf", "EPCAM=NaN", "EPCAM="] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn counts_change_and_what_is_lost_is_said() {
        let with = |gene, change| perturbed(&[1, 4], &[2.0, 3.0], &[Perturbation { gene, change }]);
        assert_eq!(with(4, Change::To(0.0)), (vec![1, 4], vec![2.0, 0.0]));
        assert_eq!(with(2, Change::To(0.0)), (vec![1, 4], vec![2.0, 3.0]), "it was not there");
        assert_eq!(with(2, Change::To(7.0)), (vec![1, 2, 4], vec![2.0, 7.0, 3.0]));
        assert_eq!(with(1, Change::Times(2.0)), (vec![1, 4], vec![4.0, 3.0]));
        let (_, counts) = with(4, Change::Log(std::f64::consts::LN_2));
        assert!((counts[1] - 7.0).abs() < 1e-6, "ln(1 + 3) + ln 2 = ln 8");
        assert_eq!(with(1, Change::Log(-9.0)), (vec![1, 4], vec![0.0, 3.0]), "never below 0");
    }
}
