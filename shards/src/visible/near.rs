//! Who is near whom in two or three dimensions.

use rayon::prelude::*;

/// Near spots of a spot (`spotdiff.md` §3: j is one of the six nearest).
pub const N_NEAR: usize = 6;

/// The `K` nearest others of every point, nearest first, ties by index; `None` where there are fewer than `K` others.
///
/// Points are sorted along their longest axis; from each one the search goes outwards until that axis alone is farther than the
/// `K`-th found.
pub fn nearest_in_space<const K: usize>(points: &[[f64; 3]]) -> Option<Vec<[u32; K]>> {
    if points.len() <= K {
        return None;
    }
    let extent = |axis: usize| {
        let of_axis = || points.iter().map(|p| p[axis]);
        of_axis().fold(f64::NEG_INFINITY, f64::max) - of_axis().fold(f64::INFINITY, f64::min)
    };
    let axis = (0..3).max_by(|&a, &b| extent(a).total_cmp(&extent(b))).expect("three axes");
    let mut order: Vec<u32> = (0..points.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| points[a as usize][axis].total_cmp(&points[b as usize][axis]).then(a.cmp(&b)));
    let mut place = vec![0; points.len()];
    order.iter().enumerate().for_each(|(at, &i)| place[i as usize] = at);
    let near = |i: usize| {
        let mut found: Vec<(f64, u32)> = Vec::with_capacity(K + 1);
        let along = |at: usize| {
            let d = points[order[at] as usize][axis] - points[i][axis];
            d * d
        };
        let (mut left, mut right) = (place[i], place[i] + 1); // next on the left is left − 1
        loop {
            let to_left = if left > 0 { along(left - 1) } else { f64::INFINITY };
            let to_right = if right < order.len() { along(right) } else { f64::INFINITY };
            let closest = to_left.min(to_right);
            if closest == f64::INFINITY || (found.len() == K && closest > found[K - 1].0) {
                break;
            }
            let j = if to_left <= to_right {
                left -= 1;
                order[left]
            } else {
                right += 1;
                order[right - 1]
            };
            let d = squared(&points[i], &points[j as usize]);
            let at = found.partition_point(|&(e, k)| e.total_cmp(&d).then(k.cmp(&j)).is_lt());
            if at < K {
                found.insert(at, (d, j));
                found.truncate(K);
            }
        }
        std::array::from_fn(|k| found[k].1)
    };
    Some((0..points.len()).into_par_iter().map(near).collect())
}

/// [`N_NEAR`] nearest of the same section, as rows; the section and its size where it is too small. Rows of a section are contiguous.
pub(super) fn of_sections(xyz: &[[f64; 3]], sections: &[u32]) -> Result<Vec<[u32; N_NEAR]>, (u32, usize)> {
    let mut near = Vec::with_capacity(xyz.len());
    for of_section in sections.chunk_by(|a, b| a == b) {
        let first = near.len();
        let rows = nearest_in_space::<N_NEAR>(&xyz[first..first + of_section.len()])
            .ok_or((of_section[0], of_section.len()))?;
        near.extend(rows.into_iter().map(|row| row.map(|j| j + first as u32)));
    }
    Ok(near)
}

fn squared(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    (0..3).map(|axis| (a[axis] - b[axis]) * (a[axis] - b[axis])).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_sweep_finds_what_comparing_all_pairs_finds(
            // few distinct places: ties and coincident points are common
            points in prop::collection::vec((0_i32..6, 0_i32..20, 0_i32..3), 7..80)
        ) {
            let points: Vec<[f64; 3]> = points.iter().map(|&(x, y, z)| [x.into(), y.into(), z.into()]).collect();
            let found = nearest_in_space::<6>(&points).unwrap();
            for (i, row) in found.iter().enumerate() {
                let mut others: Vec<(f64, u32)> = (0..points.len())
                    .filter(|&j| j != i)
                    .map(|j| (squared(&points[i], &points[j]), j as u32))
                    .collect();
                others.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let expected: Vec<u32> = others[..6].iter().map(|o| o.1).collect();
                prop_assert_eq!(row.to_vec(), expected);
            }
        }
    }

    #[test]
    fn height_counts() {
        let mut points: Vec<[f64; 3]> = (0..8).map(|i| [f64::from(i), 0.0, 0.0]).collect();
        points[1][2] = 100.0;
        assert_eq!(nearest_in_space::<2>(&points).unwrap()[0], [2, 3]);
    }
}
