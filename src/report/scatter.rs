//! Predicted against measured as counts per square cell, so that a million points are as small as a thousand.

use std::collections::BTreeMap;
use std::io::Cursor;

use base64::Engine;
use image::{ImageFormat, Rgb, RgbImage};

use super::chart::ticks;
use super::map::Scale;
use crate::evaluate::block::Block;
use crate::evaluate::completion::Outcome;

/// Counts over a square grid with its corner at 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Scatter {
    /// Side of a cell, a power of two: cell edges are exact in every number format.
    pub cell: f64,
    /// Entries by (measured, predicted) cell; cell `i` is `[i, i + 1) * cell`.
    pub counts: BTreeMap<(i32, i32), u64>,
}

/// Cells along the axes, at most and at least half as many: few entries in small cells would be specks.
const CELLS: [f64; 2] = [32.0, 128.0];
const SIDE: f64 = 400.0;
const LEFT: f64 = 46.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 40.0;

impl Scatter {
    /// Every hidden entry of the first assay.
    pub fn of_first_assay(blocks: &[Block], outcome: &Outcome) -> Scatter {
        let entries = blocks.iter().zip(&outcome.first_assay).flat_map(|(block, shown)| {
            let pairs = block.target.values.iter().zip(&shown.predicted.values).zip(&shown.hidden.values);
            pairs.filter(|(_, hidden)| **hidden).map(|((&measured, &predicted), _)| (measured, predicted))
        });
        Scatter::of(&entries.collect::<Vec<_>>())
    }

    /// Counts of (measured, predicted).
    pub fn of(pairs: &[(f32, f32)]) -> Scatter {
        let finite = || pairs.iter().filter(|(m, p)| m.is_finite() && p.is_finite());
        let (low, high) = finite()
            .flat_map(|&(m, p)| [f64::from(m), f64::from(p)])
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let range = if high > low { high - low } else { 1.0 };
        let cells = (pairs.len() as f64).sqrt().clamp(CELLS[0], CELLS[1]);
        let cell = (range / cells).log2().ceil().exp2();
        let mut counts = BTreeMap::new();
        let index = |v: f32| (f64::from(v) / cell).floor() as i32;
        for &(measured, predicted) in finite() {
            *counts.entry((index(measured), index(predicted))).or_insert(0) += 1;
        }
        Scatter { cell, counts }
    }

    /// Number of entries.
    pub fn n_entries(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Entries of the fullest cell.
    pub fn fullest(&self) -> u64 {
        self.counts.values().copied().max().unwrap_or(0)
    }

    /// How a cell's number of entries is coloured.
    pub fn scale(&self) -> Scale {
        Scale::Density(self.fullest() as f32)
    }

    /// Both axes over one range, the diagonal, one pixel per cell; empty when there is nothing to draw.
    pub fn svg(&self) -> String {
        let cells = || self.counts.keys().flat_map(|&(m, p)| [m, p]);
        let (Some(first), Some(last)) = (cells().min(), cells().max()) else { return String::new() };
        let (low, high) = (f64::from(first) * self.cell, f64::from(last + 1) * self.cell);
        let x = |v: f64| LEFT + SIDE * (v - low) / (high - low);
        let y = |v: f64| TOP + SIDE * (high - v) / (high - low);
        let (width, height) = (LEFT + SIDE + 12.0, TOP + SIDE + BOTTOM);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"predicted against measured\"><image x=\"{LEFT}\" y=\"{TOP}\" width=\"{SIDE}\" height=\"{SIDE}\" preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>",
            base64::engine::general_purpose::STANDARD.encode(self.png(first, last))
        );
        svg += &format!(
            "<line class=\"diagonal\" x1=\"{LEFT}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{TOP}\"/><rect class=\"frame\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{SIDE}\" height=\"{SIDE}\"/>",
            TOP + SIDE,
            LEFT + SIDE
        );
        for tick in ticks(low, high) {
            svg += &format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" class=\"xtick\">{tick}</text><text x=\"{:.1}\" y=\"{:.1}\" class=\"ytick\">{tick}</text>",
                x(tick),
                TOP + SIDE + 16.0,
                LEFT - 6.0,
                y(tick) + 4.0
            );
        }
        let middle = TOP + SIDE / 2.0;
        svg + &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"xtick\">measured</text><text x=\"13\" y=\"{middle}\" class=\"xtick\" transform=\"rotate(-90 13 {middle})\">predicted</text></svg>",
            LEFT + SIDE / 2.0,
            height - 5.0
        )
    }

    fn png(&self, first: i32, last: i32) -> Vec<u8> {
        let side = (last - first + 1) as u32;
        let mut image = RgbImage::from_pixel(side, side, Rgb([255, 255, 255]));
        for (&(measured, predicted), &n) in &self.counts {
            image.put_pixel((measured - first) as u32, (last - predicted) as u32, self.scale().colour(n as f32));
        }
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).expect("an RGB image in memory encodes");
        bytes.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_in_its_cell_and_a_value_that_is_no_number_in_none() {
        let scatter = Scatter::of(&[(0.0, 0.3), (0.0, 0.26), (31.9, -0.1), (1.0, f32::NAN)]);
        assert_eq!(scatter.cell, 1.0, "32 over 32 cells");
        assert_eq!(scatter.counts, BTreeMap::from([((0, 0), 2), ((31, -1), 1)]));
        assert_eq!((scatter.n_entries(), scatter.fullest()), (3, 2));
    }

    #[test]
    fn a_million_entries_draw_as_small_as_a_few_thousand() {
        let entry = |i: u32| ((i % 1000) as f32 * 0.014, (i % 997) as f32 * 0.012);
        let size = |n: u32| Scatter::of(&(0..n).map(entry).collect::<Vec<_>>()).svg().len();
        assert!(size(1_000_000) < 60_000, "{}", size(1_000_000));
        assert!(Scatter::of(&[]).svg().is_empty() && Scatter::of(&[(1.0, 1.0)]).svg().contains("<svg"));
    }

    #[test]
    fn high_predictions_are_at_the_top_and_high_measurements_at_the_right() {
        let scatter = Scatter::of(&[(0.0, 0.0), (100.0, 100.0), (100.0, 100.0), (0.0, 100.0)]);
        assert_eq!(scatter.cell, 4.0);
        let image = image::load_from_memory(&scatter.png(0, 25)).unwrap().to_rgb8();
        let white = Rgb([255, 255, 255]);
        assert_ne!(*image.get_pixel(0, 25), white, "low measured, low predicted");
        assert_ne!(*image.get_pixel(0, 0), white, "low measured, high predicted");
        assert_eq!(*image.get_pixel(25, 25), white, "high measured, low predicted");
        assert_eq!(*image.get_pixel(25, 0), scatter.scale().colour(2.0), "the fullest cell");
    }
}
