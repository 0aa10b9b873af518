//! A contact sheet: pictures of random records with their strongest genes, to see with one's own eyes whether crops sit on
//! cells. One HTML file, pictures inside.
//!
//! Contrast is stretched per channel over the sheet (least to the 99.5th percentile), which changes nothing but the view.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use syncytia_shards::draw::{Purpose, ShuffleStream};
use syncytia_shards::error::StoreError;
use syncytia_shards::manifest::RowGroupEntry;
use syncytia_shards::pictures::CellImage;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::{Columns, RowGroup};

/// Genes named under a picture.
const TOP_GENES: usize = 6;
/// Labels named under a picture.
const LABELS: usize = 4;

/// The page for `n` records drawn by `seed` from all splits.
///
/// # Errors
/// [`StoreError::NoImages`]; damage; the system's errors.
pub fn page(shards: &Shards, n: usize, seed: u64) -> Result<String, StoreError> {
    let columns = Columns { counts: true, names: true, images: true, ..Columns::default() };
    let entries: Vec<&RowGroupEntry> =
        [Split::Train, Split::Val, Split::Test].into_iter().flat_map(|split| shards.row_groups(split)).collect();
    let mut chosen: BTreeMap<usize, Vec<usize>> = BTreeMap::new(); // row group: rows
    for at in draw(&entries, n, seed) {
        chosen.entry(at.0).or_default().push(at.1);
    }
    let groups: Vec<(RowGroup, Vec<usize>)> = chosen
        .into_iter()
        .map(|(k, rows)| Ok((shards.read_row_group(entries[k], &columns)?, rows)))
        .collect::<Result<_, StoreError>>()?;
    let cells = || groups.iter().flat_map(|(group, rows)| rows.iter().map(move |&row| (group, row)));
    let channels = cells().next().map_or(1, |(group, row)| usize::from(image(group, row).channels));
    let stretch: Vec<[u8; 2]> =
        (0..channels).map(|c| extremes(cells().map(|(group, row)| (image(group, row).bytes, c, channels)))).collect();
    let mut body = String::new();
    for (group, row) in cells() {
        figure(&mut body, shards, group, row, &stretch);
    }
    let facts = shards.manifest().crops.clone().ok_or(StoreError::NoImages)?;
    let rules: std::collections::BTreeSet<&str> = facts.rules.iter().map(String::as_str).collect();
    let rules = rules.into_iter().collect::<Vec<_>>().join("; ");
    Ok(format!(
        "<!doctype html><meta charset=\"utf-8\"><title>contact sheet</title><style>{STYLE}</style>\n<h1>{} records of {}</h1>\n\
         <p>Channels {}. {}. Contrast stretched per channel over this sheet. Marks at the edges point to the centre.</p>\n\
         <main>\n{body}</main>\n",
        cells().count(),
        escape(&shards.manifest().sections.iter().map(|s| s.library_id.as_str()).collect::<Vec<_>>().join(", ")),
        escape(&facts.channels.join(", ")),
        escape(&rules)
    ))
}

/// Crops of `side` × `side` beside each other, one PNG per row of them; the contrast is stretched over all.
pub fn strips(rows: &[Vec<&[u8]>], side: u32, channels: u8) -> Vec<Vec<u8>> {
    let c = usize::from(channels);
    let all = || rows.iter().flatten().copied();
    let stretch: Vec<[u8; 2]> = (0..c).map(|channel| extremes(all().map(|bytes| (bytes, channel, c)))).collect();
    let strip = |crops: &Vec<&[u8]>| {
        let line = side as usize * c;
        let row = |y: usize| crops.iter().flat_map(move |bytes| bytes[y * line..(y + 1) * line].iter().copied());
        let bytes: Vec<u8> = (0..side as usize).flat_map(row).collect();
        let width = side * crops.len() as u32;
        png(&CellImage { bytes: &bytes, channels, height: side, width, um_per_pixel: None }, &stretch)
    };
    rows.iter().map(strip).collect()
}

/// How pictures lie on a sheet.
pub(super) const STYLE: &str = "body{font:12px/1.35 system-ui,sans-serif;margin:16px;background:#fff;color:#222}h1{font-size:16px}\
main{display:grid;grid-template-columns:repeat(auto-fill,150px);gap:12px}figure{margin:0;width:150px}\
.p{position:relative;width:144px;height:144px;border:3px solid #ddd}.p img{width:144px;height:144px;image-rendering:pixelated}\
.p:before,.p:after{content:'';position:absolute;background:#e33}.p:before{left:71px;top:-3px;width:2px;height:8px}\
.p:after{left:-3px;top:71px;width:8px;height:2px}figcaption{overflow-wrap:anywhere}.g{color:#555}";

/// Places (row group, own row) of `n` records, without repetition.
fn draw(entries: &[&RowGroupEntry], n: usize, seed: u64) -> Vec<(usize, usize)> {
    let ends: Vec<usize> = entries
        .iter()
        .scan(0, |end, entry| {
            *end += entry.n_own as usize;
            Some(*end)
        })
        .collect();
    let total = ends.last().copied().unwrap_or(0);
    let order = ShuffleStream::new(seed, Purpose::Crop, &[]).permutation(total);
    let place = |at: u32| {
        let k = ends.partition_point(|&end| end <= at as usize);
        (k, at as usize + entries[k].n_own as usize - ends[k])
    };
    order.into_iter().take(n).map(place).collect()
}

/// The least value of a channel and that below which 99.5 % lie.
fn extremes<'a>(pictures: impl Iterator<Item = (&'a [u8], usize, usize)>) -> [u8; 2] {
    let mut times = [0u64; 256];
    for (bytes, channel, channels) in pictures {
        bytes.iter().skip(channel).step_by(channels).for_each(|&v| times[usize::from(v)] += 1);
    }
    times[0] = 0; // padding, and the empty background of stitched mosaics
    let total: u64 = times.iter().sum();
    let low = times.iter().position(|&n| n > 0).unwrap_or(0);
    let mut below = 0;
    let high = times.iter().position(|&n| {
        below += n;
        below as f64 >= 0.995 * total as f64
    });
    [low as u8, high.unwrap_or(255).max(low + 1).min(255) as u8]
}

fn image(group: &RowGroup, row: usize) -> CellImage<'_> {
    group.image(row).expect("asked for")
}

fn figure(out: &mut String, shards: &Shards, group: &RowGroup, row: usize, stretch: &[[u8; 2]]) {
    let image = image(group, row);
    let (genes, counts) = group.counts.as_ref().expect("asked for").row(row);
    let mut strongest: Vec<(f32, u32)> = counts.iter().copied().zip(genes.iter().copied()).collect();
    strongest.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let panel = &shards.manifest().panel.genes;
    let top: Vec<String> = strongest
        .iter()
        .take(TOP_GENES)
        .map(|(count, gene)| format!("{} {count}", panel[*gene as usize].symbol))
        .collect();
    let labels: Vec<&str> = group.labels.iter().filter_map(|l| l.values[row].as_deref()).take(LABELS).collect();
    let scale = image.um_per_pixel.map_or_else(String::new, |um| format!(", {:.1} µm", um * f64::from(image.width)));
    let _ = writeln!(
        out,
        "<figure><div class=\"p\"><img alt=\"\" src=\"data:image/png;base64,{}\"></div><figcaption>{} {}×{}{scale}<br>{}\
         <div class=\"g\">{}</div></figcaption></figure>",
        STANDARD.encode(png(&image, stretch)),
        escape(&group.obs_ids[row]),
        image.height,
        image.width,
        escape(&labels.join(" · ")),
        escape(&top.join(", "))
    );
}

/// Gray of one channel, else RGB of the first three.
fn png(image: &CellImage<'_>, stretch: &[[u8; 2]]) -> Vec<u8> {
    let c = usize::from(image.channels);
    let value = |pixel: &[u8], channel: usize| {
        let Some([low, high]) = stretch.get(channel).filter(|_| channel < c) else { return 0 };
        let share = (f32::from(pixel[channel]) - f32::from(*low)) / (f32::from(*high) - f32::from(*low));
        (255.0 * share).round().clamp(0.0, 255.0) as u8
    };
    let rgb = |pixel: &[u8]| if c == 1 { [value(pixel, 0); 3] } else { std::array::from_fn(|k| value(pixel, k)) };
    let pixels: Vec<u8> = image.bytes.chunks(c).flat_map(rgb).collect();
    let picture = image::RgbImage::from_raw(image.width, image.height, pixels).expect("a picture has its size");
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).expect("memory can be written to");
    png.into_inner()
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
