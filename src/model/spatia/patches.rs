//! A picture as patches, and which of them are kept (`spatia.md` §3).

use syncytia_shards::draw::DrawKey;

use super::config::kept_of;
use crate::tensor::{Tensor, TensorData};

/// `[b, c, h, w]` → `[b, n, p·p·c]`: patches row by row, inside a patch row by row with the channel last. `p` divides
/// both sides.
pub fn patchify(pixels: Tensor<4>, p: usize) -> Tensor<3> {
    let [b, c, h, w] = pixels.dims();
    assert!(h.is_multiple_of(p) && w.is_multiple_of(p), "patches of {p} do not tile a picture of {h} × {w}");
    let cut: Tensor<6> = pixels.reshape([b, c, h / p, p, w / p, p]);
    cut.permute([0, 2, 4, 3, 5, 1]).reshape([b, (h / p) * (w / p), p * p * c])
}

/// Patches that the encoder sees, the same number of every record; drawn on the host, part of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    n_patches: usize,
    per_record: usize,
    indices: Vec<u32>,
}

impl Kept {
    /// Hides `ratio` of `n_patches`: one word per patch, those with the ⌊N(1 − ratio)⌋ smallest words stay (ties to the
    /// lower index), one record per stream. Streams: (slot, global_step, 0) in training, (id low, id high, assay) else.
    pub fn draw(key: DrawKey, streams: &[[u32; 3]], n_patches: usize, ratio: f64) -> Kept {
        let per_record = kept_of(n_patches, ratio);
        let mut indices = Vec::with_capacity(streams.len() * per_record);
        for &stream in streams {
            let mut by_word = Vec::with_capacity(n_patches);
            key.for_each(n_patches, stream, |patch, word| by_word.push((word, patch as u32)));
            by_word.sort_unstable();
            let first = indices.len();
            indices.extend(by_word[..per_record].iter().map(|&(_, patch)| patch));
            indices[first..].sort_unstable();
        }
        Kept { n_patches, per_record, indices }
    }

    /// All patches of `records` pictures: what inference sees.
    pub fn all(records: usize, n_patches: usize) -> Kept {
        let indices = (0..records).flat_map(|_| 0..n_patches as u32).collect();
        Kept { n_patches, per_record: n_patches, indices }
    }

    /// Patches of a picture.
    pub fn n_patches(&self) -> usize {
        self.n_patches
    }

    /// Kept patches of one record.
    pub fn per_record(&self) -> usize {
        self.per_record
    }

    /// Number of records.
    pub fn records(&self) -> usize {
        self.indices.len() / self.per_record
    }

    /// Whether nothing is hidden.
    pub fn is_all(&self) -> bool {
        self.per_record == self.n_patches
    }

    /// Kept patches record by record, ascending.
    pub fn of_records(&self) -> impl Iterator<Item = &[u32]> {
        self.indices.chunks(self.per_record)
    }

    /// Hidden patches of every record, ascending, one record after the other.
    pub fn hidden(&self) -> Vec<u32> {
        let mut hidden = Vec::with_capacity(self.records() * (self.n_patches - self.per_record));
        for kept in self.of_records() {
            let mut kept = kept.iter().peekable();
            hidden.extend((0..self.n_patches as u32).filter(|patch| kept.next_if_eq(&patch).is_none()));
        }
        hidden
    }

    /// Of `[b, n, w]` the kept rows: `[b, kept, w]`.
    pub fn select(&self, patches: Tensor<3>) -> Tensor<3> {
        if self.is_all() { patches } else { select(patches, &self.indices, self.records()) }
    }

    /// Of `[b, n, w]` the hidden rows: `[b, n − kept, w]`.
    pub fn select_hidden(&self, patches: Tensor<3>) -> Tensor<3> {
        select(patches, &self.hidden(), self.records())
    }
}

/// Of `[b, n, w]` the rows `indices`, the same number of each of the b records.
fn select(patches: Tensor<3>, indices: &[u32], records: usize) -> Tensor<3> {
    let [b, n, w] = patches.dims();
    assert_eq!(b, records, "kept patches of {records} records do not fit {b} pictures");
    let each = indices.len() / b;
    let rows = indices.iter().enumerate().map(|(i, &patch)| (i / each * n) as i64 + i64::from(patch)).collect();
    super::select_rows(patches.reshape([b * n, w]), rows).reshape([b, each, w])
}

/// Constant `[1, n, w]`, or of it the kept rows of every record: `[b, kept, w]`.
pub(super) fn kept_of_table(table: &[f32], width: usize, kept: &Kept, device: &crate::tensor::Device) -> Tensor<3> {
    let (values, records) = if kept.is_all() {
        (table.to_vec(), 1)
    } else {
        let rows = kept.indices.iter().flat_map(|&patch| &table[patch as usize * width..][..width]);
        (rows.copied().collect(), kept.records())
    };
    Tensor::from_data(TensorData::new(values, [records, kept.per_record, width]), device)
}

#[cfg(test)]
mod tests {
    use syncytia_shards::draw::Purpose;

    use super::*;
    use crate::tensor::cpu;

    #[test]
    fn patches_are_row_major_with_the_channel_last() {
        // Two channels of 4 × 4: value = 100·channel + 10·row + column.
        let mut pixels = Vec::new();
        for c in 0..2 {
            for i in 0..16 {
                pixels.push((100 * c + 10 * (i / 4) + i % 4) as f32);
            }
        }
        let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [1, 2, 4, 4]), &cpu());
        let patches: Vec<f32> = patchify(pixels, 2).into_data().try_to_vec().unwrap();
        assert_eq!(patches[..8], [0., 100., 1., 101., 10., 110., 11., 111.]);
        assert_eq!(patches[8..16], [2., 102., 3., 103., 12., 112., 13., 113.], "the second patch is to the right");
    }

    #[test]
    fn kept_patches_do_not_depend_on_the_cut_and_hide_the_share_asked_for() {
        let key = DrawKey::new(3, Purpose::PatchMask);
        let streams: Vec<[u32; 3]> = (0..5).map(|slot| [slot, 9, 0]).collect();
        let together = Kept::draw(key, &streams, 16, 0.75);
        assert_eq!((together.per_record(), together.records()), (4, 5));
        for (stream, kept) in streams.iter().zip(together.of_records()) {
            let alone = Kept::draw(key, &[*stream], 16, 0.75);
            assert_eq!(alone.indices, kept);
            assert!(kept.is_sorted_by(|a, b| a < b));
            let mut all = [alone.hidden(), kept.to_vec()].concat();
            all.sort_unstable();
            assert_eq!(all, (0..16).collect::<Vec<u32>>());
        }
        assert_ne!(together.indices[..4], together.indices[4..8], "records have draws of their own");
    }

    #[test]
    fn every_patch_is_kept_about_as_often() {
        let key = DrawKey::new(3, Purpose::PatchMask);
        let streams: Vec<[u32; 3]> = (0..4_000).map(|slot| [slot, 0, 0]).collect();
        let kept = Kept::draw(key, &streams, 16, 0.75);
        let mut times = [0; 16];
        kept.indices.iter().for_each(|&patch| times[patch as usize] += 1);
        // 1,000 expected, standard deviation 27: five of them.
        assert!(times.iter().all(|&n| (865..1_135).contains(&n)), "{times:?}");
    }
}
