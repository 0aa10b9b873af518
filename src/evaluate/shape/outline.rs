//! The outline of a region: its length, and the area of its convex hull, as scikit-image's `perimeter` and `convex_hull_image`
//! count them.

use std::f64::consts::SQRT_2;

use syncytia_shards::processed::Matrix;

/// Length of the outline, in pixels.
///
/// Border pixels (of the region, with a side outside it) count by how the border goes on from them (Benkrid, Crookes &
/// Benkrid 2000): 1 straight on, √2 over corners, the mean of both where it turns from one to the other.
pub fn perimeter(region: &Matrix<bool>) -> f64 {
    let (rows, columns) = (region.n_rows() as isize, region.n_cols as isize);
    let inside = |y: isize, x: isize| {
        (0..rows).contains(&y) && (0..columns).contains(&x) && region.values[(y * columns + x) as usize]
    };
    let border = |y: isize, x: isize| inside(y, x) && SIDES.iter().any(|[dy, dx]| !inside(y + dy, x + dx));
    let mut length = 0.0;
    for y in 0..rows {
        for x in 0..columns {
            if border(y, x) {
                let touching = |steps: &[[isize; 2]]| steps.iter().filter(|[dy, dx]| border(y + dy, x + dx)).count();
                length += match (touching(&SIDES), touching(&CORNERS)) {
                    (2 | 3, 0..=2) => 1.0,
                    (0, 2) | (1, 3) => SQRT_2,
                    (1, 1 | 2) => f64::midpoint(1.0, SQRT_2),
                    _ => 0.0, // an end, or a knot that its neighbours count
                };
            }
        }
    }
    length
}

const SIDES: [[isize; 2]; 4] = [[-1, 0], [0, -1], [0, 1], [1, 0]];
const CORNERS: [[isize; 2]; 4] = [[-1, -1], [-1, 1], [1, -1], [1, 1]];

/// Pixels whose centre is in, or on the border of, the convex hull of the middles of all sides of the region's pixels.
pub fn convex_area(region: &Matrix<bool>) -> usize {
    let columns = region.n_cols;
    let pixels: Vec<[i64; 2]> = (0..region.values.len())
        .filter(|&i| region.values[i])
        .map(|i| [(i / columns) as i64, (i % columns) as i64])
        .collect();
    // In half pixels: the corners of the hull are whole numbers and no rounding decides.
    let middles = pixels.iter().flat_map(|&[y, x]| SIDES.map(|[dy, dx]| [2 * y + dy as i64, 2 * x + dx as i64]));
    let hull = hull(middles.collect());
    let around = |at: [i64; 2]| (0..hull.len()).all(|k| turn(hull[k], hull[(k + 1) % hull.len()], at) >= 0);
    let bounds = |axis: usize| {
        let ends = pixels.iter().map(|p| p[axis]);
        ends.clone().min().unwrap_or(0)..ends.max().map_or(0, |last| last + 1)
    };
    let mut area = 0;
    for y in bounds(0) {
        for x in bounds(1) {
            let inside = region.values[y as usize * columns + x as usize];
            area += usize::from(inside || around([2 * y, 2 * x]));
        }
    }
    area
}

/// The corners of the convex hull in the order in which [`turn`] is positive inside (Andrew's monotone chain).
fn hull(mut points: Vec<[i64; 2]>) -> Vec<[i64; 2]> {
    points.sort_unstable();
    points.dedup();
    let chain = |points: &mut dyn Iterator<Item = [i64; 2]>| {
        let mut chain: Vec<[i64; 2]> = Vec::new();
        for point in points {
            while chain.len() >= 2 && turn(chain[chain.len() - 2], chain[chain.len() - 1], point) <= 0 {
                chain.pop();
            }
            chain.push(point);
        }
        chain.pop();
        chain
    };
    let mut corners = chain(&mut points.iter().copied());
    corners.extend(chain(&mut points.iter().rev().copied()));
    corners
}

/// Positive where a → b → c turns to the left, 0 on a line.
fn turn(a: [i64; 2], b: [i64; 2], c: [i64; 2]) -> i64 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}
