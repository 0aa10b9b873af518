//! `mean_image`: the mean of the training pictures, for every cell the same. No sampler of the network can beat it in what a
//! mean is best at (squared error, often SSIM), and no metric of a set is fooled by it.

/// Sums of bytes, so that the order of records is of no matter.
#[derive(Debug, Clone)]
pub struct MeanImage {
    sums: Vec<u64>,
    n: u64,
}

impl MeanImage {
    /// Of pictures of this many bytes.
    pub fn new(values: usize) -> MeanImage {
        MeanImage { sums: vec![0; values], n: 0 }
    }

    /// Takes a picture in.
    ///
    /// # Panics
    /// If it has another size.
    pub fn add(&mut self, picture: &[u8]) {
        assert_eq!(picture.len(), self.sums.len(), "pictures of one size");
        self.sums.iter_mut().zip(picture).for_each(|(sum, &v)| *sum += u64::from(v));
        self.n += 1;
    }

    /// The mean, rounded to bytes; none of no pictures.
    pub fn mean(&self) -> Option<Vec<u8>> {
        (self.n > 0).then(|| self.sums.iter().map(|sum| ((2 * sum + self.n) / (2 * self.n)) as u8).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::MeanImage;

    #[test]
    fn the_mean_is_rounded_and_of_nothing_there_is_none() {
        let mut mean = MeanImage::new(3);
        assert_eq!(mean.mean(), None);
        [[0, 10, 255], [1, 11, 255], [1, 12, 255]].iter().for_each(|p| mean.add(p));
        assert_eq!(mean.mean().unwrap(), [1, 11, 255]);
    }
}
