//! AnnData written here: what the reader gives back, and what it refuses.

use super::*;
use crate::ingest::h5ad_write::{Raw, Uns};

/// Writes `adata` and expects reading it to fail with words that contain each of `expected`.
fn refused(adata: &AnnData, expected: &[&str]) {
    let folder = Folder::new();
    let error = read(&folder.h5ad(adata)).expect_err("must be refused").to_string();
    for words in expected {
        assert!(error.contains(words), "`{words}` not in: {error}");
    }
}

fn with_x(values: [f32; 3]) -> AnnData {
    let mut adata = small();
    if let Some(X::Sparse(m)) = &mut adata.x {
        m.values = values.to_vec();
    }
    adata
}

#[test]
fn a_section_written_is_the_section_read() {
    let folder = Folder::new();
    let section = read(&folder.h5ad(&small())).unwrap();
    assert_eq!(section.library_id, "small");
    assert_eq!(section.obs_ids, names("spot", 3));
    assert_eq!(section.genes[1].id, "gene1");
    assert_eq!(section.counts.row(2), ([0u32, 1].as_slice(), [1f32, 2.].as_slice()));
    assert_eq!(section.counts.row(1).0.len(), 0);
    assert_eq!(section.xy, vec![[0., 1.], [2., 3.], [4., 5.]]);
    assert_eq!(section.labels[0].values, vec![Some("L2".into()), None, Some("L1".into())]);
    assert_eq!(section.um_per_unit, None);
}

#[test]
fn every_encoding_of_the_writer_is_read_back() {
    let mut adata = small();
    adata.var = vec![("gene_ids".into(), Values::Text(vec!["ENSG1".into(), "ENSG2".into()]))];
    adata.obs.push(("n".into(), Values::I64(vec![1, -2, 3])));
    adata.obs.push(("flag".into(), Values::Bool(vec![true, false, true])));
    adata.obs.push(("score".into(), Values::F64(vec![0.5, 1.5, 2.5])));
    adata.obs.push(("text µ".into(), Values::Text(vec!["α".into(), String::new(), "c".into()])));
    let dense = Matrix { n_cols: 2, values: vec![1.0f32, 0.0, 0.5, 0.0, 0.0, 2.0] };
    adata.layers.insert("log1p".into(), X::Dense(dense));
    let Some(X::Sparse(x)) = adata.x.clone() else { unreachable!() };
    adata.raw = Some(Raw { x: x.select_columns(&[1]), var_names: vec!["raw0".into()], var: Vec::new() });
    let spatial = BTreeMap::from([("lib".to_owned(), Uns::Dict(BTreeMap::new()))]);
    adata.uns = BTreeMap::from([
        ("spatial".into(), Uns::Dict(spatial)),
        ("note".into(), Uns::Text("words".into())),
        ("steps".into(), Uns::I64(7)),
    ]);
    let folder = Folder::new();
    let path = folder.h5ad(&adata);
    let section = read(&path).unwrap();
    assert_eq!(section.library_id, "lib", "the single key of uns/spatial");
    assert_eq!((section.genes[1].id.as_str(), section.genes[1].symbol.as_str()), ("ENSG2", "gene1"));
    let labels: Vec<&str> = section.labels.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(labels, ["layer", "flag", "text µ"]);
    assert_eq!(section.labels[1].values[1].as_deref(), Some("false"));
    assert_eq!(section.labels[2].values[0].as_deref(), Some("α"));
    assert!(section.notes.iter().any(|n| n.contains("`score` left out")), "{:?}", section.notes);

    let options = IngestOptions { counts: CountsFrom::Raw, ..IngestOptions::default() };
    let raw = read_section(&path, &options).unwrap();
    assert_eq!((raw.genes[0].id.as_str(), raw.counts.values.as_slice()), ("raw0", [3f32, 2.].as_slice()));

    let description = describe(&path).unwrap();
    let kinds: Vec<(&str, bool)> = description.matrices.iter().map(|m| (m.node.as_str(), m.is_counts)).collect();
    assert_eq!(kinds, [("X", true), ("layers/log1p", false), ("raw/X", true)]);
    assert!(description.to_string().contains("no counts (holds 0.5)"), "{description}");
    let h5 = H5File::open(&path).unwrap();
    assert_eq!(h5.read_strings("uns/note").unwrap(), ["words"]);
    assert_eq!(h5.read_scalar("uns/steps").unwrap(), 7.0);
}

#[test]
fn bad_values_are_refused_with_their_place() {
    refused(&with_x([3., -1., 2.]), &["-1", "spot2", "gene0", "negative", "small.h5ad"]);
    refused(&with_x([3., f32::NAN, 2.]), &["NaN", "spot2", "not a number"]);
    refused(&with_x([f32::INFINITY, 1., 2.]), &["inf", "spot0", "gene1", "infinite"]);
    refused(&with_x([3., 1.5, 2.]), &["no integer counts", "1.5", "input.counts"]);
}

#[test]
fn values_that_are_no_integers_pass_only_where_no_counts_were_declared() {
    let folder = Folder::new();
    let path = folder.h5ad(&with_x([3., 1.5, 2.]));
    let named = IngestOptions { counts: CountsFrom::X, ..IngestOptions::default() };
    assert!(read_section(&path, &named).unwrap_err().to_string().contains("not an integer"));
    let taken = read_section(&path, &IngestOptions { declared_counts: false, ..named }).unwrap();
    assert_eq!(taken.counts.values, [3., 1.5, 2.]);
    assert!(taken.notes[0].starts_with("1 values"), "{:?}", taken.notes);
}

#[test]
fn duplicate_names_and_missing_places_are_refused() {
    let mut twice = small();
    twice.obs_names[2] = "spot0".into();
    refused(&twice, &["1 duplicate observation", "spot0"]);
    let mut twice = small();
    twice.var_names[1] = "gene0".into();
    refused(&twice, &["1 duplicate gene", "gene0"]);
    let mut nowhere = small();
    let places = nowhere.obsm.remove("spatial").unwrap();
    nowhere.obsm.insert("X_umap".into(), places);
    refused(&nowhere, &["no spatial coordinates", "X_umap", "input.spatial_key"]);
    let mut lost = small();
    lost.obsm.get_mut("spatial").unwrap().values[3] = f64::NAN;
    refused(&lost, &["spot1", "not finite"]);
}

#[test]
fn the_same_symbol_under_two_ids_is_no_duplicate() {
    let mut adata = small();
    adata.var_names = vec!["SAME".into(), "SAME".into()];
    adata.var = vec![("gene_ids".into(), Values::Text(vec!["ENSG1".into(), "ENSG2".into()]))];
    let folder = Folder::new();
    assert_eq!(read(&folder.h5ad(&adata)).unwrap().genes[1].symbol, "SAME");
}

#[test]
fn unsorted_and_repeated_entries_are_put_in_order_and_added_up() {
    let mut adata = small();
    let (indptr, indices) = (vec![0, 1, 1, 4], vec![1, 1, 0, 1]);
    adata.x = Some(X::Sparse(Csr { n_cols: 2, indptr, indices, values: vec![3., 2., 1., 5.] }));
    let folder = Folder::new();
    let section = read(&folder.h5ad(&adata)).unwrap();
    assert_eq!(section.counts.row(2), ([0u32, 1].as_slice(), [1f32, 7.].as_slice()));
    assert!(section.notes.iter().any(|n| n.starts_with("1 duplicate entries")), "{:?}", section.notes);
}

#[test]
fn a_section_is_named_by_the_user_the_file_or_its_stem() {
    let folder = Folder::new();
    let path = folder.0.path().join("151673_counts_5000genes.h5ad");
    write(&path, &small()).unwrap();
    assert_eq!(read(&path).unwrap().library_id, "151673");
    let options = IngestOptions { library_id: Some("mine".into()), ..IngestOptions::default() };
    assert_eq!(read_section(&path, &options).unwrap().library_id, "mine");
}

#[test]
fn of_several_sections_in_a_file_one_is_chosen() {
    let mut adata = small();
    let column = |values: [&str; 3]| Values::Categorical(values.map(|v| Some(v.to_owned())).to_vec());
    adata.obs.push(("library_id".into(), column(["a", "b", "b"])));
    adata.obs.push(("donor_id".into(), column(["d", "d", "d"])));
    refused(&adata, &["2 sections (a, b)", "input.library_id"]);
    let folder = Folder::new();
    let options = IngestOptions { library_id: Some("b".into()), ..IngestOptions::default() };
    let section = read_section(&folder.h5ad(&adata), &options).unwrap();
    assert_eq!((section.library_id.as_str(), section.obs_ids.as_slice()), ("b", &names("spot", 3)[1..]));
    assert_eq!((section.xy.as_slice(), section.counts.n_rows()), ([[2., 3.], [4., 5.]].as_slice(), 2));
    assert_eq!(section.labels[0].values, [None, Some("L1".into())]);
    assert_eq!(section.donor_id.as_deref(), Some("d"));

    let slides = ["a", "b"].map(|name| (name.to_owned(), Uns::Dict(BTreeMap::new())));
    let uns = BTreeMap::from([("spatial".to_owned(), Uns::Dict(BTreeMap::from(slides)))]);
    refused(&AnnData { uns: uns.clone(), ..small() }, &["2 sections (a, b)", "cannot be told apart"]);
    let mut one_of_two = AnnData { uns, ..small() };
    one_of_two.obs.push(("library_id".into(), column(["b", "b", "b"])));
    assert_eq!(read(&folder.h5ad(&one_of_two)).unwrap().library_id, "b");
}

#[test]
fn what_is_no_section_says_so() {
    let folder = Folder::new();
    let path = folder.0.path().join("absent.h5ad");
    assert!(matches!(read(&path), Err(IngestError::Missing { .. })));
    let path = folder.0.path().join("text.h5ad");
    std::fs::write(&path, "not at all").unwrap();
    assert!(matches!(read(&path), Err(IngestError::NotHdf5 { .. })));
    assert!(matches!(read(folder.0.path()), Err(IngestError::UnknownFormat { .. })));
    let whole = std::fs::read(folder.h5ad(&small())).unwrap();
    let path = folder.0.path().join("cut.h5ad");
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(read(&path), Err(IngestError::Damaged { .. })), "{:?}", read(&path).err());
}

#[test]
fn a_write_that_fails_leaves_nothing() {
    let folder = Folder::new();
    let mut adata = small();
    adata.obs_names.pop();
    let path = folder.0.path().join("out.h5ad");
    assert!(matches!(write(&path, &adata), Err(IngestError::Length { .. })));
    let nowhere = folder.0.path().join("absent/out.h5ad");
    assert!(matches!(write(&nowhere, &small()), Err(IngestError::Write { .. })));
    assert_eq!(std::fs::read_dir(folder.0.path()).unwrap().count(), 0);
}
