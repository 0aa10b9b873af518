//! The gene panel and the ledger: which genes and observations are in, which are out, and why.

use serde::{Deserialize, Serialize};

/// One gene of the panel, with everything processing learned about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PanelGene {
    /// Stable identifier, version suffix stripped.
    pub id: String,
    /// Symbol.
    pub symbol: String,
    /// Merged exon length in bases, where the annotation has one.
    pub length: Option<f64>,
    /// Minimum over sections of the share of observations with a count (`spared.md` §2).
    pub exp_frac: f64,
    /// Share of all observations with a count.
    pub glob_exp_frac: f64,
    /// Mean Moran's I over sections on the completed layer; `None` where undefined.
    pub moran: Option<f64>,
}

/// The ordered genes of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    /// `human`, `mouse`, or `unknown`, from the identifiers.
    pub species: String,
    /// Source of the lengths, e.g. `GENCODE v43 basic (merged exons)`; `None` when lengths were not used.
    pub annotation: Option<String>,
    /// Every gene that passed the filters, ids ascending: the columns of `gene_idx` and `count`.
    pub genes: Vec<PanelGene>,
    /// The genes of the layers, Moran-descending: indices into `genes`.
    pub selected: Vec<u32>,
}

impl Panel {
    /// Number of genes in the layers (`G`).
    pub fn n_selected(&self) -> usize {
        self.selected.len()
    }

    /// The genes of the layers in layer order.
    pub fn selected_genes(&self) -> impl Iterator<Item = &PanelGene> {
        self.selected.iter().map(|&i| &self.genes[i as usize])
    }
}

/// What was dropped, where and why: nothing leaves in silence.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// One entry per (what, reason), in the order of the pipeline.
    pub entries: Vec<LedgerEntry>,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// `gene` or `obs`.
    pub what: String,
    /// Section concerned; `None` for the whole data set.
    pub library_id: Option<String>,
    /// Reason in words, e.g. `no length in GENCODE v43 basic`.
    pub reason: String,
    /// How many.
    pub n: u64,
    /// Their names (all of them: the ledger is the record of the loss).
    pub names: Vec<String>,
}
