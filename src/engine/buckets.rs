//! Which tensors travel together: runs of whole parameter tensors from the end of the declaration order, which is the order
//! in which backward finishes them. Buckets never influence bits: they cut the flat buffer of integers.

use std::ops::Range;

/// Values of a bucket that travels by the host's memory, 4 MiB of int64.
pub const BY_HOST: usize = 1 << 19;
/// Values of a bucket that is summed in a device's memory, 32 MiB of int64: there each sum waits for a meeting and a few launches.
pub const IN_PLACE: usize = 1 << 22;

/// One bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its tensors, by place in the declaration order.
    pub tensors: Range<usize>,
    /// Its values in the flat buffer.
    pub values: Range<usize>,
}

/// The buckets of a model in the order they leave: the last declared first. Each is closed when it holds an eighth of the
/// model or `largest` values.
pub fn plan(tensors: &[Range<usize>], largest: usize) -> Vec<Bucket> {
    let n = tensors.last().map_or(0, |t| t.end);
    let limit = largest.min(n / 8).max(1);
    let mut buckets = Vec::new();
    let mut end = tensors.len();
    for first in (0..tensors.len()).rev() {
        let values = tensors[first].start..tensors[end - 1].end;
        if values.len() >= limit || first == 0 {
            buckets.push(Bucket { tensors: first..end, values });
            end = first;
        }
    }
    if buckets.is_empty() {
        buckets.push(Bucket { tensors: 0..0, values: 0..0 });
    }
    buckets
}

/// One bucket with everything: for engines that do not overlap.
pub fn whole(tensors: &[Range<usize>]) -> Vec<Bucket> {
    let n = tensors.last().map_or(0, |t| t.end);
    vec![Bucket { tensors: 0..tensors.len(), values: 0..n }]
}

/// The bucket that each tensor travels in.
pub fn of_tensors(buckets: &[Bucket]) -> Vec<usize> {
    let tensors = buckets.iter().map(|bucket| bucket.tensors.end).max().unwrap_or(0);
    let mut found = vec![0; tensors];
    for (k, bucket) in buckets.iter().enumerate() {
        found[bucket.tensors.clone()].fill(k);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(sizes: &[usize]) -> Vec<Range<usize>> {
        let mut at = 0;
        let place = |&n: &usize| {
            at += n;
            at - n..at
        };
        sizes.iter().map(place).collect()
    }

    #[test]
    fn buckets_tile_the_model_from_its_end() {
        for sizes in [&[3, 0, 5, 100, 2, 2][..], &[1], &[0], &[1 << 21, 7, 1 << 20, 1 << 20], &[8; 64]] {
            let tensors = tensors(sizes);
            let buckets = plan(&tensors, BY_HOST);
            let of_tensors = of_tensors(&buckets);
            assert_eq!(of_tensors.len(), tensors.len(), "{sizes:?}");
            let (mut tensor, mut value) = (tensors.len(), tensors.last().unwrap().end);
            for bucket in &buckets {
                assert_eq!((bucket.tensors.end, bucket.values.end), (tensor, value), "{sizes:?}");
                assert!(bucket.tensors.clone().all(|tensor| buckets[of_tensors[tensor]] == *bucket), "{sizes:?}");
                (tensor, value) = (bucket.tensors.start, bucket.values.start);
            }
            assert_eq!((tensor, value), (0, 0), "{sizes:?}");
            assert!(buckets.len() <= 8.max(tensors.last().unwrap().end / BY_HOST + 8), "{sizes:?}");
        }
    }

    #[test]
    fn a_model_without_parameters_still_has_a_bucket_for_the_tail() {
        assert_eq!(plan(&[], BY_HOST), whole(&[]));
    }
}
