//! Painted pictures beside real ones of the same cells, and the simple fills they are judged with (`evaluation.md` §5, §8).

pub mod ks_score;
pub mod mean_image;
pub mod nearest_by_genes;
pub mod scores;

use syncytia_shards::draw::{Purpose, ShuffleStream};

use super::shape::{self, Shape};

/// Square pictures of one size, one after another, bytes row-major with the channel last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pictures {
    /// Pixels of a side.
    pub side: usize,
    /// Channels.
    pub channels: usize,
    /// `[n, side, side, channels]`.
    pub bytes: Vec<u8>,
}

impl Pictures {
    /// How many.
    pub fn n(&self) -> usize {
        self.bytes.len() / self.values()
    }

    /// Bytes of a picture.
    pub fn values(&self) -> usize {
        self.side * self.side * self.channels
    }

    /// The bytes of one.
    pub fn get(&self, i: usize) -> &[u8] {
        &self.bytes[i * self.values()..][..self.values()]
    }

    /// These in this order; one may come more than once.
    pub fn at(&self, order: impl IntoIterator<Item = usize>) -> Pictures {
        let bytes = order.into_iter().flat_map(|i| self.get(i)).copied().collect();
        Pictures { bytes, ..*self }
    }

    /// The shape of each; none where a picture has no region.
    pub fn shapes(&self) -> Vec<Option<Shape>> {
        let of = |picture: &[u8]| shape::shape(&shape::gray(picture, self.channels, self.side));
        self.bytes.chunks(self.values()).map(of).collect()
    }
}

/// What a seed draws for an evaluation of pictures.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
enum Draw {
    Records = 0,
    Conditions = 1,
    Training = 2,
}

fn stream(seed: u64, draw: Draw) -> ShuffleStream {
    ShuffleStream::new(seed, Purpose::PaintedPictures, &[draw as u64])
}

/// The records of a split in the order in which they are taken: the first n are painted, those after them are the other real
/// ones.
pub fn order_of_records(seed: u64, n_records: usize) -> Vec<usize> {
    stream(seed, Draw::Records).permutation(n_records).into_iter().map(|i| i as usize).collect()
}

/// Whose genes each of `n` cells is given instead of its own: never its own, where there are two.
pub fn other_cells(seed: u64, n: usize) -> Vec<usize> {
    let ring = stream(seed, Draw::Conditions).permutation(n);
    let mut given = vec![0; n];
    for (k, &cell) in ring.iter().enumerate() {
        given[cell as usize] = ring[(k + 1) % n] as usize;
    }
    given
}

/// `n` of the training records, none twice as long as there are enough.
pub fn training_records(seed: u64, n_training: usize, n: usize) -> Vec<usize> {
    let all = stream(seed, Draw::Training).permutation(n_training);
    all.into_iter().cycle().take(if n_training == 0 { 0 } else { n }).map(|i| i as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_given_its_own_genes_and_every_cells_are_given_once() {
        for n in [2, 3, 7, 100] {
            let given = other_cells(5, n);
            assert!(given.iter().enumerate().all(|(cell, &other)| cell != other), "{given:?}");
            let mut sorted = given.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn training_records_are_taken_twice_only_where_they_must() {
        let mut drawn = training_records(5, 10, 10);
        drawn.sort_unstable();
        assert_eq!(drawn, (0..10).collect::<Vec<_>>());
        assert_eq!(training_records(5, 3, 7).len(), 7);
        assert_eq!(training_records(5, 0, 7), [0usize; 0]);
        assert_ne!(order_of_records(1, 20), order_of_records(2, 20));
    }
}
