//! One section's spots of one split, as the evaluator holds them: the whole truth, which only it may see.

use syncytia_shards::process::median;
use syncytia_shards::process::neighbours;
use syncytia_shards::process::tpm;
use syncytia_shards::process::{HopWindows, NearestGraph, Normalize};
use syncytia_shards::processed::{Matrix, Piece};
use syncytia_shards::section::Csr;

use super::correction::Correction;

/// How counts became layers: what the strict protocol does again from what is visible.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// TPM or counts per 10⁴.
    pub normalize: Normalize,
    /// Length of every panel gene (1 where lengths are not used).
    pub lengths: Vec<f64>,
    /// Genes of the layers among the panel's.
    pub selected: Vec<u32>,
    /// Context genes among the panel's: the first of the covariates.
    pub context: Vec<u32>,
    /// Hops of the median completion.
    pub hops: usize,
    /// The graph its windows follow.
    pub completion_graph: NearestGraph,
    /// How completed layers were batch-corrected, where the task's layer is.
    pub correction: Option<Correction>,
}

impl Pipeline {
    /// log2(normalised + 1) of the layer genes.
    pub fn log1p(&self, counts: &Csr) -> Matrix<f32> {
        self.log1p_of(counts, &self.selected)
    }

    fn log1p_of(&self, counts: &Csr, genes: &[u32]) -> Matrix<f32> {
        match self.normalize {
            Normalize::Tpm => tpm::tpm_log2(counts, &self.lengths, genes),
            Normalize::Cp10k => tpm::cp10k_log2(counts, genes),
        }
    }

    /// The layer of a piece completed by medians of its neighbours, not corrected.
    pub fn completed(&self, piece: &Piece) -> Matrix<f32> {
        let windows = neighbours::completion_hops(&piece.xy, self.hops, self.completion_graph);
        median::complete(&self.log1p(&piece.counts), &windows)
    }

    /// Covariates as these counts make them: context genes completed from them, features as they were.
    pub fn covariates(&self, counts: &Csr, windows: &HopWindows, features: &Matrix<f32>) -> Matrix<f32> {
        let n_context = self.context.len();
        let mut covariates = features.clone();
        if n_context > 0 {
            let context = median::complete(&self.log1p_of(counts, &self.context), windows);
            for (i, row) in covariates.values.chunks_mut(features.n_cols).enumerate() {
                row[..n_context].copy_from_slice(context.row(i));
            }
        }
        covariates
    }
}

/// A block with its neighbourhoods.
#[derive(Debug)]
pub struct Block {
    /// The records, in record-id order.
    pub piece: Piece,
    /// What is to be found: the completed layer, `[n, G]`.
    pub target: Matrix<f32>,
    /// Hop distances 1..=3 on the symmetrised 6-nearest-neighbour graph.
    pub rings: HopWindows,
    /// Windows of the pipeline's median completion.
    pub windows: HopWindows,
}

/// What a method may see of a block: the visible values and nothing else.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `[n, G]`: log-expression where visible, else 0.
    pub values: Matrix<f32>,
    /// `[n, G]`: measured and not hidden.
    pub visible: Matrix<bool>,
    /// `[n, G]`: what the network gets: completed values where missing, 0 where hidden.
    pub input: Matrix<f32>,
    /// `[n, E]`: covariates; under the strict protocol context genes are made again from what is visible.
    pub covariates: Matrix<f32>,
}

impl Block {
    /// From stored records; `layer` is the completed layer that is the target.
    pub fn new(piece: Piece, layer: &str, pipeline: &Pipeline) -> Block {
        let target = piece.layers[layer].clone();
        let rings = neighbours::symmetrised_hops(&piece.xy, neighbours::BASE_NEIGHBOURS, 3);
        let windows = neighbours::completion_hops(&piece.xy, pipeline.hops, pipeline.completion_graph);
        Block { piece, target, rings, windows }
    }

    /// Number of spots.
    pub fn n_obs(&self) -> usize {
        self.piece.n_obs()
    }

    /// Genes of the layer.
    pub fn n_genes(&self) -> usize {
        self.target.n_cols
    }

    /// Which measured entries an assay hides; `mask(record id, out)` is the draw.
    pub fn hidden(&self, mask: &dyn Fn(u64, &mut [bool])) -> Matrix<bool> {
        let genes = self.n_genes();
        let mut values = vec![false; self.n_obs() * genes];
        for (i, row) in values.chunks_mut(genes).enumerate() {
            mask(self.piece.record_id(i), row);
            row.iter_mut().zip(self.piece.measured.row(i)).for_each(|(h, &m)| *h &= m);
        }
        Matrix { n_cols: genes, values }
    }

    /// The `paper` protocol: normalised and completed before hiding, then the hidden entries are set to 0.
    pub fn seen_as_in_the_paper(&self, hidden: &Matrix<bool>) -> Seen {
        let measured = &self.piece.measured.values;
        let visible: Vec<bool> = measured.iter().zip(&hidden.values).map(|(&m, &h)| m && !h).collect();
        let keep = |keep: &dyn Fn(usize) -> bool| -> Vec<f32> {
            self.target.values.iter().enumerate().map(|(i, &v)| if keep(i) { v } else { 0.0 }).collect()
        };
        let of = |values| Matrix { n_cols: self.n_genes(), values };
        Seen {
            values: of(keep(&|i| visible[i])),
            input: of(keep(&|i| !hidden.values[i])),
            visible: of_bool(self, visible),
            covariates: self.piece.covariates.clone(),
        }
    }

    /// The `strict` protocol: hidden in the raw counts, then normalised and completed from what is visible.
    pub fn seen_strictly(&self, hidden: &Matrix<bool>, pipeline: &Pipeline) -> Seen {
        let counts = without(&self.piece.counts, hidden, &pipeline.selected);
        let mut values = pipeline.log1p(&counts);
        let visible: Vec<bool> =
            self.piece.measured.values.iter().zip(&hidden.values).map(|(&m, &h)| m && !h).collect();
        let mut input = median::complete(&values, &self.windows);
        if let Some(correction) = &pipeline.correction {
            input = correction.apply(&self.piece, input);
            for (i, value) in values.values.iter_mut().enumerate() {
                *value = if visible[i] { input.values[i] } else { 0.0 };
            }
        }
        input.values.iter_mut().zip(&hidden.values).for_each(|(v, &h)| {
            if h {
                *v = 0.0;
            }
        });
        let covariates = pipeline.covariates(&counts, &self.windows, &self.piece.covariates);
        Seen { values, input, visible: of_bool(self, visible), covariates }
    }
}

fn of_bool(block: &Block, values: Vec<bool>) -> Matrix<bool> {
    Matrix { n_cols: block.n_genes(), values }
}

/// The counts with every hidden entry removed.
fn without(counts: &Csr, hidden: &Matrix<bool>, selected: &[u32]) -> Csr {
    let mut layer_of = vec![usize::MAX; counts.n_cols];
    for (g, &column) in selected.iter().enumerate() {
        layer_of[column as usize] = g;
    }
    let mut out = Csr { n_cols: counts.n_cols, indptr: vec![0], ..Csr::default() };
    for row in 0..counts.n_rows() {
        let (columns, values) = counts.row(row);
        for (&column, &value) in columns.iter().zip(values) {
            let g = layer_of[column as usize];
            if g == usize::MAX || !hidden.row(row)[g] {
                out.indices.push(column);
                out.values.push(value);
            }
        }
        out.indptr.push(out.indices.len());
    }
    out
}
