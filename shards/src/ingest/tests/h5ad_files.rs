//! AnnData that others wrote: real sections, every storage and compression, and files that lie or are damaged.

use super::*;

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

/// The fixture with every occurrence of the u64 numbers `old` replaced: it has no checksums, so the lie is believed.
fn patched(folder: &Folder, old: &[u64], new: &[u64]) -> PathBuf {
    let bytes = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let (old, new) = (bytes(old), bytes(new));
    let mut file = include_bytes!("../fixtures/zstd_lz4.h5ad").to_vec();
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
fn damaged_zstd_files_are_errors_and_never_the_end_of_the_process() {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ingest/fixtures/zstd_lz4.h5ad");
    let folder = Folder::new();
    let damaged = folder.0.path().join("damaged.h5ad");
    survive(&std::fs::read(whole).unwrap(), &damaged, 360, |p| read(p).is_ok());
}

#[test]
fn damaged_h5ad_files_are_errors_and_never_the_end_of_the_process() {
    let Some(path) = real("h5ad-generated/nullable_f64_anndata0.12.19.h5ad") else { return };
    let folder = Folder::new();
    let damaged = folder.0.path().join("damaged.h5ad");
    survive(&std::fs::read(path).unwrap(), &damaged, 360, |p| describe(p).is_ok() & read(p).is_ok());
}
