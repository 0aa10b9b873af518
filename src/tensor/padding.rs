//! Which tokens of padded sequences are padding. On the host: it decides how much is computed, and a device that is asked for it must
//! first have done all that was asked of it before.

use burn::tensor::{Bool, Device, Tensor};

use super::ahead::Values;
use super::spans::Spans;

/// A flag for every token, at least one of them set.
#[derive(Debug, Clone, PartialEq)]
pub struct Padding {
    flags: Values<bool>,
    /// Records and tokens of each.
    dims: [usize; 2],
}

impl Padding {
    /// `flags`: `[records, tokens]`, true where a token is padding; none where none is.
    pub fn of(flags: impl Into<Values<bool>>, dims: [usize; 2]) -> Option<Padding> {
        let flags = flags.into();
        assert_eq!(flags.len(), dims[0] * dims[1], "a flag for every token of {} records", dims[0]);
        flags.contains(&true).then_some(Padding { flags, dims })
    }

    /// Of sequences that are put side by side: of each the number of its tokens, and its padding.
    pub fn side_by_side(records: usize, parts: &[(usize, Option<&Padding>)]) -> Option<Padding> {
        let tokens: usize = parts.iter().map(|&(n, _)| n).sum();
        let mut flags = Vec::with_capacity(records * tokens);
        for record in 0..records {
            for &(n, padding) in parts {
                match padding {
                    Some(padding) => {
                        assert_eq!(padding.dims, [records, n], "padding of the tokens that it is put beside");
                        flags.extend_from_slice(&padding.flags[record * n..][..n]);
                    }
                    None => flags.extend(std::iter::repeat_n(false, n)),
                }
            }
        }
        Padding::of(flags, [records, tokens])
    }

    /// `[records, tokens]`, true where a token is padding.
    pub fn flags(&self) -> &[bool] {
        &self.flags
    }

    /// What is there of each record.
    pub fn present(&self) -> Spans {
        Spans::present(self.dims[0], &self.flags)
    }

    /// The flags on `device`.
    pub fn mask(&self, device: &Device) -> Tensor<2, Bool> {
        self.flags.tensor(self.dims, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::cpu;

    #[test]
    fn sequences_side_by_side_keep_each_its_padding() {
        let genes = Padding::of(vec![false, true, false, false], [2, 2]);
        let picture = Padding::of(vec![false, true], [2, 1]);
        let all = Padding::side_by_side(2, &[(1, None), (2, genes.as_ref()), (1, picture.as_ref())]).unwrap();
        assert_eq!(all.flags(), [false, false, true, false, false, false, false, true]);
        assert_eq!(all.mask(&cpu()).to_data().try_to_vec::<bool>().unwrap(), all.flags());
        assert_eq!(all.present().iter().map(|rows| rows.len()).collect::<Vec<_>>(), [3, 3]);
        assert_eq!(Padding::side_by_side(2, &[(3, None)]), None, "all are there");
    }
}
