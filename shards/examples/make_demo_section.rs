//! Makes `shards/data/vis5a_cut.h5ad`, the section shipped with the project, from the Space Ranger folder of Vis5A.
//!
//! `cargo run --release -p syncytia-shards --example make_demo_section -- OUTS_FOLDER OUTPUT.h5ad`
//!
//! All spots stay. Of the genes stay the `N_GENES` with a count in the most spots (ties by id), in the order of the
//! matrix: the highest number of hundreds with which the file is below 1 MB. The picture is scaled to 200 pixels.

use std::io::Cursor;
use std::path::PathBuf;

use syncytia_shards::ingest::h5ad_write::{self, AnnData};
use syncytia_shards::ingest::{IngestOptions, read_section};
use syncytia_shards::section::TissueImage;

const N_GENES: usize = 800;
const PICTURE_PX: u32 = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(outs), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: make_demo_section OUTS_FOLDER OUTPUT.h5ad".into());
    };
    let mut section = read_section(&outs, &IngestOptions::default())?;

    let mut n_spots = vec![0u32; section.genes.len()];
    section.counts.indices.iter().for_each(|&gene| n_spots[gene as usize] += 1);
    let mut genes: Vec<u32> = (0..section.genes.len() as u32).collect();
    genes.sort_by_key(|&g| (std::cmp::Reverse(n_spots[g as usize]), section.genes[g as usize].id.clone()));
    genes.truncate(N_GENES);
    genes.sort_unstable();
    section.counts = section.counts.select_columns(&genes);
    section.genes = genes.iter().map(|&g| section.genes[g as usize].clone()).collect();

    if let Some(image) = &mut section.image {
        let picture = image::load_from_memory(&image.encoded)?;
        let small = picture.resize(PICTURE_PX, PICTURE_PX, image::imageops::FilterType::Triangle);
        let scale = image.scale * f64::from(small.width()) / f64::from(picture.width());
        let mut encoded = Cursor::new(Vec::new());
        small.to_rgb8().write_to(&mut encoded, image::ImageFormat::Png)?;
        *image = TissueImage { encoded: encoded.into_inner(), scale };
    }
    h5ad_write::write(&output, &AnnData::from_section(&section))?;
    let bytes = std::fs::metadata(&output)?.len();
    eprintln!("{} observations × {} genes, {bytes} bytes", section.n_obs(), section.genes.len());
    Ok(())
}
