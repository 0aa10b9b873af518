//! What completion learns of a split before the first step: per section, mean visible values per gene and mean covariates.

use std::collections::BTreeMap;
use std::sync::Arc;

use syncytia_shards::loader::Slot;

use super::Completion;

/// Per (section, split) piece: mean of visible values per gene, as the evaluated mask leaves them, and of covariates.
#[derive(Debug, Clone, Default)]
pub struct GeneMeans {
    of_section: BTreeMap<u32, Means>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Means {
    pub(super) genes: Arc<[f32]>,
    pub(super) covariates: Arc<[f32]>,
}

impl GeneMeans {
    /// The means of a section; none for a section never seen.
    pub(super) fn of(&self, section: u32) -> Option<&Means> {
        self.of_section.get(&section)
    }
}

impl Completion {
    /// Mean of visible values per section and gene over `slots` (all records of a split).
    ///
    /// `assay = None`: nothing is hidden (training data); `Some(assay)`: what that assay leaves visible.
    pub fn gene_means(&self, slots: impl IntoIterator<Item = Slot>, assay: Option<u32>) -> GeneMeans {
        let genes = self.probability.len();
        #[derive(Default)]
        struct Sums {
            genes: Vec<(f64, u64)>,
            covariates: Vec<f64>,
            n: u64,
        }
        let mut sums: BTreeMap<u32, Sums> = BTreeMap::new();
        let mut hidden = vec![false; genes];
        for slot in slots {
            let group = &slot.group;
            let sums = sums.entry(group.section).or_default();
            sums.genes.resize(genes, (0.0, 0));
            sums.covariates.resize(group.covariates.n_cols, 0.0);
            sums.n += 1;
            for (sum, &value) in sums.covariates.iter_mut().zip(group.covariates.row(slot.row)) {
                *sum += f64::from(value);
            }
            if let Some(assay) = assay {
                self.assay_mask(assay, group.record_ids[slot.row], &mut hidden);
            }
            let (values, measured) = (group.layers[&self.config.layer].row(slot.row), group.measured.row(slot.row));
            for g in 0..genes {
                if measured[g] && !hidden[g] {
                    sums.genes[g].0 += f64::from(values[g]);
                    sums.genes[g].1 += 1;
                }
            }
        }
        let mean = |sums: Sums| Means {
            genes: sums.genes.iter().map(|&(sum, n)| if n == 0 { 0.0 } else { (sum / n as f64) as f32 }).collect(),
            covariates: sums.covariates.iter().map(|sum| (sum / sums.n as f64) as f32).collect(),
        };
        GeneMeans { of_section: sums.into_iter().map(|(section, s)| (section, mean(s))).collect() }
    }
}
