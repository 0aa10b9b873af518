//! A contact sheet of pictures that were made: beside each the real one where there is one, and its counterpart after a
//! change. One HTML file, pictures inside.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::contact_sheet::{STYLE, escape};

/// One cell.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its labels, as one line.
    pub labels: String,
    /// (what it is, PNG), left to right.
    pub pictures: Vec<(&'static str, Vec<u8>)>,
}

/// The page; `note` says how the pictures were made.
pub fn page(title: &str, note: &str, rows: &[Row]) -> String {
    let mut body = String::new();
    for row in rows {
        let _ = write!(body, "<section>");
        for (what, png) in &row.pictures {
            let _ = write!(
                body,
                "<figure><div class=\"p\"><img alt=\"\" src=\"data:image/png;base64,{}\"></div><figcaption>{what}</figcaption></figure>",
                STANDARD.encode(png)
            );
        }
        let _ = writeln!(body, "<p>{}<br>{}</p></section>", escape(&row.name), escape(&row.labels));
    }
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}\
         section{{display:flex;gap:6px;flex-wrap:wrap}}section p{{flex-basis:100%;margin:0;overflow-wrap:anywhere}}\
         main{{grid-template-columns:repeat(auto-fill,minmax({width}px,max-content))}}</style>\n\
         <h1>{title}</h1>\n<p>{note}</p>\n<main>\n{body}</main>\n",
        title = escape(title),
        note = escape(note),
        width = 156 * rows.first().map_or(1, |row| row.pictures.len().max(1)),
    )
}

/// Gray of one channel, else RGB of the first three, `bytes` row-major with the channel last.
pub fn png(bytes: &[u8], [height, width, channels]: [usize; 3]) -> Vec<u8> {
    let rgb = |pixel: &[u8]| match pixel {
        [gray] => [*gray; 3],
        several => std::array::from_fn(|k| several.get(k).copied().unwrap_or(0)),
    };
    let pixels: Vec<u8> = bytes.chunks(channels).flat_map(rgb).collect();
    let picture = image::RgbImage::from_raw(width as u32, height as u32, pixels).expect("a picture has its size");
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).expect("memory can be written to");
    png.into_inner()
}
