//! Stories of reading: pieces, row groups, columns, the loader, `inspect`.

use std::fs;
use std::sync::Arc;

use super::{N_GENES, toy, written};
use crate::error::StoreError;
use crate::loader::Loader;
use crate::processed::{NO_NEIGHBOUR, Split};
use crate::reader::Shards;
use crate::row_group::Columns;
use crate::schema::NO_ROW;

#[test]
fn every_piece_comes_back_as_it_was() {
    let (dir, manifest) = written();
    let toy = toy();
    let shards = Shards::open(&dir.path().join("shards")).unwrap();
    assert_eq!(shards.manifest(), &manifest);
    assert_eq!((&manifest.panel.selected, &manifest.ledger), (&toy.panel.selected, &toy.ledger));
    for (found, gene) in manifest.panel.genes.iter().zip(&toy.panel.genes) {
        assert_eq!((&found.id, &found.symbol), (&gene.id, &gene.symbol));
        // serde_json reads decimals to within one unit in the last place unless its feature float_roundtrip is on
        let near = |a: f64, b: f64| (a - b).abs() <= b.abs() * f64::EPSILON;
        let pairs =
            [(found.length, gene.length), (found.moran, gene.moran), (Some(found.exp_frac), Some(gene.exp_frac))];
        for (a, b) in pairs {
            assert!(a.is_some() == b.is_some() && near(a.unwrap_or(0.0), b.unwrap_or(0.0)), "{a:?} {b:?}");
        }
    }
    assert_eq!(manifest.panel.genes.len(), N_GENES);
    for piece in &toy.pieces {
        assert_eq!(&shards.read_piece(piece.section, piece.split).unwrap(), piece);
    }
    let missing = shards.read_piece(1, Split::Test).unwrap_err();
    assert!(matches!(missing, StoreError::NoPiece { section: 1, split: "test" }), "{missing}");
    let image = &manifest.sections[0].image.as_ref().unwrap().file;
    assert_eq!(
        fs::read(dir.path().join("shards").join(image)).unwrap(),
        toy.sections[0].image.as_ref().unwrap().encoded
    );
}

#[test]
fn a_row_group_needs_no_other() {
    let (dir, manifest) = written();
    let shards = Shards::open(&dir.path().join("shards")).unwrap();
    let mut n_halo = 0;
    for split in [Split::Train, Split::Val, Split::Test] {
        let mut n_own = 0;
        for entry in shards.row_groups(split) {
            assert!(entry.n_own <= 16 && entry.split == split);
            let group = shards.read_row_group(entry, &shards.all_columns()).unwrap();
            let toy = toy();
            let piece = toy.pieces.iter().find(|p| p.section == entry.section && p.split == split).unwrap();
            for row in 0..group.n_own {
                let position = piece.rows.binary_search(&(group.record_ids[row] as u32)).unwrap();
                let id = |&r: &i32| (r != NO_ROW).then(|| group.record_ids[r as usize]);
                let found: Vec<Option<u64>> = group.neighbours.row(row).iter().map(id).collect();
                let id = |&p: &u32| (p != NO_NEIGHBOUR).then(|| piece.record_id(p as usize));
                let expected: Vec<Option<u64>> = piece.neighbours.row(position).iter().map(id).collect();
                assert_eq!(found, expected, "neighbours of record {}", group.record_ids[row]);
            }
            for row in 0..group.n_rows() {
                let position = piece.rows.binary_search(&(group.record_ids[row] as u32)).unwrap();
                assert_eq!(group.layers["log1p"].row(row), piece.layers["log1p"].row(position), "halo rows too");
            }
            n_own += group.n_own;
            n_halo += entry.n_halo;
        }
        assert_eq!(n_own as u64, manifest.n_records(split));
    }
    assert!(n_halo > 0, "the toy must have halos for this test to say anything");
}

#[test]
fn only_the_columns_asked_for_are_decoded() {
    let (dir, _) = written();
    let shards = Shards::open(&dir.path().join("shards")).unwrap();
    let entry = &shards.row_groups(Split::Train)[1];
    let columns = Columns { layers: vec!["d_log1p".to_owned()], ..Columns::default() };
    let some = shards.read_row_group(entry, &columns).unwrap();
    let all = shards.read_row_group(entry, &shards.all_columns()).unwrap();
    assert!(some.counts.is_none() && some.obs_ids.is_empty() && some.labels.is_empty());
    assert_eq!(some.layers.keys().collect::<Vec<_>>(), ["d_log1p"]);
    assert_eq!(some.layers["d_log1p"], all.layers["d_log1p"]);
    assert_eq!((some.measured, some.neighbours), (all.measured, all.neighbours));
    let columns = Columns { layers: vec!["tpm".to_owned()], ..Columns::default() };
    let error = shards.read_row_group(entry, &columns).unwrap_err().to_string();
    assert_eq!(error, r#"the shards have no layer "tpm"; they have ["d_log1p", "log1p"]"#);
}

#[test]
fn a_small_window_gives_the_same_records() {
    let (dir, manifest) = written();
    let shards = Arc::new(Shards::open(&dir.path().join("shards")).unwrap());
    let all = manifest.decoded_bytes(Split::Train);
    let columns = shards.all_columns();
    let whole = Loader::new(shards.clone(), Split::Train, columns.clone(), all).unwrap();
    let small = Loader::new(shards.clone(), Split::Train, columns.clone(), all - 1).unwrap();
    let none = Loader::new(shards.clone(), Split::Train, columns, 0).unwrap();
    assert_eq!([whole.holds_all(), small.holds_all(), none.holds_all()], [true, false, false]);
    assert_eq!(whole.record_ids().unwrap(), small.record_ids().unwrap());
    let n_groups = shards.row_groups(Split::Train).len() as u32;
    let records: Vec<(u32, u32)> = (0..60).map(|i| ((i * 7) % n_groups, (i * 5) % 12)).collect();
    let expected = whole.batch(records.iter().copied()).unwrap();
    for loader in [&small, &none] {
        let slots = loader.batch(records.iter().copied()).unwrap();
        for ((slot, other), (k, row)) in slots.iter().zip(&expected).zip(&records) {
            assert_eq!((slot.record_id(), &slot.group), (other.record_id(), &other.group));
            assert_eq!(slot.record_id(), whole.record_ids().unwrap()[*k as usize][*row as usize]);
        }
    }
    // kept within the bound: two row groups' worth of memory keeps two, so the third use decodes anew
    let two: u64 = shards.row_groups(Split::Train).iter().map(|g| g.decoded_bytes).max().unwrap() * 2;
    let bounded = Loader::new(shards.clone(), Split::Train, shards.all_columns(), two).unwrap();
    let first = bounded.row_group(0).unwrap();
    bounded.row_group(1).unwrap();
    assert!(Arc::ptr_eq(&first, &bounded.row_group(0).unwrap()), "still kept");
    bounded.row_group(2).unwrap();
    assert!(Arc::ptr_eq(&first, &bounded.row_group(0).unwrap()), "used more recently than 1");
    bounded.row_group(1).unwrap();
    bounded.row_group(2).unwrap();
    assert_eq!(Arc::strong_count(&first), 1, "let go");
    for beyond in [(n_groups, 0), (0, shards.row_groups(Split::Train)[0].n_own)] {
        assert!(matches!(whole.batch([beyond]), Err(StoreError::NoRecord { .. })), "{beyond:?}");
    }
}

#[test]
fn inspect_says_what_is_there() {
    let (_dir, manifest) = written();
    let words = manifest.to_string();
    for expected in [
        "190 in 14 row groups of 5 files",
        "train    130 records, 9 row groups",
        "selected   7: G4 G1 G19 G0 G7 G8 G12",
        "section 0  sample/one from sample/one.h5ad (h5ad): 140 of 150 obs kept, 0.7300 µm per unit, image",
        "dropped    1 gene (all sections): no length",
        "counts     float32, whole numbers; 6 neighbours per record",
    ] {
        assert!(words.contains(expected), "{words}\nshould say {expected:?}");
    }
}
