//! Space Ranger's folders and 10x matrices.

use super::*;

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

#[test]
fn damaged_10x_files_are_errors_and_never_the_end_of_the_process() {
    let Some((_folder, outs)) = visium_copy() else { return };
    let matrix = outs.join("filtered_feature_bc_matrix.h5");
    survive(&std::fs::read(&matrix).unwrap(), &matrix, 360, |_| describe(&matrix).is_ok() & read(&outs).is_ok());
}
