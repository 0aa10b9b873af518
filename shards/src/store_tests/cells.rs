//! Stories of cells: counts without layers, pictures cut while writing, niches that no row group parts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::snapshot;
use crate::error::StoreError;
use crate::ingest::OnBadCell;
use crate::manifest::Manifest;
use crate::pictures::{PictureFile, Pictures, Source};
use crate::process::{FilterConfig, NicheKind, ProcessConfig, SplitConfig, SplitKind, fixture, process};
use crate::processed::{Processed, Split};
use crate::reader::Shards;
use crate::row_group::Columns;
use crate::section::{ObsLabels, Section};
use crate::tables::vectors::{Vectors, VectorsOf, VectorsWriter};
use crate::verify::verify;
use crate::writer::{WriteOptions, write};

const SIDE: u32 = 400;

/// 120 cells on 400 × 400 pixels of .5 µm, each pixel's value a function of its place.
fn section(dir: &Path, name: &str) -> Section {
    let picture = dir.join(format!("{name}.png"));
    image::GrayImage::from_fn(SIDE, SIDE, |x, y| image::Luma([value(y, x)])).save(&picture).unwrap();
    let rows: Vec<Vec<f32>> = (0..120u32).map(|i| (0..5).map(|g| ((i * 7 + g * 3) % 4) as f32).collect()).collect();
    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let mut section = fixture::section(name, &["A", "B", "C", "D", "E"], &rows);
    // native units are µm; the first cells lie at a corner, so that their pictures reach over the border
    section.xy = (0..120u32).map(|i| [f64::from(i * 37 % 191) + 2.0, f64::from(i * 61 % 197) + 1.5]).collect();
    section.um_per_unit = Some(1.0);
    section.labels = vec![ObsLabels { name: "type".into(), values: vec![Some("T".into()); 120] }];
    let source = Source::Picture(PictureFile::inspect(&picture).unwrap());
    section.pictures = Some(Pictures { source, origin: [0.0, 0.0], units_per_pixel: 0.5 });
    section
}

fn value(row: u32, column: u32) -> u8 {
    if row < SIDE && column < SIDE { (1 + (row * 31 + column * 7) % 250) as u8 } else { 0 }
}

fn cells_config() -> (FilterConfig, ProcessConfig) {
    let filter = FilterConfig {
        cell_min: 0.0,
        gene_min: 0.0,
        gene_min_obs: 3,
        real_data_percentage: 0.0,
        ..FilterConfig::default()
    };
    let config = ProcessConfig {
        layers: Vec::new(),
        n_neighbours: 0,
        crop_px: Some(16),
        niches: NicheKind::Grid,
        niche_um: 25.0,
        tissue_um: 100.0,
        ..ProcessConfig::default()
    };
    (filter, config)
}

fn processed(dir: &Path, change: impl FnOnce(&mut ProcessConfig)) -> Processed {
    let (filter, mut config) = cells_config();
    change(&mut config);
    let split = SplitConfig { kind: Some(SplitKind::Section), val: vec!["b".into()], ..SplitConfig::default() };
    process(vec![section(dir, "a"), section(dir, "b")], &filter, &config, &split).unwrap()
}

fn written(dir: &Path, processed: &Processed) -> Shards {
    let options = WriteOptions { row_group_records: 24, row_groups_per_file: 2, jobs: 2, ..WriteOptions::default() };
    write(processed, "", &dir.join("shards"), &options).unwrap();
    Shards::open(&dir.join("shards")).unwrap()
}

fn expected(at: [f64; 2], side: i64) -> Vec<u8> {
    let first = |v: f64| (v / 0.5 - side as f64 / 2.0).round() as i64;
    let (row, column) = (first(at[1]), first(at[0]));
    let pixel = |k: i64| match (u32::try_from(row + k / side), u32::try_from(column + k % side)) {
        (Ok(row), Ok(column)) => value(row, column),
        _ => 0,
    };
    (0..side * side).map(pixel).collect()
}

#[test]
fn every_record_has_the_picture_around_its_place_and_its_counts() {
    let dir = tempfile::tempdir().unwrap();
    let processed = processed(dir.path(), |_| ());
    let padded: Vec<&str> =
        processed.ledger.entries.iter().map(|e| e.reason.as_str()).filter(|r| r.contains("padded with 0")).collect();
    assert_eq!(padded.len(), 2, "counted in both sections: {padded:?}");
    let shards = written(dir.path(), &processed);
    verify(shards.dir()).unwrap();
    let facts = shards.manifest().crops.clone().unwrap();
    assert_eq!((facts.channels, facts.encoding.as_str()), (vec!["gray".to_owned()], "raw"));
    let mut n = 0;
    for split in [Split::Train, Split::Val] {
        for entry in shards.row_groups(split) {
            let group = shards.read_row_group(entry, &shards.all_columns()).unwrap();
            assert_eq!(group.image(0).unwrap().um_per_pixel, Some(0.5));
            for row in 0..group.n_own {
                let image = group.image(row).unwrap();
                assert_eq!((image.height, image.width, image.channels), (16, 16, 1));
                assert_eq!(image.bytes, expected(group.xy[row], 16), "at {:?}", group.xy[row]);
                assert_eq!(group.labels[0].values[row].as_deref(), Some("T"));
                n += 1;
            }
            assert_eq!(group.counts.as_ref().unwrap().n_cols, 5);
            let bare = shards.read_row_group(entry, &Columns::default()).unwrap();
            assert_eq!((bare.image(0), &bare.counts, bare.niches.len()), (None, &None, group.n_rows()));
        }
    }
    assert_eq!(n, shards.manifest().n_records(Split::Train) + shards.manifest().n_records(Split::Val));
    let piece = shards.read_piece(0, Split::Train).unwrap();
    assert_eq!((piece.layers.len(), piece.measured.n_cols, piece.neighbours.n_cols), (0, 0, 0));
}

#[test]
fn the_same_files_come_of_any_number_of_jobs_and_a_changed_image_is_other_data() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options =
        |jobs| WriteOptions { row_group_records: 24, row_groups_per_file: 1, jobs, ..WriteOptions::default() };
    let first = processed(one.path(), |_| ());
    let write_in = |dir: &Path, processed: &Processed, jobs| -> Manifest {
        write(processed, "", &dir.join("shards"), &options(jobs)).unwrap()
    };
    let a = write_in(one.path(), &first, 1);
    let b = write_in(two.path(), &first, 4);
    assert_eq!(a.data_hash(), b.data_hash());
    assert_eq!(snapshot(&one.path().join("shards")), snapshot(&two.path().join("shards")));
    let mut other = first.clone();
    let crops = other.sections[0].crops.as_mut().unwrap();
    let Source::Picture(file) = &mut crops.pictures.source else { panic!("one picture") };
    file.blake3 = "another".into();
    let three = tempfile::tempdir().unwrap();
    assert_ne!(write_in(three.path(), &other, 1).input_hash, a.input_hash);
}

#[test]
fn a_niche_holds_the_cells_of_its_square_and_lies_in_one_row_group() {
    let dir = tempfile::tempdir().unwrap();
    let shards = written(dir.path(), &processed(dir.path(), |_| ()));
    for split in [Split::Train, Split::Val] {
        let (niches, tissues) = (shards.niches(split).unwrap(), shards.tissues(split).unwrap());
        let mut place = BTreeMap::new(); // record id: row group, place, niche, counts
        for (k, entry) in shards.row_groups(split).iter().enumerate() {
            let group = shards.read_row_group(entry, &shards.all_columns()).unwrap();
            let counts = group.counts.as_ref().unwrap();
            for row in 0..group.n_own {
                let sum: f32 = counts.row(row).1.iter().sum();
                place.insert(group.record_ids[row], (k, group.xy[row], group.niches[row], sum));
            }
        }
        assert_eq!(niches.members.len(), place.len(), "every cell is in one niche");
        for i in 0..niches.n_niches() {
            let (members, offsets) = niches.members(i);
            let groups: BTreeSet<usize> = members.iter().map(|id| place[id].0).collect();
            assert_eq!(groups.len(), 1, "niche {i} is cut");
            let mut nearest = 0.0;
            for (id, offset) in members.iter().zip(offsets) {
                let (_, xy, niche, _) = place[id];
                assert_eq!(niche, Some(niches.niche_ids[i]));
                let [cx, cy] = niches.centre_um[i];
                assert!((xy[0] - cx).abs() <= 12.5 && (xy[1] - cy).abs() <= 12.5);
                assert_eq!(*offset, [(xy[0] - cx) as f32, (xy[1] - cy) as f32]);
                let distance = (xy[0] - cx).powi(2) + (xy[1] - cy).powi(2);
                assert!(distance >= nearest, "nearest first");
                nearest = distance;
            }
            let sum: f32 = niches.counts.row(i).1.iter().sum();
            assert_eq!(sum, members.iter().map(|id| place[id].3).sum::<f32>());
        }
        let of_tissues: Vec<u64> = tissues.niches.clone();
        assert_eq!(of_tissues, niches.niche_ids, "tissues name every niche in stored order");
        for i in 0..tissues.n_tissues() {
            for (id, offset) in std::iter::zip(tissues.niches(i).0, tissues.niches(i).1) {
                let at = niches.niche_ids.iter().position(|n| n == id).unwrap();
                assert_eq!(niches.tissue_ids[at], tissues.tissue_ids[i]);
                assert!(offset.iter().all(|d| d.abs() <= 50.0));
            }
        }
    }
}

#[test]
fn niches_of_the_nearest_overlap_and_begin_with_their_own_cell() {
    let dir = tempfile::tempdir().unwrap();
    let nearest = |c: &mut ProcessConfig| (c.niches, c.niche_cells) = (NicheKind::Nearest, 7);
    let shards = written(dir.path(), &processed(dir.path(), nearest));
    verify(shards.dir()).unwrap();
    let niches = shards.niches(Split::Train).unwrap();
    assert_eq!(niches.n_niches() as u64, shards.manifest().n_records(Split::Train));
    for i in 0..niches.n_niches() {
        let (members, offsets) = niches.members(i);
        assert_eq!((members[0], members.len(), offsets[0]), (niches.niche_ids[i], 7, [0.0; 2]));
    }
}

#[test]
fn small_niches_are_no_niches_but_their_cells_stay() {
    let dir = tempfile::tempdir().unwrap();
    let processed = processed(dir.path(), |c| c.niche_min_cells = 3);
    let shards = written(dir.path(), &processed);
    let niches = shards.niches(Split::Train).unwrap();
    assert!((0..niches.n_niches()).all(|i| niches.members(i).0.len() >= 3));
    let n_records = shards.manifest().n_records(Split::Train);
    assert!((niches.members.len() as u64) < n_records, "some squares hold one or two cells");
    let (filter, mut config) = cells_config();
    config.niche_min_cells = 1000;
    let refused = process(vec![section(dir.path(), "a")], &filter, &config, &SplitConfig::default()).unwrap_err();
    assert!(refused.to_string().contains("niche_min_cells = 1000 leaves no niche"), "{refused}");
}

#[test]
fn a_cell_without_a_picture_stops_or_is_left_out_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (filter, mut config) = cells_config();
    let off = || {
        let mut section = section(dir.path(), "a");
        section.xy[5] = [900.0, 20.0];
        section
    };
    let split = SplitConfig { kind: Some(SplitKind::Section), ..SplitConfig::default() };
    let refused = process(vec![off()], &filter, &config, &split).unwrap_err().to_string();
    assert!(refused.contains("1 cell(s) without a picture, first `a_5`: at pixel row 32, column 1792"), "{refused}");
    assert!(refused.contains("process.on_bad_crop"), "{refused}");
    config.on_bad_crop = OnBadCell::Skip;
    let processed = process(vec![off()], &filter, &config, &split).unwrap();
    let line = processed.ledger.entries.iter().find(|e| e.reason == "no picture").unwrap();
    assert_eq!(line.names, ["a_5"]);
    assert_eq!(processed.summary.observations, 119);
    // x and y in the wrong order: most cells of a wide picture leave it
    let mut swapped = section(dir.path(), "a");
    let wide = dir.path().join("wide.png");
    image::GrayImage::new(400, 40).save(&wide).unwrap();
    let source = Source::Picture(PictureFile::inspect(&wide).unwrap());
    swapped.pictures = Some(Pictures { source, origin: [0.0, 0.0], units_per_pixel: 0.5 });
    swapped.xy = (0..120).map(|i| [10.0, f64::from(i)]).collect();
    let refused = process(vec![swapped], &filter, &config, &split).unwrap_err().to_string();
    assert!(refused.contains("with x and y swapped"), "{refused}");
}

#[test]
fn sections_with_and_without_pictures_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let (filter, config) = cells_config();
    let mut bare = section(dir.path(), "b");
    bare.pictures = None;
    let refused = process(vec![section(dir.path(), "a"), bare], &filter, &config, &SplitConfig::default()).unwrap_err();
    assert!(refused.to_string().contains("section `b` has pictures with channels none, section `a` gray"), "{refused}");
}

#[test]
fn an_image_that_changed_before_the_pictures_were_cut_is_an_error_and_nothing_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let processed = processed(dir.path(), |_| ());
    std::fs::write(dir.path().join("a.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let out = dir.path().join("shards");
    let refused = write(&processed, "", &out, &WriteOptions::default()).unwrap_err();
    assert!(matches!(refused, StoreError::Picture(_)), "{refused}");
    assert!(refused.to_string().contains("a.png"), "{refused}");
    assert!(matches!(Shards::open(&out), Err(StoreError::NotShards { .. })));
}

#[test]
fn shards_without_pictures_or_niches_say_so() {
    let (dir, _) = super::written();
    let shards = Shards::open(&dir.path().join("shards")).unwrap();
    let columns = Columns { images: true, ..Columns::default() };
    let refused = shards.read_row_group(&shards.row_groups(Split::Train)[0], &columns).unwrap_err();
    assert!(refused.to_string().contains("input.images"), "{refused}");
    assert!(shards.niches(Split::Train).unwrap_err().to_string().contains("process.niches"));
}

#[test]
fn niches_that_contradict_their_piece_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let check = |spoil: &dyn Fn(&mut crate::processed::Niches), expected: &str| {
        let mut processed = processed(dir.path(), |_| ());
        spoil(&mut processed.pieces[0].niches);
        let refused = write(&processed, "", &dir.path().join("never"), &WriteOptions::default()).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
        assert!(!dir.path().join("never").exists());
    };
    check(&|n| n.tissues[0].niches[0] = 1 << 40, "names niche 1099511627776");
    check(&|n| n.niches[0].members[0] = 500, "no observation");
    check(&|n| n.units[0].clear(), "every observation once");
}

#[test]
fn vectors_come_back_by_id_and_only_for_their_shards() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("vectors");
    let mut writer = VectorsWriter::create(&out, VectorsOf::Obs, 3, "checkpoint", "data").unwrap();
    writer.push(&[7, 1 << 32], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    writer.push(&[9], &[0.5, 0.25, -1.0]).unwrap();
    assert!(matches!(Vectors::read(&out, VectorsOf::Obs, "data"), Err(StoreError::NotVectors { .. })), "not finished");
    let facts = writer.finish().unwrap();
    assert_eq!((facts.n, facts.width), (3, 3));
    let vectors = Vectors::read(&out, VectorsOf::Obs, "data").unwrap();
    assert_eq!(vectors.get(1 << 32), Some(&[4.0, 5.0, 6.0][..]));
    assert_eq!((vectors.get(8), vectors.ids.as_slice()), (None, &[7, 1 << 32, 9][..]));
    let refused = |of, hash| Vectors::read(&out, of, hash).unwrap_err().to_string();
    assert!(refused(VectorsOf::Obs, "other").contains("vectors of other shards"));
    assert!(refused(VectorsOf::Niche, "data").contains("vectors of records, those of niches"));
    let mut bytes = std::fs::read(out.join("part-00000.parquet")).unwrap();
    bytes[20] ^= 1;
    std::fs::write(out.join("part-00000.parquet"), bytes).unwrap();
    let said = refused(VectorsOf::Obs, "data");
    assert!(said.starts_with(out.to_str().unwrap()) && said.contains("part-00000.parquet"), "{said}");
    assert!(said.contains("syncytia embed") && !said.contains("syncytia shard"), "{said}");
    let mut again = VectorsWriter::create(&dir.path().join("w"), VectorsOf::Obs, 1, "c", "d").unwrap();
    assert!(again.push(&[3], &[f32::NAN]).unwrap_err().to_string().contains("id 3"));
}
