//! Every random draw of the project, keyed: a function of (seed, purpose, step or record, element), never of a rank,
//! a thread or the clock (`docs/step.md` §3).
//!
//! All draws but shuffles come from Philox4x32-10; shuffles from ChaCha8 with our own bounded integers, because
//! `rand`'s distributions are not a stable contract.

use multiversion::multiversion;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Version of the definition in `docs/step.md`; part of every key.
pub const STEP_VERSION: u32 = 1;

/// What a draw is for. The numbers are part of the definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Dropout masks.
    Dropout = 1,
    /// Masks of training neighbourhoods.
    TrainMask = 2,
    /// Masks of validation (assay 0) and of the report's assays (1..).
    AssayMask = 3,
    /// Initial parameters.
    Init = 4,
    /// Small noise made on the host.
    Noise = 5,
    /// Diffusion timesteps.
    Timestep = 6,
    /// Image crops.
    Crop = 7,
    /// Gene subsets.
    GeneSubset = 8,
    /// Permutation of a whole split or of its row groups.
    ShuffleEpoch = 9,
    /// Permutation inside a window.
    ShuffleWindow = 10,
    /// Table of a mixture of sources.
    Mixture = 11,
    /// Synthetic data.
    Synthetic = 12,
    /// Patches hidden from an image encoder.
    PatchMask = 13,
    /// Thinning of counts.
    Thinning = 14,
    /// Members of a niche or a tissue hidden from its transformer.
    MemberMask = 15,
    /// Members of a tissue that are read, where it has more than its transformer reads.
    MemberSubset = 16,
    /// Which records of a generator's batch lose their condition.
    ConditionDrop = 20,
    /// The token of each cell that others are merged into.
    TokenMerge = 21,
    /// Starts of a clustering, and of a search for principal components: no step draws by it.
    Clusters = 30,
    /// Which records, and which of their pictures, an evaluation of pictures compares: no step draws by it.
    PaintedPictures = 31,
    /// Entries of a data set that are hidden from training, drawn once: no step draws by it.
    HeldEntries = 32,
    /// Which fold hides a gene, drawn once: no step draws by it.
    GeneFolds = 33,
    /// Which reference cell joins a slot of imputation.
    JoiningCell = 35,
    /// A near and a far spot of each spot of an alignment.
    NearAndFar = 36,
    /// Start and steps of imputed samples: no step draws by it.
    SampleNoise = 37,
    /// Order of visits and choices of a community search: no step draws by it.
    Communities = 40,
    /// Records that a kernel distance is estimated from: no step draws by it.
    Discrepancy = 41,
    /// What a simple fill learns from a reference by: initial values, batches, what is hidden, dropout. No step draws by it.
    ReferenceFill = 42,
    /// Entries that an evaluation hides beside those that the shards hide, or shows of them: no step draws by it.
    SparseEntries = 43,
}

/// Key of a Philox stream: the first 64 bits of BLAKE3(version ‖ seed ‖ purpose), all little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrawKey([u32; 2]);

impl DrawKey {
    /// The key of `purpose` in a run with this seed.
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&STEP_VERSION.to_le_bytes()).update(&seed.to_le_bytes()).update(&(purpose as u32).to_le_bytes());
        Self::first_64_bits(&hasher)
    }

    /// The key of a tensor's initial values: BLAKE3(version ‖ seed ‖ `Init` ‖ path in UTF-8).
    pub fn init(seed: u64, path: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&STEP_VERSION.to_le_bytes()).update(&seed.to_le_bytes());
        hasher.update(&(Purpose::Init as u32).to_le_bytes()).update(path.as_bytes());
        Self::first_64_bits(&hasher)
    }

    fn first_64_bits(hasher: &blake3::Hasher) -> Self {
        let digest = hasher.finalize();
        let word = |i: usize| u32::from_le_bytes(digest.as_bytes()[i..i + 4].try_into().expect("four bytes"));
        Self([word(0), word(4)])
    }

    /// The key's two words, for who draws where the tensor is.
    pub fn words(self) -> [u32; 2] {
        self.0
    }

    /// Four words for one counter.
    pub fn block(self, counter: [u32; 4]) -> [u32; 4] {
        philox4x32_10(counter, self.0)
    }

    /// The word of `element` in the stream whose last three counter words are `stream`.
    pub fn word(self, element: u32, stream: [u32; 3]) -> u32 {
        self.block([element / 4, stream[0], stream[1], stream[2]])[(element % 4) as usize]
    }

    /// Calls `f(element, word)` for elements `0..n`, four to a block.
    pub fn for_each(self, n: usize, stream: [u32; 3], mut f: impl FnMut(usize, u32)) {
        for first in (0..n).step_by(4) {
            let words = self.block([(first / 4) as u32, stream[0], stream[1], stream[2]]);
            for (i, &word) in words.iter().enumerate().take(n - first) {
                f(first + i, word);
            }
        }
    }
}

/// Philox4x32-10 (Salmon et al., SC 2011).
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let (p0, p1) = (u64::from(M0) * u64::from(a), u64::from(M1) * u64::from(c));
        (a, b, c, d) = ((p1 >> 32) as u32 ^ b ^ k0, p1 as u32, (p0 >> 32) as u32 ^ d ^ k1, p0 as u32);
        k0 = k0.wrapping_add(W0);
        k1 = k1.wrapping_add(W1);
    }
    [a, b, c, d]
}

/// Philox's multiplier of a counter's first word.
pub const M0: u32 = 0xD251_1F53;
/// Philox's multiplier of a counter's third word.
pub const M1: u32 = 0xCD9E_8D57;
/// What a round of Philox adds to a key's first word.
pub const W0: u32 = 0x9E37_79B9;
/// What a round of Philox adds to a key's second word.
pub const W1: u32 = 0xBB67_AE85;

/// A word as a uniform in [0, 1): its upper 24 bits · 2⁻²⁴.
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Bernoulli(p): word < ⌊p·2³²⌋, compared in 64 bits so that p = 1 always holds.
pub fn bernoulli(word: u32, p: f64) -> bool {
    u64::from(word) < threshold(p)
}

fn threshold(p: f64) -> u64 {
    (p * 4_294_967_296.0) as u64
}

/// Two words as two standard normals: Box–Muller in f64 with `libm`, rounded to f32.
///
/// u1 = (w0 + 1)·2⁻³² in (0, 1], u2 = w1·2⁻³²; r = √(−2 ln u1); (r cos 2πu2, r sin 2πu2).
pub fn normal_pair(w0: u32, w1: u32) -> [f32; 2] {
    let u1 = (f64::from(w0) + 1.0) / 4_294_967_296.0;
    let angle = std::f64::consts::TAU * (f64::from(w1) / 4_294_967_296.0);
    let r = libm::sqrt(-2.0 * libm::log(u1));
    [(r * libm::cos(angle)) as f32, (r * libm::sin(angle)) as f32]
}

/// Mask of a training neighbourhood: element = row · G + gene, keyed by (slot, global_step); site 0.
///
/// `p`: per gene; `out`: `[rows · G]`.
pub fn step_bernoulli(key: DrawKey, global_step: u32, slot: u32, p: &[f64], out: &mut [bool]) {
    let thresholds: Vec<u64> = p.iter().map(|&p| threshold(p)).collect();
    let mut gene = 0;
    key.for_each(out.len(), [slot, global_step, 0], |element, word| {
        out[element] = u64::from(word) < thresholds[gene];
        gene += 1;
        if gene == thresholds.len() {
            gene = 0;
        }
    });
}

/// Mask of a record in an assay: element = gene, counter (gene / 4, id low, id high, assay).
pub fn assay_bernoulli(key: DrawKey, assay: u32, record_id: u64, p: &[f64], out: &mut [bool]) {
    key.for_each(p.len(), [record_id as u32, (record_id >> 32) as u32, assay], |gene, word| {
        out[gene] = bernoulli(word, p[gene]);
    });
}

/// Uniforms in [0, 1) for a tensor's initial values.
pub fn init_uniforms(seed: u64, path: &str, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n];
    DrawKey::init(seed, path).for_each(n, [0, 0, 0], |i, word| out[i] = uniform(word));
    out
}

/// Standard normals for a tensor's initial values: pair i from words 2i, 2i + 1.
pub fn init_normals(seed: u64, path: &str, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n];
    normals(DrawKey::init(seed, path), [0, 0, 0], &mut out);
    out
}

/// Standard normals of one stream: pair i from words 2i, 2i + 1.
pub fn normals(key: DrawKey, stream: [u32; 3], out: &mut [f32]) {
    for (block, four) in out.chunks_mut(4).enumerate() {
        let [a, b, c, d] = key.block([block as u32, stream[0], stream[1], stream[2]]);
        let ([p, q], [r, s]) = (normal_pair(a, b), normal_pair(c, d));
        four.copy_from_slice(&[p, q, r, s][..four.len()]);
    }
}

/// Dropout masks of consecutive slots: `out` is `[slots, per_slot]`, each element 0 or 1/(1 − t·2⁻¹⁶).
///
/// 16-bit halves, block = element / 8 (counted inside the slot), words in order, low half first; an element is
/// dropped where h < t = ⌊p·2¹⁶⌋. Counter (block, slot, global_step, site).
pub fn dropout_mask_slots(
    out: &mut [f32],
    per_slot: usize,
    p: f64,
    key: DrawKey,
    first_slot: u32,
    global_step: u32,
    site: u32,
) {
    out.fill(1.0);
    for (i, slot) in out.chunks_mut(per_slot).enumerate() {
        drop_elements(slot, p, key, [first_slot + i as u32, global_step, site]);
    }
}

/// Multiplies each of a slot's elements by its mask, as [`dropout_mask_slots`] draws it. `stream`: (slot, global_step, site).
pub fn drop_elements(elements: &mut [f32], p: f64, key: DrawKey, stream: [u32; 3]) {
    let t = dropout_threshold(p);
    drop_in_blocks(elements, t, dropout_scale(t), stream, key.0);
}

/// t = ⌊p·2¹⁶⌋: halves below it are dropped.
pub fn dropout_threshold(p: f64) -> u16 {
    let t = (p * 65_536.0) as u32;
    assert!(t < 65_536, "dropout must keep something");
    t as u16
}

/// What is kept is multiplied by 1/(1 − t·2⁻¹⁶).
pub fn dropout_scale(threshold: u16) -> f32 {
    (1.0 / (1.0 - f64::from(threshold) / 65_536.0)) as f32
}

const SIDE: usize = 16;

/// Sixteen Philox blocks side by side, so that the compiler vectorises; the same bits as the plain form.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn drop_in_blocks(elements: &mut [f32], t: u16, scale: f32, stream: [u32; 3], key: [u32; 2]) {
    for (chunk, xs) in elements.chunks_mut(8 * SIDE).enumerate() {
        let first = (chunk * SIDE) as u32;
        let mut a: [u32; SIDE] = std::array::from_fn(|i| first + i as u32);
        let (mut b, mut c, mut d) = ([stream[0]; SIDE], [stream[1]; SIDE], [stream[2]; SIDE]);
        let [mut k0, mut k1] = key;
        for _ in 0..10 {
            for i in 0..SIDE {
                let p0 = M0 as u64 * a[i] as u64;
                let p1 = M1 as u64 * c[i] as u64;
                a[i] = (p1 >> 32) as u32 ^ b[i] ^ k0;
                c[i] = (p0 >> 32) as u32 ^ d[i] ^ k1;
                b[i] = p1 as u32;
                d[i] = p0 as u32;
            }
            k0 = k0.wrapping_add(W0);
            k1 = k1.wrapping_add(W1);
        }
        // Word w of a block holds its halves 2w and 2w + 1: block by block they are the elements in order.
        let mut halves = [[0u16; 2]; 4 * SIDE];
        for (w, lanes) in [a, b, c, d].iter().enumerate() {
            for (block, &word) in lanes.iter().enumerate() {
                halves[block * 4 + w] = [word as u16, (word >> 16) as u16];
            }
        }
        for (x, &half) in xs.iter_mut().zip(halves.as_flattened()) {
            *x *= if half >= t { scale } else { 0.0 };
        }
    }
}

/// A stream of bounded integers for shuffles: ChaCha8, key BLAKE3(version ‖ seed ‖ purpose ‖ words), little-endian.
#[derive(Debug, Clone)]
pub struct ShuffleStream(ChaCha8Rng);

impl ShuffleStream {
    /// The stream of `purpose` for `words` (epoch; or epoch, lane, window).
    pub fn new(seed: u64, purpose: Purpose, words: &[u64]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&STEP_VERSION.to_le_bytes()).update(&seed.to_le_bytes()).update(&(purpose as u32).to_le_bytes());
        for word in words {
            hasher.update(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// A uniform integer in `0..bound`: the high half of word · bound, rejecting words whose low half is biased.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "an empty range has no integer");
        let reject_below = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.0.next_u32()) * u64::from(bound);
            if product as u32 >= reject_below {
                return (product >> 32) as u32;
            }
        }
    }

    /// Fisher–Yates from the end: for i = n − 1 … 1 swap i with below(i + 1).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let bound = u32::try_from(i + 1).expect("fewer than 2^32 items are shuffled at once");
            items.swap(i, self.below(bound) as usize);
        }
    }

    /// A permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut items: Vec<u32> = (0..n as u32).collect();
        self.shuffle(&mut items);
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_answer() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        // Random123's known answer for all-ones.
        assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn dropout_equals_its_plain_definition_and_does_not_depend_on_the_cut() {
        let key = DrawKey::new(7, Purpose::Dropout);
        let (per_slot, p) = (1003, 0.1);
        let mut together = vec![0.0; 3 * per_slot];
        dropout_mask_slots(&mut together, per_slot, p, key, 5, 9, 2);
        let t = (p * 65_536.0) as u32;
        for slot in 0..3u32 {
            let mut alone = vec![0.0; per_slot];
            dropout_mask_slots(&mut alone, per_slot, p, key, 5 + slot, 9, 2);
            assert_eq!(alone, together[slot as usize * per_slot..][..per_slot]);
            for (e, &x) in alone.iter().enumerate() {
                let words = key.block([(e / 8) as u32, 5 + slot, 9, 2]);
                let half = (words[(e % 8) / 2] >> (16 * (e % 2))) & 0xffff;
                assert_eq!(x == 0.0, half < t, "element {e}");
            }
        }
        let dropped = together.iter().filter(|x| **x == 0.0).count() as f64 / together.len() as f64;
        assert!((dropped - p).abs() < 0.02, "{dropped} dropped for p = {p}"); // 3.7 standard deviations
    }

    #[test]
    fn certain_events_happen_and_impossible_ones_do_not() {
        assert!(bernoulli(u32::MAX, 1.0));
        assert!(!bernoulli(0, 0.0));
        let key = DrawKey::new(1, Purpose::AssayMask);
        let mut out = [false; 6];
        assay_bernoulli(key, 3, (2 << 32) | 17, &[1.0, 0.0, 1.0, 0.0, 1.0, 0.0], &mut out);
        assert_eq!(out, [true, false, true, false, true, false]);
    }

    #[test]
    fn normals_have_the_moments_of_a_normal() {
        let z = init_normals(3, "some.weight", 20_001);
        assert_eq!(z.len(), 20_001);
        let n = z.len() as f64;
        let mean = z.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let var = z.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        // 4 standard errors: 1/√n = .007, √(2/n) = .01.
        assert!(mean.abs() < 0.028 && (var - 1.0).abs() < 0.04, "mean {mean}, variance {var}");
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_its_key_matters() {
        let draw = |words: &[u64]| ShuffleStream::new(1, Purpose::ShuffleEpoch, words).permutation(100);
        let mut sorted = draw(&[0]);
        assert_ne!(sorted, draw(&[1]));
        assert_eq!(sorted, draw(&[0]));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn purposes_and_paths_have_streams_of_their_own() {
        let a = DrawKey::new(1, Purpose::Dropout);
        assert_ne!(a, DrawKey::new(1, Purpose::TrainMask));
        assert_ne!(a, DrawKey::new(2, Purpose::Dropout));
        assert_ne!(init_uniforms(1, "a.weight", 8), init_uniforms(1, "b.weight", 8));
    }
}
