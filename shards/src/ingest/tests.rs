//! Stories of the readers: what real files give, what bad ones get, and that damage never takes the process down.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::h5ad_write::{AnnData, Raw, Uns, Values, X, write};
use super::*;
use crate::processed::Matrix;
use crate::section::Csr;

/// A file of the shared data; `None` (said aloud) when the data is not here.
fn real(relative: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(relative);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("SYNCYTIA_REQUIRE_ALL").as_deref() != Ok("1"), "{relative} is absent and all is required");
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {relative} is absent");
    None
}

fn read(path: &Path) -> Result<Section, IngestError> {
    read_section(path, &IngestOptions::default())
}

fn names(prefix: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{prefix}{i}")).collect()
}

/// Three spots, two genes: the smallest section.
fn small() -> AnnData {
    AnnData {
        obs_names: names("spot", 3),
        obs: vec![("layer".into(), Values::Categorical(vec![Some("L2".into()), None, Some("L1".into())]))],
        var_names: names("gene", 2),
        x: Some(X::Sparse(Csr {
            n_cols: 2,
            indptr: vec![0, 1, 1, 3],
            indices: vec![1, 0, 1],
            values: vec![3., 1., 2.],
        })),
        obsm: BTreeMap::from([("spatial".into(), Matrix { n_cols: 2, values: vec![0., 1., 2., 3., 4., 5.] })]),
        ..AnnData::default()
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn h5ad(&self, adata: &AnnData) -> PathBuf {
        let path = self.0.path().join("small.h5ad");
        write(&path, adata).unwrap();
        path
    }
}

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

/// The fixture with every occurrence of the u64 numbers `old` replaced: it has no checksums, so the lie is believed.
fn patched(folder: &Folder, old: &[u64], new: &[u64]) -> PathBuf {
    let bytes = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let (old, new) = (bytes(old), bytes(new));
    let mut file = include_bytes!("fixtures/zstd_lz4.h5ad").to_vec();
    let places: Vec<usize> = (0..file.len() - old.len()).filter(|&i| file[i..].starts_with(&old)).collect();
    assert!(!places.is_empty());
    for i in places {
        file[i..i + new.len()].copy_from_slice(&new);
    }
    let path = folder.0.path().join("patched.h5ad");
    std::fs::write(&path, file).unwrap();
    path
}

#[test]
fn a_shape_that_cannot_be_in_the_file_is_refused_before_it_is_read() {
    let folder = Folder::new();
    let error = read(&patched(&folder, &[40, 2], &[1 << 50, 2])).unwrap_err();
    let IngestError::Damaged { node, fact, .. } = &error else { panic!("{error}") };
    assert!(node == "obsm/spatial" && fact.contains("cannot be in a file"), "{error}");
    let error = read(&patched(&folder, &[40, 12], &[40, 1 << 31])).unwrap_err();
    assert!(matches!(&error, IngestError::Length { node, expected: 12, .. } if node == "X"), "{error}");
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
fn windows_of_csr_csc_and_dense_are_the_rows_of_the_whole() {
    let mut same: Option<Csr> = None;
    for name in ["csr_f32_gzip", "csr_i64_idx64", "csc_f32_lzf", "dense_f32_none"] {
        for version in ["0.8.0", "0.12.19"] {
            let Some(path) = real(&format!("h5ad-generated/{name}_anndata{version}.h5ad")) else { return };
            let h5 = H5File::open(&path).unwrap();
            let matrix = CountsWindow::open(&h5, "X", 60, 40).unwrap();
            let whole = matrix.all().unwrap();
            assert!(whole.values.len() > 1000, "{name} is not empty");
            if name != "csr_i64_idx64" {
                let csr = whole.clone().into_csr();
                assert_eq!(&csr, same.get_or_insert(csr.clone()), "{name} {version} holds the same X");
            }
            for (start, n) in [(0, 7), (13, 20), (59, 5)] {
                let window = matrix.rows(start, n).unwrap();
                let end = (start + n).min(60);
                let span = whole.indptr[start]..whole.indptr[end];
                assert_eq!(window.indptr.len(), end - start + 1, "{name}");
                assert_eq!(window.indices, whole.indices[span.clone()], "{name}");
                assert_eq!(window.values, whole.values[span], "{name}");
            }
        }
    }
}

#[test]
fn every_storage_of_the_same_cells_gives_the_same_counts() {
    let options = IngestOptions { counts: CountsFrom::Layer("counts".into()), ..IngestOptions::default() };
    let mut seen: Vec<Section> = Vec::new();
    for name in ["csr_f32_gzip", "csc_f32_lzf", "dense_f32_none", "nullable_f64", "noX"] {
        for version in ["0.8.0", "0.12.19"] {
            let Some(path) = real(&format!("h5ad-generated/{name}_anndata{version}.h5ad")) else { return };
            let section = read_section(&path, &options).unwrap_or_else(|e| panic!("{name} {version}: {e}"));
            assert_eq!((section.n_obs(), section.genes.len()), (60, 40));
            assert_eq!(section.library_id, "lib");
            assert!(section.image.is_some());
            if let Some(first) = seen.first() {
                assert_eq!(section.counts, first.counts, "{name} {version}");
                assert_eq!(section.xy, first.xy);
                assert_eq!(section.labels[..3], first.labels[..3], "categories with and without missing values");
            }
            seen.push(section);
        }
    }
}

#[test]
fn dlpfc_is_read_as_its_readme_says() {
    let Some(path) = real("visium-human-dlpfc-151673/151673_counts_5000genes.h5ad") else { return };
    let section = read(&path).unwrap();
    assert_eq!(section.library_id, "151673");
    assert_eq!((section.n_obs(), section.genes.len(), section.counts.values.len()), (3639, 5000, 2_396_621));
    assert_eq!(section.array_row_col.as_ref().unwrap().len(), 3639);
    assert_eq!(section.labels.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["layer_guess"]);
    // 138.0 pixels between neighbours of a row, which are 100 µm apart; rounding of pixels is below 0.5 %.
    assert!((section.um_per_unit.unwrap() - 0.7246).abs() < 0.004, "{:?}", section.um_per_unit);
    let image = section.image.unwrap();
    let picture = image::load_from_memory(&image.encoded).unwrap();
    assert_eq!((picture.width(), picture.height()), (600, 600));
    assert!(section.xy.iter().all(|p| p[0] * image.scale < 600.0 && p[1] * image.scale < 600.0));
}

#[test]
fn files_of_many_anndata_versions_are_read_or_refused_in_words() {
    let options = |key: &str, counts, declared_counts| IngestOptions {
        spatial_key: key.into(),
        counts,
        declared_counts,
        ..IngestOptions::default()
    };
    for (file, options, n_obs, n_genes) in [
        ("squidpy_test_data_v0.7.h5ad", options("spatial", CountsFrom::Auto, false), 49, 1999),
        ("squidpy_test_data_v0.8plus.h5ad", options("spatial", CountsFrom::Auto, false), 0, 0),
        ("anndata_archives/v0.7.0/adata.h5ad", options("array", CountsFrom::Raw, false), 30, 40),
        ("cellxgene_1e4dfec4.h5ad", options("X_awesome_embedding", CountsFrom::X, false), 3, 4),
        ("pbmc_5k_protein_v3.h5ad", options("protein_expression", CountsFrom::X, false), 200, 16581),
    ] {
        let Some(path) = real(&format!("h5ad-variants/{file}")) else { return };
        let section = read_section(&path, &options).unwrap_or_else(|e| panic!("{e}"));
        if n_obs > 0 {
            assert_eq!((section.n_obs(), section.genes.len()), (n_obs, n_genes), "{file}");
        }
        assert!(!section.counts.values.is_empty(), "{file}");
    }
    let old = real("h5ad-variants/anndata_archives/v0.5.0/adata.h5ad").unwrap();
    let error = read(&old).unwrap_err().to_string();
    assert!(error.contains("anndata up to 0.6") && error.contains("write it again"), "{error}");
    let scaled = real("h5ad-variants/brainlarge_dataset_test.h5ad").unwrap();
    assert!(read(&scaled).is_err(), "no coordinates");
}

#[test]
fn muscle_is_read_from_its_outs_folder() {
    let Some(path) = real("visium-mouse-muscle-Vis5A_2dpi/outs") else { return };
    let section = read(&path).unwrap();
    assert_eq!((section.library_id.as_str(), section.format), ("Vis5A", "space_ranger"));
    assert_eq!((section.n_obs(), section.genes.len(), section.counts.values.len()), (982, 33217, 1_577_980));
    assert!(
        section.notes.iter().any(|n| n == "4010 of 4992 positions are not in the matrix (outside tissue or filtered)")
    );
    // 277.0 pixels for 100 µm; pixel positions are rounded to whole numbers.
    assert!((section.um_per_unit.unwrap() - 0.3610).abs() < 0.002, "{:?}", section.um_per_unit);
    let text = std::fs::read_to_string(path.join("spatial/tissue_positions_list.csv")).unwrap();
    let line = text.lines().find(|l| l.starts_with(&section.obs_ids[0])).unwrap();
    let [row, column] = [4, 5].map(|k| line.split(',').nth(k).unwrap().parse::<f64>().unwrap());
    assert_eq!(section.xy[0], [column, row], "x is the pixel column");
    let mut depth = section.counts.row_sums();
    depth.sort_by(f64::total_cmp);
    assert_eq!((depth[490] + depth[491]) / 2.0, 4903.0, "median UMI of the README");
    assert_eq!(read(path.parent().unwrap()).unwrap(), Section { source: path.parent().unwrap().into(), ..section });
    let alone = read(&path.join("Vis5A_filtered_feature_bc_matrix.h5")).unwrap_err();
    assert!(alone.to_string().contains("spatial/tissue_positions.csv"), "{alone}");
}

#[test]
fn a_slide_written_and_read_again_is_the_same_slide() {
    let Some(path) = real("visium-mouse-muscle-Vis5A_2dpi/outs") else { return };
    let slide = read(&path).unwrap();
    let folder = Folder::new();
    let again = read(&folder.h5ad(&AnnData::from_section(&slide))).unwrap();
    let pixels = |s: &Section| image::load_from_memory(&s.image.as_ref().unwrap().encoded).unwrap().to_rgb8();
    assert_eq!(pixels(&again), pixels(&slide));
    assert_eq!(again.image.as_ref().unwrap().scale, slide.image.as_ref().unwrap().scale);
    let Section { source, format, image, notes, .. } = again.clone();
    assert_eq!(again, Section { source, format, image, notes, ..slide });
}

#[test]
fn the_shipped_section_is_small_and_whole() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/vis5a_cut.h5ad");
    assert!(std::fs::metadata(&path).unwrap().len() <= 1_000_000);
    let section = read(&path).unwrap();
    assert_eq!((section.library_id.as_str(), section.n_obs()), ("Vis5A", 982));
    // The cumulative rule at 0.7 keeps 566 genes of the whole section; the cut must not be what ends it.
    let mut n_spots = vec![0usize; section.genes.len()];
    section.counts.indices.iter().for_each(|&g| n_spots[g as usize] += 1);
    n_spots.sort_by(|a, b| b.cmp(a));
    let mut sum = 0.0;
    let mean = |(k, &n): (usize, &usize)| {
        sum += n as f64 / 982.0;
        sum / (k + 1) as f64
    };
    let kept = n_spots.iter().enumerate().map(mean).filter(|&m| m >= 0.7).count();
    assert!(kept < section.genes.len() && kept == 566, "{kept} of {}", section.genes.len());
    assert!(section.image.is_some() && section.um_per_unit.is_some());
}

#[test]
fn zstd_and_lz4_are_read_by_the_fallback_and_blosc_is_refused_in_words() {
    // 40 × 12 Poisson counts written with h5py 3.16 and hdf5plugin: X.data zstd, X.indices LZ4, X.indptr shuffle and
    // zstd; the same matrix dense in a layer (uint16, zstd); another layer in Blosc.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ingest/fixtures/zstd_lz4.h5ad");
    let sparse = read(&path).unwrap();
    let layer = |name: &str| IngestOptions { counts: CountsFrom::Layer(name.into()), ..IngestOptions::default() };
    let dense = read_section(&path, &layer("dense")).unwrap();
    assert_eq!(sparse.counts, dense.counts);
    assert_eq!(sparse.counts.values.len(), 307);
    assert_eq!(sparse.counts.values.iter().sum::<f32>(), 496.0);
    assert_eq!(sparse.labels[0].values[..4], ["true", "false", "false", "true"].map(|b| Some(b.to_owned())));
    let h5 = H5File::open(&path).unwrap();
    let window = CountsWindow::open(&h5, "layers/dense", 40, 12).unwrap().rows(17, 3).unwrap().into_csr();
    assert_eq!(window, dense.counts.select_rows(&[17, 18, 19]));
    let error = read_section(&path, &layer("blosc")).unwrap_err().to_string();
    assert!(error.contains("filter 32001") && error.contains("gzip"), "{error}");
}

#[test]
fn damaged_zstd_files_are_errors_and_never_the_end_of_the_process() {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ingest/fixtures/zstd_lz4.h5ad");
    let folder = Folder::new();
    let damaged = folder.0.path().join("damaged.h5ad");
    survive(&std::fs::read(whole).unwrap(), &damaged, 360, |p| read(p).is_ok());
}

/// A copy of scanpy's small Visium section whose files a test may change.
fn visium_copy() -> Option<(Folder, PathBuf)> {
    let from = real("tenx-format-samples/scanpy_visium_data/1.0.0")?;
    let folder = Folder::new();
    let to = folder.0.path().join("outs");
    std::fs::create_dir_all(to.join("spatial")).unwrap();
    for file in [
        "filtered_feature_bc_matrix.h5",
        "spatial/scalefactors_json.json",
        "spatial/tissue_positions_list.csv",
        "spatial/tissue_lowres_image.png",
    ] {
        std::fs::write(to.join(file), std::fs::read(from.join(file)).unwrap()).unwrap();
    }
    Some((folder, to))
}

#[test]
fn a_header_in_the_positions_changes_nothing() {
    let Some((_folder, outs)) = visium_copy() else { return };
    let headerless = read(&outs).unwrap();
    let text = std::fs::read_to_string(outs.join("spatial/tissue_positions_list.csv")).unwrap();
    std::fs::remove_file(outs.join("spatial/tissue_positions_list.csv")).unwrap();
    let header = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n";
    std::fs::write(outs.join("spatial/tissue_positions.csv"), format!("{header}{text}")).unwrap();
    assert_eq!(read(&outs).unwrap(), headerless);
}

#[test]
fn positions_that_match_no_barcode_and_broken_lines_are_refused() {
    let Some((_folder, outs)) = visium_copy() else { return };
    let file = outs.join("spatial/tissue_positions_list.csv");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("-1,", "-2,")).unwrap();
    let error = read(&outs).unwrap_err();
    assert!(matches!(&error, IngestError::UnplacedBarcodes { n, n_obs, .. } if n == n_obs), "{error}");
    std::fs::write(&file, format!("{text}AAAC-1,1,2\n")).unwrap();
    let n_lines = text.lines().count() as u64;
    assert!(matches!(read(&outs), Err(IngestError::Text { line, .. }) if line == n_lines + 1));
    std::fs::remove_file(&file).unwrap();
    assert!(read(&outs).unwrap_err().to_string().contains("tissue_positions.csv"));
}

#[test]
fn ten_x_matrices_of_all_ages_are_described() {
    for (file, n_obs, n_vars) in [
        ("scanpy_10x_data/1.2.0/filtered_gene_bc_matrices_h5.h5", 12, 343),
        ("scanpy_10x_data/3.0.0/filtered_feature_bc_matrix.h5", 1107, 507),
    ] {
        let Some(path) = real(&format!("tenx-format-samples/{file}")) else { return };
        let description = describe(&path).unwrap();
        assert_eq!(
            (description.n_obs, description.n_vars, description.format),
            (n_obs, n_vars, "tenx_matrix"),
            "{file}"
        );
        assert!(description.matrices[0].is_counts);
    }
    let two = real("tenx-format-samples/scanpy_10x_data/1.2.0/multiple_genomes.h5").unwrap();
    assert!(describe(&two).unwrap_err().to_string().contains("holds 2 matrices"));
}

/// Damages copies of `whole` with a fixed seed; each must be read or refused, never take the process down.
fn survive(whole: &[u8], path: &Path, n: usize, read: impl Fn(&Path) -> bool) {
    let mut rng = ChaCha8Rng::seed_from_u64(20_261_121);
    let mut n_refused = 0;
    for i in 0..n {
        let mut bytes = whole.to_vec();
        if i % 3 == 0 {
            bytes.truncate((i * whole.len() / n).max(1));
        } else {
            for _ in 0..rng.random_range(1..=6) {
                // Half of the hits go to the first part, where headers and shapes lie thickest.
                let limit = if rng.random_bool(0.5) { whole.len() } else { whole.len().min(40_000) };
                let at = rng.random_range(0..limit);
                bytes[at] = rng.random();
            }
        }
        std::fs::write(path, &bytes).unwrap();
        n_refused += usize::from(!read(path));
    }
    assert!(n_refused >= n / 3, "every truncated copy must be refused; {n_refused} of {n} were");
}

#[test]
fn damaged_h5ad_files_are_errors_and_never_the_end_of_the_process() {
    let Some(path) = real("h5ad-generated/nullable_f64_anndata0.12.19.h5ad") else { return };
    let folder = Folder::new();
    let damaged = folder.0.path().join("damaged.h5ad");
    survive(&std::fs::read(path).unwrap(), &damaged, 360, |p| describe(p).is_ok() & read(p).is_ok());
}

#[test]
fn damaged_10x_files_are_errors_and_never_the_end_of_the_process() {
    let Some((_folder, outs)) = visium_copy() else { return };
    let matrix = outs.join("filtered_feature_bc_matrix.h5");
    survive(&std::fs::read(&matrix).unwrap(), &matrix, 360, |_| describe(&matrix).is_ok() & read(&outs).is_ok());
}
