//! The tail of a step's reduction: one row of int64 per lane, so that the integer sum is a gather (`docs/step.md` §5).
//!
//! A lane writes only its own row. Every rank then holds all rows and decides by the same function of them.

use super::reduce::binary_exponent;

/// Sizes of a tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailLayout {
    /// Lanes of a step.
    pub lanes: usize,
    /// Loss terms of the task.
    pub terms: usize,
    /// Parameter tensors.
    pub tensors: usize,
}

/// What a lane tells the others.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LaneRow {
    /// Non-finite values in its gradient.
    pub non_finite: u64,
    /// The first record it blames for them.
    pub first_bad: Option<u64>,
    /// A wish of its rank to stop after this step.
    pub vote_stop: bool,
    /// A wish of its rank to save after this step.
    pub vote_save: bool,
    /// S_k of this step.
    pub sums: Vec<f64>,
    /// W_k of the next step.
    pub next_weights: Vec<f64>,
    /// Per tensor: binary exponent of the lane's largest |g|, `None` where all zero.
    pub exponents: Vec<Option<i16>>,
    /// Per tensor: whether the lane overflowed and sent zeros.
    pub overflow: Vec<bool>,
    /// Seconds of its rank in data, compute, and reduce as far as nothing hid it; and in the engine itself without waiting
    /// for others, in the step before (log only; in the rank's lowest lane).
    pub seconds: [f64; 4],
}

/// Offset that makes every exponent of an f32 (−149..=127) positive; 0 says all zero.
const BIAS: i16 = 200;
const OVERFLOW: u16 = 1 << 15;
const STOP: i64 = 1;
const SAVE: i64 = 2;

impl TailLayout {
    fn row_len(&self) -> usize {
        3 + 2 * self.terms + self.tensors.div_ceil(4) + 4
    }

    /// Words of a whole tail.
    pub fn len(&self) -> usize {
        self.lanes * self.row_len()
    }

    /// Whether the tail has no word.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes a lane's row; all other rows stay zero on this rank.
    pub fn write(&self, tail: &mut [i64], lane: usize, row: &LaneRow) {
        let words = &mut tail[lane * self.row_len()..(lane + 1) * self.row_len()];
        words[0] = row.non_finite as i64;
        words[1] = row.first_bad.map_or(0, |id| id as i64 + 1);
        words[2] = if row.vote_stop { STOP } else { 0 } | if row.vote_save { SAVE } else { 0 };
        let (sums, rest) = words[3..].split_at_mut(self.terms);
        let (weights, rest) = rest.split_at_mut(self.terms);
        let (codes, seconds) = rest.split_at_mut(self.tensors.div_ceil(4));
        put_f64(sums, &row.sums);
        put_f64(weights, &row.next_weights);
        put_f64(seconds, &row.seconds);
        codes.fill(0);
        for (t, exponent) in row.exponents.iter().enumerate() {
            let code = exponent.map_or(0, |e| (e + BIAS) as u16) | if row.overflow[t] { OVERFLOW } else { 0 };
            codes[t / 4] |= ((u64::from(code)) << (16 * (t % 4))) as i64;
        }
    }

    /// All rows, in lane order.
    pub fn read(&self, tail: &[i64]) -> Vec<LaneRow> {
        tail.chunks(self.row_len()).map(|words| self.read_row(words)).collect()
    }

    fn read_row(&self, words: &[i64]) -> LaneRow {
        let (sums, rest) = words[3..].split_at(self.terms);
        let (weights, rest) = rest.split_at(self.terms);
        let (codes, seconds) = rest.split_at(self.tensors.div_ceil(4));
        let code = |t: usize| (codes[t / 4] as u64 >> (16 * (t % 4))) as u16;
        let exponent = |t: usize| match code(t) & !OVERFLOW {
            0 => None,
            biased => Some(biased as i16 - BIAS),
        };
        LaneRow {
            non_finite: words[0] as u64,
            first_bad: (words[1] != 0).then(|| (words[1] - 1) as u64),
            vote_stop: words[2] & STOP != 0,
            vote_save: words[2] & SAVE != 0,
            sums: get_f64(sums),
            next_weights: get_f64(weights),
            exponents: (0..self.tensors).map(exponent).collect(),
            overflow: (0..self.tensors).map(|t| code(t) & OVERFLOW != 0).collect(),
            seconds: std::array::from_fn(|i| f64::from_bits(seconds[i] as u64)),
        }
    }
}

/// The exponents of a lane's scan; a tensor that is not finite counts as all zero (the step will not be applied).
pub fn exponents_of(max_bits: &[u32]) -> Vec<Option<i16>> {
    max_bits.iter().map(|&b| (b != 0 && b < 0x7f80_0000).then(|| binary_exponent(b))).collect()
}

fn put_f64(words: &mut [i64], values: &[f64]) {
    assert_eq!(words.len(), values.len(), "a lane's row has one value per term");
    for (word, value) in words.iter_mut().zip(values) {
        *word = value.to_bits() as i64;
    }
}

fn get_f64(words: &[i64]) -> Vec<f64> {
    words.iter().map(|&w| f64::from_bits(w as u64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_ranks_tails_is_a_gather_of_their_rows() {
        let layout = TailLayout { lanes: 3, terms: 2, tensors: 5 };
        let row = |lane: u64| LaneRow {
            non_finite: lane,
            first_bad: (lane == 1).then_some(0),
            vote_stop: lane == 2,
            vote_save: lane == 0,
            sums: vec![-1.5 * lane as f64, f64::NAN],
            next_weights: vec![0.1, lane as f64],
            exponents: vec![Some(-149), None, Some(127), Some(0), Some(lane as i16)],
            overflow: vec![false, false, true, false, lane == 1],
            seconds: [0.5, 0.25, lane as f64, 0.125],
        };
        let mut total = vec![0i64; layout.len()];
        for lane in 0..3 {
            let mut tail = vec![0i64; layout.len()];
            layout.write(&mut tail, lane, &row(lane as u64));
            total.iter_mut().zip(&tail).for_each(|(t, w)| *t = t.wrapping_add(*w));
        }
        // NaN is not equal to itself: compare as text.
        let expected: Vec<LaneRow> = (0..3).map(row).collect();
        assert_eq!(format!("{:?}", layout.read(&total)), format!("{expected:?}"));
    }
}
