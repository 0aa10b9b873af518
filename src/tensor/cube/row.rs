//! Units that share a row: what they have found meets in an order that knows nothing but the width of the row.

use cubecl::prelude::*;

use super::launch::{UNITS, n_cubes};

/// Units that share a row of so many values: some four values each.
pub fn across(width: usize) -> usize {
    (width / 4).next_power_of_two().clamp(8, UNITS as usize)
}

/// Cubes for rows that so many units share; beyond what there are they go round.
pub fn cubes_of_rows(rows: usize, across: usize) -> CubeCount {
    n_cubes(rows.div_ceil(UNITS as usize / across))
}

/// What the units of a row have found, known to all of them: its sum, or the largest. Halves meet halves; all units of the cube come here.
#[cube]
fn over_row(
    mine: f32,
    meeting: &mut Shared<[f32]>,
    unit: usize,
    #[comptime] across: usize,
    #[comptime] largest: bool,
) -> f32 {
    let at = UNIT_POS as usize;
    meeting[at] = mine;
    sync_cube();
    let levels = comptime!(across.trailing_zeros() as usize);
    #[unroll]
    for level in 0..levels {
        let half = across >> (level + 1);
        if unit < half {
            if largest {
                meeting[at] = max(meeting[at], meeting[at + half]);
            } else {
                meeting[at] += meeting[at + half];
            }
        }
        sync_cube();
    }
    let met = meeting[at - unit];
    sync_cube();
    met
}

/// Σ over the units of a row.
#[cube]
pub fn sum_over_row(mine: f32, meeting: &mut Shared<[f32]>, unit: usize, #[comptime] across: usize) -> f32 {
    over_row(mine, meeting, unit, across, false)
}

/// The largest of a row's units.
#[cube]
pub fn largest_of_row(mine: f32, meeting: &mut Shared<[f32]>, unit: usize, #[comptime] across: usize) -> f32 {
    over_row(mine, meeting, unit, across, true)
}
