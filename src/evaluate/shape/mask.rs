//! Where the cell is in its picture: what is brighter than Otsu's threshold, and of that the largest connected region.

use syncytia_shards::processed::Matrix;

/// Otsu's threshold: pixels above it are the cell's. It parts the values into two classes whose means, weighted by their sizes,
/// are furthest apart; the lowest of several. None of a picture of one value.
pub fn otsu(gray: &Matrix<u8>) -> Option<u8> {
    let mut times = [0u64; 256];
    gray.values.iter().for_each(|&v| times[usize::from(v)] += 1);
    let (all, sum) = (gray.values.len() as u64, gray.values.iter().map(|&v| u64::from(v)).sum::<u64>());
    let (mut below, mut sum_below) = (0u64, 0u64);
    let mut best: Option<(u8, f64)> = None;
    for value in 0..=u8::MAX {
        let n = times[usize::from(value)];
        below += n;
        sum_below += n * u64::from(value);
        if n == 0 || below == all {
            continue; // the same classes as before, or one of them empty
        }
        let above = all - below;
        let between = sum_below as f64 / below as f64 - (sum - sum_below) as f64 / above as f64;
        let variance = below as f64 * above as f64 * between * between;
        if best.is_none_or(|(_, most)| variance > most) {
            best = Some((value, variance));
        }
    }
    best.map(|(threshold, _)| threshold)
}

/// The largest region of pixels that touch by sides or corners; of equally large ones that whose first pixel comes first. None
/// of an empty mask.
pub fn largest_region(mask: &Matrix<bool>) -> Option<Matrix<bool>> {
    let (rows, columns) = (mask.n_rows(), mask.n_cols);
    let mut seen = vec![false; mask.values.len()];
    let mut largest: Vec<usize> = Vec::new();
    for first in 0..mask.values.len() {
        if !mask.values[first] || seen[first] {
            continue;
        }
        seen[first] = true;
        let mut region = vec![first];
        let mut next = 0;
        while let Some(&pixel) = region.get(next) {
            next += 1;
            let (row, column) = (pixel / columns, pixel % columns);
            for y in row.saturating_sub(1)..rows.min(row + 2) {
                for x in column.saturating_sub(1)..columns.min(column + 2) {
                    let at = y * columns + x;
                    if mask.values[at] && !seen[at] {
                        seen[at] = true;
                        region.push(at);
                    }
                }
            }
        }
        if region.len() > largest.len() {
            largest = region;
        }
    }
    if largest.is_empty() {
        return None;
    }
    let mut out = Matrix { n_cols: columns, values: vec![false; mask.values.len()] };
    largest.into_iter().for_each(|pixel| out.values[pixel] = true);
    Some(out)
}
