//! The image beside a file of cells: same name, another ending.

use std::path::Path;

use super::error::IngestError;
use crate::pictures::{PictureFile, Pictures, Source};

const ENDINGS: [&str; 5] = ["tif", "tiff", "png", "jpg", "jpeg"];

/// The image beside `path`, whose pixels are native units × `scale`.
pub(super) fn pictures(path: &Path, scale: f64) -> Result<Pictures, IngestError> {
    let candidates = ENDINGS.map(|ending| path.with_extension(ending));
    let Some(image) = candidates.iter().find(|file| file.is_file()) else {
        return Err(IngestError::Absent {
            path: path.into(),
            node: format!("{}.{{{}}}", path.file_stem().unwrap_or_default().to_string_lossy(), ENDINGS.join(",")),
            advice: "`input.images = \"auto\"` wants the image beside it; put it there, or set \"none\"".into(),
        });
    };
    if !(scale.is_finite() && scale > 0.0) {
        let fact = format!("input.image_scale = {scale} is no scale: pixels of the image per native unit, above 0");
        return Err(IngestError::Unsupported { path: image.clone(), node: "image".into(), fact });
    }
    let file = PictureFile::inspect(image)?;
    Ok(Pictures { source: Source::Picture(file), origin: [0.0, 0.0], units_per_pixel: 1.0 / scale })
}
