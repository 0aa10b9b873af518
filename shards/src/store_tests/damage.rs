//! Stories of damage: flipped bits, broken rules under sound checksums, foreign manifests.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Int32Array, RecordBatch, StringArray, UInt32Array,
    UInt64Array, new_null_array,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{toy, written};
use crate::error::StoreError;
use crate::manifest::{FileEntry, MANIFEST_FILE, Manifest, RowGroupEntry, SCHEMA_VERSION, Table};
use crate::processed::Split;
use crate::reader::Shards;
use crate::row_group::Columns;
use crate::schema;
use crate::verify::verify;

/// Writes every row group anew as `change` makes it, and signs it: damage that no checksum sees.
fn rewrite(out: &Path, manifest: &mut Manifest, change: &dyn Fn(RecordBatch) -> RecordBatch) {
    let Table { files, row_groups, .. } = &mut manifest.tables[0];
    for (ordinal, file) in files.iter_mut().enumerate() {
        let path = out.join(&file.name);
        let open = || ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap();
        let read = |group| open().with_row_groups(vec![group]).build().unwrap().next().unwrap().unwrap();
        let batches: Vec<RecordBatch> = (0..open().metadata().num_row_groups()).map(|g| change(read(g))).collect();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batches[0].schema(), None).unwrap();
        for batch in batches {
            writer.write(&batch).unwrap();
            writer.flush().unwrap();
        }
        let metadata = writer.close().unwrap();
        let entries = row_groups.iter_mut().filter(|g| g.file as usize == ordinal);
        for (entry, group) in entries.zip(metadata.row_groups()) {
            let ranges: Vec<(u64, u64)> = group.columns().iter().map(|c| c.byte_range()).collect();
            entry.offset = ranges[0].0;
            entry.length = ranges.iter().map(|r| r.1).sum();
            file.footer_offset = entry.offset + entry.length;
            entry.crc32c = crc32c::crc32c(&bytes[entry.offset as usize..file.footer_offset as usize]);
        }
        file.bytes = bytes.len() as u64;
        file.blake3 = blake3::hash(&bytes).to_hex().to_string();
        file.footer_crc32c = crc32c::crc32c(&bytes[file.footer_offset as usize..]);
        fs::write(&path, &bytes).unwrap();
    }
    fs::write(out.join(MANIFEST_FILE), manifest.to_json()).unwrap();
}

#[test]
fn one_flipped_bit_anywhere_is_found_and_named() {
    let (dir, manifest) = written();
    let out = dir.path().join("shards");
    let report = verify(&out).unwrap();
    assert_eq!((report.n_records, report.n_row_groups), (190, manifest.obs().row_groups.len()));
    let mut n_flips = 0;
    for (ordinal, file) in manifest.obs().files.iter().enumerate() {
        let path = out.join(&file.name);
        let sound = fs::read(&path).unwrap();
        for at in (0..sound.len()).step_by(97).chain([0, 3, sound.len() - 1]) {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            let inside = |g: &&RowGroupEntry| {
                g.file as usize == ordinal && (g.offset..g.offset + g.length).contains(&(at as u64))
            };
            let expected = manifest.obs().row_groups.iter().find(inside).map(|g| g.index);
            match verify(&out) {
                Err(StoreError::Damaged { file: named, row_group, .. }) => {
                    assert_eq!((&named, row_group), (&file.name, expected), "byte {at}");
                }
                other => panic!("byte {at} of {}: {other:?}", file.name),
            }
            n_flips += 1;
        }
        fs::write(&path, &sound[..sound.len() - 1]).unwrap();
        let cut = verify(&out).unwrap_err().to_string();
        assert!(cut.contains(&file.name) && cut.contains("bytes long"), "{cut}");
        fs::write(&path, &sound).unwrap();
    }
    assert!(n_flips > 500, "{n_flips}");
    let image = out.join(&manifest.sections[0].image.as_ref().unwrap().file);
    fs::write(&image, b"\x89PNG not looked At").unwrap();
    assert!(verify(&out).unwrap_err().to_string().starts_with("images/00000.png: "));
    fs::remove_file(&image).unwrap();
    let gone = verify(&out).unwrap_err();
    assert!(matches!(&gone, StoreError::File(e) if e.source.kind() == io::ErrorKind::NotFound), "{gone}");
}

#[test]
fn damage_on_the_way_to_a_batch_is_an_error_and_not_data() {
    let (dir, manifest) = written();
    let out = dir.path().join("shards");
    let entry = &manifest.row_groups(Split::Train)[4];
    let path = out.join(&manifest.obs().files[entry.file as usize].name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[entry.offset as usize + entry.length as usize / 2] ^= 0x10;
    fs::write(&path, bytes).unwrap();
    let shards = Shards::open(&out).unwrap();
    for other in shards.row_groups(Split::Train) {
        let read = shards.read_row_group(other, &Columns::default());
        assert_eq!(read.is_ok(), other != entry, "{other:?}");
    }
    let words = shards.read_row_group(entry, &Columns::default()).unwrap_err().to_string();
    assert!(words.starts_with("train-00001.parquet, row group 1: its bytes do not match"), "{words}");
}

#[test]
fn rules_are_checked_even_where_checksums_hold() {
    // A writer with a fault would give its files good checksums: re-sign a damaged index and see the rule speak.
    let (dir, manifest) = written();
    let out = dir.path().join("shards");
    let check = |spoil: &dyn Fn(&mut Manifest), expected: &str| {
        let mut changed = manifest.clone();
        spoil(&mut changed);
        fs::write(out.join(MANIFEST_FILE), changed.to_json()).unwrap();
        let error = verify(&out).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
    };
    let swap = |m: &mut Manifest, a: usize, b: usize| {
        let groups = &mut m.tables[0].row_groups;
        let (first, second) = (groups[a].clone(), groups[b].clone());
        groups[a].section = second.section;
        groups[b].section = first.section;
    };
    check(&|m| swap(m, 0, 5), "is not of section 1");
    check(&|m| m.tables[0].row_groups[0].crc32c ^= 1, "train-00000.parquet, row group 0");
    check(&|m| m.sections[1].library_id = "three".to_owned(), r#"not all of section "three""#);
    check(
        &|m| {
            m.tables[0].row_groups[0].n_own += 1;
            m.tables[0].row_groups[0].n_halo -= 1;
            m.splits[0].n_records += 1;
        },
        "train-00000.parquet, row group 0",
    );
    // the last file listed once more under another name: its records are own twice
    let last = manifest.obs().files.len() - 1;
    let again = "val-00001.parquet";
    fs::copy(out.join(&manifest.obs().files[last].name), out.join(again)).unwrap();
    let list_twice = |m: &mut Manifest| {
        let table = &mut m.tables[0];
        table.files.push(FileEntry { name: again.to_owned(), ..table.files[last].clone() });
        let twice: Vec<_> = table.row_groups.iter().filter(|g| g.file as usize == last).cloned().collect();
        table.row_groups.extend(twice.into_iter().map(|g| RowGroupEntry { file: last as u32 + 1, ..g }));
        m.splits[2].n_records *= 2;
    };
    check(&list_twice, "val-00001.parquet, row group 0: record 108 is also own elsewhere, in split test");
    // the first file not listed: halos of the second name records that nobody owns
    let forget_first = |m: &mut Manifest| {
        let table = &mut m.tables[0];
        table.files.remove(0);
        table.row_groups.retain(|g| g.file > 0);
        table.row_groups.iter_mut().for_each(|g| g.file -= 1);
        m.splits[0].n_records = m.row_groups(Split::Train).iter().map(|g| u64::from(g.n_own)).sum();
    };
    check(&forget_first, "train-00001.parquet, row group 0: halo record");
    check(&|m| m.n_neighbours = 5, "has lists of 6, 5 expected");
    check(&|m| m.tables[0].row_groups[2].length = u64::MAX, "lies outside of it");
    check(&|m| m.tables[0].row_groups[2].length += 1, "lies outside of it");
    check(&|m| m.tables[0].files[0].name = "../train-00000.parquet".to_owned(), "entry of file");
    check(&|m| m.tables[0].files[0].name = "sub/train-00000.parquet".to_owned(), "entry of file");
    check(&|m| m.sections[0].image.as_mut().unwrap().file = "images/../x".to_owned(), "is no image file");
    check(&|m| m.splits[0].n_records += 1, "its row groups");
}

#[test]
fn columns_that_a_reader_does_not_know_may_be_there() {
    let (dir, mut manifest) = written();
    let out = dir.path().join("shards");
    let widen = |batch: RecordBatch| {
        let mut fields = batch.schema().fields().to_vec();
        let mut columns = batch.columns().to_vec();
        for field in [Field::new("morphology", DataType::Float64, true), Field::new("depth", DataType::Int64, true)] {
            columns.push(new_null_array(field.data_type(), batch.num_rows()));
            fields.push(Arc::new(field));
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    };
    rewrite(&out, &mut manifest, &widen);
    verify(&out).unwrap();
    assert_eq!(Shards::open(&out).unwrap().read_piece(0, Split::Val).unwrap(), toy().pieces[1]);
}

#[test]
fn columns_that_break_a_rule_are_found_under_sound_checksums() {
    let check = |column: &str, spoil: &dyn Fn(&ArrayRef) -> ArrayRef, expected: &str| {
        let (dir, mut manifest) = written();
        let out = dir.path().join("shards");
        let change = |batch: RecordBatch| {
            let at = batch.schema().index_of(column).unwrap();
            let mut columns = batch.columns().to_vec();
            columns[at] = spoil(&columns[at]);
            RecordBatch::try_new(batch.schema(), columns).unwrap()
        };
        rewrite(&out, &mut manifest, &change);
        let error = verify(&out).unwrap_err().to_string();
        assert!(error.starts_with("train-00000.parquet, row group 0: "), "{error}");
        assert!(error.contains(expected), "{column}: {error:?} should say {expected:?}");
    };
    let list_of = |list: &ArrayRef, values: ArrayRef| -> ArrayRef {
        let list = list.as_fixed_size_list();
        Arc::new(FixedSizeListArray::new(
            schema::element(values.data_type().clone()),
            list.value_length(),
            values,
            None,
        ))
    };
    check("halo", &|a| Arc::new(BooleanArray::from(vec![false; a.len()])), "rows marked halo are not those");
    check(
        "split",
        &|a| Arc::new(StringArray::from(vec!["val"; a.len()])),
        r#"not all of section "sample/one", split train"#,
    );
    check("section", &|a| Arc::new(UInt32Array::from(vec![1; a.len()])), "records are not all of");
    check("record_id", &|a| Arc::new(UInt64Array::from(vec![3; a.len()])), "own record ids do not ascend");
    let rows = |list: &ArrayRef, of: &dyn Fn(usize) -> i32| -> ArrayRef {
        let n = list.as_fixed_size_list().values().len();
        list_of(list, Arc::new(Int32Array::from_iter_values((0..n).map(of))))
    };
    check("neighbours", &|a| rows(a, &|_| 999), "neighbour 999 is no row of");
    check("neighbours", &|a| rows(a, &|_| -2), "neighbour -2 is no row of");
    check("neighbours", &|a| rows(a, &|i| if i == 0 { -1 } else { 2 }), "a neighbour after padding");
    check("neighbours", &|a| rows(a, &|_| 0), "a halo row has neighbours");
    let nan = |list: &ArrayRef| -> ArrayRef {
        let n = list.as_fixed_size_list().values().len();
        list_of(list, Arc::new(Float32Array::from_iter_values((0..n).map(|i| if i == 8 { f32::NAN } else { 0.0 }))))
    };
    check("layer.log1p", &nan, "layer log1p of record 1 is not finite");
}

#[test]
fn a_newer_or_foreign_manifest_is_refused_in_words() {
    let (dir, manifest) = written();
    let out = dir.path().join("shards");
    let check = |json: String, expected: &str| {
        fs::write(out.join(MANIFEST_FILE), json).unwrap();
        let error = Shards::open(&out).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
    };
    let json = String::from_utf8(manifest.to_json()).unwrap();
    let newer = json.replacen("\"schema_version\": 1", "\"schema_version\": 2, \"of_tomorrow\": {}", 1);
    assert_eq!(SCHEMA_VERSION, 1, "change the line above with the version");
    check(newer, "written by a newer version of syncytia (schema 2, this build reads up to 1)");
    check(json.replacen("\"layers\"", "\"layerz\"", 1), "unknown field `layerz`");
    check(json[..json.len() / 2].to_owned(), "damaged or was edited");
    fs::remove_file(out.join(MANIFEST_FILE)).unwrap();
    assert!(matches!(Shards::open(&out), Err(StoreError::NotShards { .. })));
}
