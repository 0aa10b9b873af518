//! Counts of cells as the generator's encoder reads them, on the host: expressed genes as their share of the cell, as many
//! without a count as its first stage reads, the most expressed first (`spatia.md` §2, §6).
//!
//! The order of genes means nothing to the encoder; it makes the most expressed the first of its tokens.

use syncytia_shards::draw::{DrawKey, Purpose};

use crate::model::spatia::gene_encoder::GeneInput;
use crate::model::spatia::gene_list::gene_list;
use crate::tensor::{Device, Padding, Values};

/// Expressed genes of a cell, ascending, and their counts.
pub type Counts<'a> = (&'a [u32], &'a [f32]);

/// How cells are read.
#[derive(Debug, Clone, Copy)]
pub struct GeneReader {
    key: DrawKey,
    genes: usize,
    context: usize,
}

/// Gene lists of a micro-batch, padded to the longest.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneLists {
    /// Cells.
    pub b: usize,
    /// Genes of the longest list, at least one.
    pub k: usize,
    /// `[b, k]`: rows of the gene table; its last where padded.
    pub genes: Values<i64>,
    /// `[b, k]`: count / Σ counts of the cell, 0 where padded.
    pub values: Values<f32>,
    /// `[b]`: Σ counts of the cell.
    pub depth: Values<f32>,
    /// `[b, k]`: whether padded.
    pub padding: Values<bool>,
}

impl GeneReader {
    /// For a panel of `genes`, at most `context` of a cell; drawn with the run's seed.
    pub fn new(seed: u64, genes: usize, context: usize) -> Self {
        Self { key: DrawKey::new(seed, Purpose::GeneSubset), genes, context }
    }

    /// Reads cells: their genes, of too many a random subset, and for each one without a count, drawn by the cell's stream.
    /// A cell without counts reads two genes of none.
    pub fn read(&self, cells: &[Counts<'_>], streams: &[[u32; 3]]) -> GeneLists {
        let lists: Vec<Vec<(u32, f32)>> =
            cells.iter().zip(streams).map(|(&cell, &stream)| self.list(cell, stream)).collect();
        let (b, k) = (lists.len(), lists.iter().map(Vec::len).max().unwrap_or(0));
        let depths = cells.iter().map(|(_, counts)| counts.iter().map(|&c| f64::from(c)).sum::<f64>());
        let depths: Vec<f64> = depths.collect();
        let share = |count: f32, depth: f64| if depth > 0.0 { (f64::from(count) / depth) as f32 } else { 0.0 };
        let (mut genes, mut values, mut padding) =
            (Vec::with_capacity(b * k), Vec::with_capacity(b * k), Vec::with_capacity(b * k));
        for (list, &depth) in lists.iter().zip(&depths) {
            genes.extend(list.iter().map(|&(gene, _)| i64::from(gene)));
            values.extend(list.iter().map(|&(_, count)| share(count, depth)));
            padding.extend((0..k).map(|i| i >= list.len()));
            genes.resize(padding.len(), self.genes as i64);
            values.resize(padding.len(), 0.0);
        }
        let depth = depths.iter().map(|&d| d as f32).collect();
        GeneLists { b, k, genes: genes.into(), values: values.into(), depth, padding: padding.into() }
    }

    /// The most expressed first, ties by gene.
    fn list(&self, (genes, counts): Counts<'_>, stream: [u32; 3]) -> Vec<(u32, f32)> {
        let list = gene_list(self.key, stream, genes, self.genes, 2 * genes.len().max(1), self.context);
        let with_count = |gene: u32| (gene, genes.binary_search(&gene).map_or(0.0, |at| counts[at]));
        let mut list: Vec<(u32, f32)> = list.into_iter().map(with_count).collect();
        list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        list
    }
}

impl GeneLists {
    /// The encoder's input on `device`.
    pub fn input(&self, device: &Device) -> GeneInput {
        let shape = [self.b, self.k];
        GeneInput {
            genes: self.genes.tensor(shape, device),
            values: self.values.tensor(shape, device),
            depth: self.depth.tensor([self.b], device),
            bins: None,
            padding: Padding::of(self.padding.clone(), shape),
        }
    }

    /// Sends the lists to `device`, ahead of their use; gives how many values.
    pub fn send(&mut self, device: &Device) -> usize {
        let shares = self.values.send(device) + self.depth.send(device);
        shares + self.genes.send(device) + self.padding.send(device)
    }

    /// `[b, before + top]`: which of `before` tokens and the first `top` genes are padding; none where nothing is.
    pub fn absent(&self, before: usize, top: usize) -> Option<Vec<bool>> {
        let row =
            |i: usize| std::iter::repeat_n(false, before).chain(self.padding[i * self.k..][..top].iter().copied());
        let absent: Vec<bool> = (0..self.b).flat_map(row).collect();
        absent.contains(&true).then_some(absent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_begin_with_the_most_expressed_and_hold_shares_of_the_whole_cell() {
        let reader = GeneReader::new(3, 9, 4);
        let cells: [Counts<'_>; 3] = [(&[1, 4, 6], &[2.0, 5.0, 5.0]), (&[], &[]), (&[0, 1, 2, 3, 4, 5], &[1.0; 6])];
        let streams = [[0, 0, 0], [1, 0, 0], [2, 0, 0]];
        let read = reader.read(&cells, &streams);
        assert_eq!((read.b, read.k), (3, 4));
        assert_eq!(read.genes[..3], [4, 6, 1]);
        assert!(![1, 4, 6, 9].contains(&read.genes[3]), "the last is drawn from those without a count");
        assert_eq!(read.values[..4], [5.0 / 12.0, 5.0 / 12.0, 2.0 / 12.0, 0.0]);
        assert_eq!((&read.genes[6..8], &read.padding[4..8]), (&[9, 9][..], &[false, false, true, true][..]));
        assert_eq!(read.values[4..8], [0.0; 4], "two genes of none, and padding");
        assert_eq!(read.depth[..], [12.0, 0.0, 6.0]);
        assert_eq!(read.values[8..], [1.0f32 / 6.0; 4], "a share of all counts, also of those not read");
        let alone = reader.read(&cells[2..], &streams[2..]);
        assert_eq!(alone.genes[..], read.genes[8..], "a record's draws are its own");
        let absent = read.absent(2, 3).expect("the second cell has padding");
        assert_eq!((0..absent.len()).filter(|&i| absent[i]).collect::<Vec<_>>(), [9]);
        assert_eq!(alone.absent(1, 3), None);
    }
}
