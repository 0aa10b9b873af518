//! The words in which ranks see, before anything is summed, whether they are at the same operation: a maximum over them is
//! all that an engine over a library needs to find a wrong order or length. Knows no library.

/// What a rank is about to do, as all must.
#[repr(i64)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A sum of 64-bit integers.
    SumI64 = 1,
    /// A sum of f32.
    SumF32 = 2,
    /// Nothing but the meeting.
    Barrier = 3,
    /// A sum of bf16.
    SumBf16 = 4,
}

/// More than there are kinds.
const KINDS: i64 = 8;

impl Kind {
    /// Bytes of so many elements.
    pub fn bytes(self, length: usize) -> usize {
        match self {
            Kind::SumI64 => 8 * length,
            Kind::SumF32 => 4 * length,
            Kind::SumBf16 => 2 * length,
            Kind::Barrier => 0,
        }
    }
}

/// A rank's operation in three words: its place in the order, its name, its length and kind.
pub fn words(sequence: u64, operation: &str, kind: Kind, length: usize) -> [i64; 3] {
    [sequence as i64, name_word(operation), length as i64 * KINDS + kind as i64]
}

/// The length that such words tell.
pub fn length_of(words: &[i64]) -> usize {
    (words[2] / KINDS) as usize
}

/// Of each word its maximum and, in !x = −x − 1, its minimum.
pub fn both_ways(words: [i64; 3]) -> [i64; 6] {
    [words[0], !words[0], words[1], !words[1], words[2], !words[2]]
}

/// Whether the maximum over ranks of [`both_ways`] says that all gave the same.
pub fn all_alike(maximum: &[i64; 6]) -> bool {
    maximum.chunks(2).all(|pair| pair[0] == !pair[1])
}

/// A word that stands for a name; names are few, so that 63 bits of FNV-1a tell them apart.
fn name_word(name: &str) -> i64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 1) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_operation_everywhere_is_alike() {
        let mine = words(7, "sum of gradients", Kind::SumI64, 12);
        let kinds = [Kind::SumI64, Kind::SumF32, Kind::Barrier, Kind::SumBf16];
        assert_eq!(kinds.map(|kind| length_of(&words(7, "sum", kind, 12))), [12; 4]);
        let others = [
            mine,
            words(8, "sum of gradients", Kind::SumI64, 12),
            words(7, "validation", Kind::SumI64, 12),
            words(7, "sum of gradients", Kind::SumI64, 11),
            words(7, "sum of gradients", Kind::SumF32, 12),
            words(7, "sum of gradients", Kind::SumBf16, 12),
        ];
        for (i, other) in others.into_iter().enumerate() {
            let (a, b) = (both_ways(mine), both_ways(other));
            let maximum = std::array::from_fn(|k| a[k].max(b[k]));
            assert_eq!(all_alike(&maximum), i == 0, "{other:?}");
        }
    }
}
