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
    /// Genes after those in Moran order that models see and never predict: indices into `genes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<u32>,
    /// Batch correction of the layers, where there is one: what further sections are corrected with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combat: Option<PanelCombat>,
}

/// ComBat of a data set: one correction per layer it was applied to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PanelCombat {
    /// Names of the batches (sections or donors), in the order of the parameters.
    pub batches: Vec<String>,
    /// Of `log1p` → `c_log1p`.
    pub log1p: CombatParameters,
    /// Of `d_log1p` → `c_d_log1p`.
    pub d_log1p: CombatParameters,
}

/// What a ComBat correction is made of (`spared.md` §6).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CombatParameters {
    /// Grand mean per gene, `[G]`.
    pub mean: Vec<f64>,
    /// Pooled standard deviation per gene, `[G]`; 0 for a gene that never varies inside a batch: it is left as it is.
    pub deviation: Vec<f64>,
    /// Shift of each batch, in units of `deviation`, `[batches][G]`.
    pub shift: Vec<Vec<f64>>,
    /// Variance of each batch, in units of the pooled one, `[batches][G]`.
    pub scale: Vec<Vec<f64>>,
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
