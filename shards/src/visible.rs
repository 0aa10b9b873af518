//! What may be seen of a data set of which something is hidden: dense rows of spots and cells, for models that hold a split in memory.
//!
//! Everything here is made of visible entries alone: totals, maxima, means, deviations, whether values are counts, which spots
//! remain and who is near whom. So no hidden value can change a bit of it, and a test changes them all to see that (`spotdiff.md` §1,
//! §5). What is hidden is read elsewhere, by who judges. Knows no tensor and no model.
//!
//! ```text
//! raw ── transform ──▶ level ── scale ──▶ scaled            raw: as ingested      level: where errors are measured
//!        total, ln            ÷ maximum | z-score           scaled: what a model sees, hidden = 0
//! ```

mod near;
mod scale;

use std::fmt;

use rayon::prelude::*;

pub use near::{N_NEAR, nearest_in_space};
pub use scale::{Factors, Scale, ScaleKind};

use crate::error::StoreError;
use crate::holdout::{Protocol, Transform};
use crate::matrix::Matrix;
use crate::processed::{Reference, Split};
use crate::reader::Shards;
use crate::row_group::{Columns, RowGroup};

/// The spots of a split as a model may see them.
#[derive(Debug, Clone, PartialEq)]
pub struct Visible {
    /// Record ids `[n]`, ascending.
    pub ids: Vec<u64>,
    /// Scaled values `[n, G]`, 0 where hidden.
    pub values: Matrix<f32>,
    /// Levels `[n, G]`: where errors are measured; 0 where hidden.
    pub levels: Matrix<f32>,
    /// Whether an entry is visible `[n · G]`, row-major; a visible zero is `true`.
    pub bits: Vec<bool>,
    /// Places `[n]`: µm where the section's scale is known, else native units; z = 0 where there is none.
    pub xyz: Vec<[f32; 3]>,
    /// Rows of the six nearest spots of the same section `[n]`, nearest first, ties by row.
    pub near: Vec<[u32; N_NEAR]>,
    /// Section of each spot `[n]`: spots of two sections have no distance.
    pub sections: Vec<u32>,
    /// How values were made, and the way back.
    pub scale: Scale,
    /// Records of the split without a visible value: they are in no row above.
    pub left_out: Vec<u64>,
}

/// The reference's cells, on the same kind of scale, made of their own values.
#[derive(Debug, Clone, PartialEq)]
pub struct VisibleCells {
    /// Row of each cell as ingested `[n]`, ascending.
    pub ids: Vec<u64>,
    /// Types `[n]`, where known.
    pub labels: Vec<Option<String>>,
    /// Scaled values `[n, G]`: all genes are visible in cells.
    pub values: Matrix<f32>,
    /// Levels `[n, G]`.
    pub levels: Matrix<f32>,
    /// How values were made, and the way back.
    pub scale: Scale,
}

/// What becomes of a record before anything is made of it: its id, its values as ingested (0 where hidden) and whether they are
/// visible, `[G]` each.
pub type Change<'c> = &'c (dyn Fn(u64, &mut [f32], &mut [bool]) + Sync);

/// A shard folder seen without what is hidden.
pub struct View<'a> {
    shards: &'a Shards,
    /// `[G]`: genes that no spot shows.
    hides: Vec<bool>,
    kind: ScaleKind,
    transform: Transform,
    fitted: Factors,
    change: Option<Change<'a>>,
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("kind", &self.kind).field("transform", &self.transform).finish_non_exhaustive()
    }
}

impl<'a> View<'a> {
    /// Opens the view of `fold` (of `gene_folds`; `None` under the other protocols) and fits its scale on the training spots.
    ///
    /// # Errors
    /// [`StoreError::Fold`] where the protocol and `fold` do not go together; damage; the system's errors.
    pub fn open(shards: &'a Shards, fold: Option<u32>, kind: ScaleKind) -> Result<View<'a>, StoreError> {
        let hides = shards.manifest().hidden_genes(fold)?;
        let unfitted = Factors::Rows(Vec::new());
        let mut view = View { shards, hides, kind, transform: Transform::None, fitted: unfitted, change: None };
        let train = view.rows(Split::Train)?;
        let asked = shards.manifest().holdout.as_ref().map_or(Transform::Auto, |h| h.transform);
        view.transform = asked.resolve(train.are_whole());
        view.fitted = view.fit(&train);
        Ok(view)
    }

    /// The same where other entries are visible: totals, scale and neighbours are made anew of what `change` leaves; what becomes of
    /// a value (counts or not) stays as decided, for so it was learned. Who judges hides more this way, or shows what only they know.
    ///
    /// # Errors
    /// Damage; the system's errors.
    pub fn changed<'c>(&'c self, change: Change<'c>) -> Result<View<'c>, StoreError> {
        let (hides, fitted) = (self.hides.clone(), Factors::Rows(Vec::new()));
        let mut view = View { hides, fitted, change: Some(change), ..*self };
        view.fitted = view.fit(&view.rows(Split::Train)?);
        Ok(view)
    }

    /// Whether something else is visible than the shards show.
    pub fn is_changed(&self) -> bool {
        self.change.is_some()
    }

    /// What is seen.
    pub fn shards(&self) -> &'a Shards {
        self.shards
    }

    fn fit(&self, train: &Rows) -> Factors {
        let scale = Scale::of_rows(self.kind, self.transform, train.totals());
        scale::fit(&scale, &train.raw, &train.bits, &self.hides)
    }

    /// Genes that no spot shows `[G]`: the fold's under `gene_folds`, else none.
    pub fn hidden_genes(&self) -> &[bool] {
        &self.hides
    }

    /// Symbols of the genes `[G]`, in the order of every column here.
    pub fn genes(&self) -> Vec<&str> {
        self.shards.manifest().panel.genes.iter().map(|gene| gene.symbol.as_str()).collect()
    }

    /// What becomes of a value before it is scaled: counts or not was decided on visible training values.
    pub fn transform(&self) -> Transform {
        self.transform
    }

    /// The spots of a split.
    ///
    /// # Errors
    /// [`StoreError::TooFewNear`] where a section has fewer than seven spots with a visible value; damage; the system's errors.
    pub fn visible(&self, split: Split) -> Result<Visible, StoreError> {
        let rows = self.rows(split)?;
        let near = near::of_sections(&rows.xyz, &rows.sections).map_err(|(section, n)| StoreError::TooFewNear {
            library_id: self.shards.manifest().sections[section as usize].library_id.clone(),
            split: split.as_str(),
            n,
        })?;
        let mut scale = Scale::of_rows(self.kind, self.transform, rows.totals());
        scale.by = match &self.fitted {
            Factors::Rows(_) => scale::row_maxima(&scale, &rows.raw),
            genes => genes.clone(),
        };
        let values = scale.scale_all(&rows.raw, &rows.bits);
        Ok(Visible {
            ids: rows.ids,
            values,
            levels: scale.levels_of_raw(&rows.raw), // raw is 0 where hidden, and the level of 0 is 0
            bits: rows.bits,
            xyz: rows.xyz.iter().map(|p| p.map(|v| v as f32)).collect(),
            near,
            sections: rows.sections,
            scale,
            left_out: rows.left_out,
        })
    }

    /// The reference's cells; `None` where the shards have none.
    ///
    /// # Errors
    /// Damage; the system's errors.
    pub fn reference(&self) -> Result<Option<VisibleCells>, StoreError> {
        Ok(self.shards.reference()?.map(|reference| self.cells(reference)))
    }

    /// The reference's cells, and each a second time with `raise` added to every count (stDiff's augmentation): their ids follow
    /// those of all cells. `None` where the shards have no reference.
    ///
    /// # Errors
    /// As [`View::reference`]. The scale of cells that are no counts is not made for it: who asks looks at `scale.transform`.
    pub fn reference_and_raised(&self, raise: f32) -> Result<Option<VisibleCells>, StoreError> {
        let Some(mut reference) = self.shards.reference()? else { return Ok(None) };
        let (n, n_genes) = (reference.ids.len(), reference.counts.n_cols);
        let mut both = dense(&reference.counts);
        both.values.extend_from_within(..);
        both.values[n * n_genes..].iter_mut().for_each(|value| *value += raise);
        let after = reference.ids.last().map_or(0, |last| last + 1);
        reference.ids.extend_from_within(..);
        reference.ids[n..].iter_mut().for_each(|id| *id += after);
        reference.labels.extend_from_within(..);
        reference.totals.extend_from_within(..);
        reference.totals[n..].iter_mut().for_each(|total| *total += f64::from(raise) * n_genes as f64);
        Ok(Some(self.cells_of(both, reference)))
    }

    fn cells(&self, reference: Reference) -> VisibleCells {
        self.cells_of(dense(&reference.counts), reference)
    }

    /// Cells whose counts are `raw`.
    fn cells_of(&self, raw: Matrix<f32>, reference: Reference) -> VisibleCells {
        let asked = self.shards.manifest().holdout.as_ref().map_or(Transform::Auto, |h| h.reference_transform);
        let transform = asked.resolve(raw.values.iter().all(|v| v.fract() == 0.0));
        let mut scale = Scale::of_rows(self.kind, transform, reference.totals);
        let bits = vec![true; raw.values.len()];
        scale.by = match scale::fit(&scale, &raw, &bits, &vec![false; raw.n_cols]) {
            Factors::Rows(_) => scale::row_maxima(&scale, &raw),
            genes => genes,
        };
        let values = scale.scale_all(&raw, &bits);
        let levels = scale.levels_of_raw(&raw);
        VisibleCells { ids: reference.ids, labels: reference.labels, values, levels, scale }
    }

    /// Raw visible values of a split by record id, without rows that show nothing.
    fn rows(&self, split: Split) -> Result<Rows, StoreError> {
        let entries = self.shards.manifest().protocol() == Protocol::Entries;
        let columns = Columns { counts: true, hidden: entries, ..Columns::default() };
        let groups: Vec<RowGroup> = self
            .shards
            .row_groups(split)
            .par_iter()
            .map(|entry| self.shards.decode(entry, &columns))
            .collect::<Result<_, _>>()?;
        let mut order: Vec<(u64, usize, usize)> = Vec::new(); // record id, row group, row
        for (k, group) in groups.iter().enumerate() {
            order.extend((0..group.n_own).map(|row| (group.record_ids[row], k, row)));
        }
        order.sort_unstable();
        let n_genes = self.hides.len();
        let mut rows = Rows { raw: Matrix { n_cols: n_genes, values: Vec::new() }, ..Rows::default() };
        let (mut of_row, mut bits) = (vec![0f32; n_genes], vec![false; n_genes]);
        for (id, k, row) in order {
            let group = &groups[k];
            match entries {
                true => bits.iter_mut().zip(group.hidden.row(row)).for_each(|(bit, hidden)| *bit = !hidden),
                false => bits.iter_mut().zip(&self.hides).for_each(|(bit, hidden)| *bit = !hidden),
            }
            of_row.fill(0.0);
            let (genes, values) = group.counts.as_ref().expect("asked for").row(row);
            for (&gene, &value) in genes.iter().zip(values).filter(|(gene, _)| !self.hides[**gene as usize]) {
                of_row[gene as usize] = value;
            }
            if let Some(change) = self.change {
                change(id, &mut of_row, &mut bits);
            }
            if of_row.iter().all(|v| *v == 0.0) {
                rows.left_out.push(id);
                continue;
            }
            let um = self.shards.manifest().sections[group.section as usize].um_per_unit.unwrap_or(1.0);
            let z = group.z.get(row).copied().unwrap_or(0.0);
            rows.ids.push(id);
            rows.raw.values.extend_from_slice(&of_row);
            rows.sections.push(group.section);
            rows.xyz.push([group.xy[row][0] * um, group.xy[row][1] * um, z * um]);
            rows.bits.extend_from_slice(&bits);
        }
        Ok(rows)
    }
}

/// Raw visible values of a split.
#[derive(Default)]
struct Rows {
    ids: Vec<u64>,
    sections: Vec<u32>,
    /// `[n, G]`, 0 where hidden.
    raw: Matrix<f32>,
    bits: Vec<bool>,
    xyz: Vec<[f64; 3]>,
    left_out: Vec<u64>,
}

impl Rows {
    fn are_whole(&self) -> bool {
        self.raw.values.iter().all(|v| v.fract() == 0.0)
    }

    fn totals(&self) -> Vec<f64> {
        (0..self.ids.len()).map(|i| self.raw.row(i).iter().map(|&v| f64::from(v)).sum()).collect()
    }
}

fn dense(counts: &crate::section::Csr) -> Matrix<f32> {
    let mut values = vec![0.0; counts.n_rows() * counts.n_cols];
    for i in 0..counts.n_rows() {
        let (genes, of_row) = counts.row(i);
        genes.iter().zip(of_row).for_each(|(&gene, &value)| values[i * counts.n_cols + gene as usize] = value);
    }
    Matrix { n_cols: counts.n_cols, values }
}

#[cfg(test)]
mod tests;
