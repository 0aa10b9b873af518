//! What the cohort promises: truth can be had from where the docs say, and from nowhere else.

use super::*;

fn spec(n_cells: u32, crop_px: u32) -> CellsSpec {
    CellsSpec { name: "synthetic-1".into(), n_cells, n_sections: 3, sections_per_donor: 2, crop_px, seed: 1 }
}

fn label<'a>(section: &'a Section, name: &str) -> Vec<&'a str> {
    let column = section.labels.iter().find(|l| l.name == name).unwrap();
    column.values.iter().map(|v| v.as_deref().unwrap()).collect()
}

fn numbers(section: &Section, name: &str) -> Vec<f64> {
    label(section, name).iter().map(|v| v.parse().unwrap()).collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let cov: f64 = a.iter().zip(b).map(|(x, y)| (x - ma) * (y - mb)).sum();
    let var = |v: &[f64], m: f64| v.iter().map(|x| (x - m) * (x - m)).sum::<f64>();
    cov / (var(a, ma) * var(b, mb)).sqrt()
}

/// log2(1 + sum of the genes that begin with `prefix`).
fn signal(section: &Section, prefix: &str) -> Vec<f64> {
    let of: Vec<bool> = section.genes.iter().map(|g| g.symbol.starts_with(prefix)).collect();
    (0..section.n_obs())
        .map(|i| {
            let (genes, values) = section.counts.row(i);
            let sum: f32 = genes.iter().zip(values).filter(|(g, _)| of[**g as usize]).map(|(_, v)| v).sum();
            f64::from(1.0 + sum).log2()
        })
        .collect()
}

/// Pixels of a channel above a bound in each cell's place.
fn bright(made: &CellsSection, channel: usize, bound: u8) -> Vec<f64> {
    made.section
        .xy
        .iter()
        .map(|[x, y]| {
            let first = |v: f64, size: u32| (v - 16.0).round().clamp(0.0, f64::from(size - 32)) as u32;
            let (left, top) = (first(*x, made.image.width()), first(*y, made.image.height()));
            let inside = (0..32 * 32).filter(|k| made.image.get_pixel(left + k % 32, top + k / 32).0[channel] > bound);
            inside.count() as f64
        })
        .collect()
}

#[test]
fn a_section_is_the_same_alone_and_on_any_number_of_threads() {
    let made = synthesize(&spec(600, 32), 1);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(made, one.install(|| synthesize(&spec(600, 32), 1)));
    assert_ne!(made.section.counts, synthesize(&spec(600, 32), 2).section.counts);
    assert_eq!((0..3).map(|s| n_cells_of(&spec(601, 32), s)).sum::<u32>(), 601);
    assert_eq!(made.section.donor_id, synthesize(&spec(600, 32), 0).section.donor_id, "two sections of a donor");
}

#[test]
fn shape_genes_tell_the_shape_and_the_picture_shows_it() {
    let made = synthesize(&spec(1200, 32), 0);
    for (genes, truth) in [("RADIUS", "truth_radius"), ("TEX", "truth_texture"), ("NUC", "truth_nucleus")] {
        let r = correlation(&signal(&made.section, genes), &numbers(&made.section, truth));
        assert!(r > 0.9, "{genes}: {r}");
    }
    let area: Vec<f64> = bright(&made, 1, 24);
    let square: Vec<f64> = numbers(&made.section, "truth_radius").iter().map(|r| r * r).collect();
    let r = correlation(&area, &square);
    assert!(r > 0.9, "area of the body: {r}");
    let r = correlation(&bright(&made, 2, 120), &numbers(&made.section, "truth_nucleus"));
    assert!(r > 0.5, "bright nuclei: {r}");
}

#[test]
fn genes_know_one_factor_of_the_cell_type_and_the_picture_the_other() {
    let made = synthesize(&spec(1200, 32), 0);
    let (low, high) = (signal(&made.section, "TYPEA0"), signal(&made.section, "TYPEA1"));
    let types = label(&made.section, "cell_type");
    let told = low.iter().zip(&high).zip(&types).filter(|((l, h), t)| (h > l) == matches!(**t, "type_2" | "type_3"));
    assert!(told.count() as f64 > 0.99 * 400.0);
    let stained = bright(&made, 1, 120);
    let body: Vec<f64> = bright(&made, 1, 24);
    let shares = stained.iter().zip(&body).map(|(stained, body)| stained / body);
    let told = shares.zip(&types).filter(|(share, t)| (*share > 0.5) == matches!(**t, "type_1" | "type_3"));
    assert!(told.count() as f64 > 0.9 * 400.0, "the stain is seen");
    for gene in 0..N_GENES as u32 {
        let mut counts = vec![0.0; made.section.n_obs()];
        for (i, count) in counts.iter_mut().enumerate() {
            let (genes, values) = made.section.counts.row(i);
            *count = genes.binary_search(&gene).map_or(0.0, |at| f64::from(values[at]));
        }
        // b within a: cell types of one a differ in b alone
        for a in [["type_0", "type_1"], ["type_2", "type_3"]] {
            let of: Vec<usize> = (0..types.len()).filter(|&i| a.contains(&types[i])).collect();
            let b: Vec<f64> = of.iter().map(|&i| f64::from(u8::from(types[i] == a[1]))).collect();
            let r = correlation(&of.iter().map(|&i| counts[i]).collect::<Vec<_>>(), &b);
            // independent at n of about 200: standard error .07; 128 looks
            assert!(r.abs() < 0.28, "gene {gene} tells b: {r}");
        }
    }
}

#[test]
fn one_cell_says_little_of_its_niche_and_the_mix_says_it() {
    let made = synthesize(&CellsSpec { n_sections: 1, ..spec(4096, 8) }, 0);
    let (types, niches) = (label(&made.section, "cell_type"), label(&made.section, "niche_type"));
    // the best guess from a cell's own type
    let mut table = std::collections::BTreeMap::<(&str, &str), usize>::new();
    types.iter().zip(&niches).for_each(|(t, n)| *table.entry((t, n)).or_default() += 1);
    let best = |t: &str| table.iter().filter(|((u, _), _)| *u == t).map(|(_, n)| *n).max().unwrap_or(0);
    let own: usize = ["type_0", "type_1", "type_2", "type_3"].map(best).iter().sum();
    assert!((own as f64) < 0.5 * 4096.0, "{own} of 4096 from one cell");
    // the best guess from the 16 types of a niche
    let across = 64;
    let mut right = 0;
    for (row, column) in (0..16).flat_map(|r| (0..16).map(move |c| (r * 4, c * 4))) {
        let cells: Vec<usize> = (0..16).map(|k| (row + k / 4) * across + column + k % 4).collect();
        let common = |niche: usize| {
            let named = [format!("type_{niche}"), format!("type_{}", (niche + 1) % 4)];
            cells.iter().filter(|&&i| named.iter().any(|n| n == types[i])).count()
        };
        let guess = (0..4).max_by_key(|&niche| common(niche)).unwrap();
        right += usize::from(niches[cells[0]] == format!("niche_{guess}"));
    }
    assert!(right >= 230, "{right} of 256 niches from their mix");
}
