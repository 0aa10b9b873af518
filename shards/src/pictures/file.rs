//! One image file: TIFF read tile by tile, PNG and JPEG decoded whole.
//!
//! Bytes stay as they are; 16-bit and float pixels are brought to 0..255 between the smallest and the largest value of the
//! file, as SPATIA's release does (`spatia.md` §1.1).

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};

use super::{PictureError, Window};

/// Bytes of decoded tiles kept per open file, one tile at least.
const CACHE_BYTES: usize = 16 << 20;
/// What a TIFF may ask for in one piece: a strip of a large mosaic, not a lie in its header.
const MAX_TILE_BYTES: usize = 1 << 28;

/// An image file that was read once from end to end.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureFile {
    /// The file.
    pub path: PathBuf,
    /// Height and width.
    pub size: [u32; 2],
    /// 1 (gray) or 3 (RGB); further samples (alpha) are left out.
    pub n_samples: u8,
    /// Values that become 0 and 255, where pixels are no bytes.
    pub range: Option<[f64; 2]>,
    /// Tiles that do not decode.
    pub bad: Vec<BadTile>,
    /// BLAKE3 of the file, hex.
    pub blake3: String,
}

/// A tile (or strip) that does not decode, or whose pixels are no numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTile {
    /// Its number.
    pub tile: u32,
    /// First row, first column, end row, end column.
    pub rect: [u32; 4],
    /// What is wrong.
    pub what: String,
}

impl PictureFile {
    /// Reads a file from end to end: its size, its range of values, what of it does not decode.
    ///
    /// # Errors
    /// [`PictureError`] where there is no picture at all; bad tiles are no error here.
    pub fn inspect(path: &Path) -> Result<PictureFile, PictureError> {
        let blake3 = digest(path)?;
        let file =
            |size, n_samples| PictureFile { path: path.into(), size, n_samples, range: None, bad: Vec::new(), blake3 };
        if !is_tiff(path)? {
            let whole = decode_whole(path)?;
            return Ok(file(whole.size, whole.n_samples));
        }
        let mut tiff = Tiff::open(path)?;
        let mut file = file(tiff.size, tiff.n_samples);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        let mut is_bytes = true;
        for tile in 0..tiff.n_tiles {
            match tiff.decode(tile) {
                Ok(Pixels::Bytes(_)) => {}
                Ok(Pixels::Numbers(values)) => {
                    is_bytes = false;
                    low = values.iter().copied().fold(low, f64::min);
                    high = values.iter().copied().fold(high, f64::max);
                }
                Err(what) => file.bad.push(BadTile { tile, rect: tiff.rect(tile), what }),
            }
        }
        file.range = (!is_bytes).then_some([low, high]);
        Ok(file)
    }

    /// The error for the first bad tile.
    pub fn error(&self, tile: &BadTile) -> PictureError {
        PictureError::Tile { path: self.path.clone(), tile: tile.tile, rect: tile.rect, what: tile.what.clone() }
    }
}

fn digest(path: &Path) -> Result<String, PictureError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).map_err(io(path))?).map_err(io(path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> PictureError {
    move |source| PictureError::Io { path: path.into(), source }
}

fn is_tiff(path: &Path) -> Result<bool, PictureError> {
    let mut magic = [0; 4];
    let mut file = File::open(path).map_err(io(path))?;
    let n = file.read(&mut magic).map_err(io(path))?;
    Ok(n == 4 && [*b"II*\0", *b"MM\0*", *b"II+\0", *b"MM\0+"].contains(&magic))
}

/// A decoded picture.
#[derive(Debug)]
struct Whole {
    size: [u32; 2],
    n_samples: u8,
    bytes: Vec<u8>,
}

fn decode_whole(path: &Path) -> Result<Whole, PictureError> {
    let unreadable = |e: image::ImageError| PictureError::Unreadable { path: path.into(), what: e.to_string() };
    let reader = image::ImageReader::open(path).map_err(io(path))?.with_guessed_format().map_err(io(path))?;
    let picture = reader.decode().map_err(unreadable)?;
    let size = [picture.height(), picture.width()];
    let gray = !picture.color().has_color();
    let bytes = if gray { picture.into_luma8().into_raw() } else { picture.into_rgb8().into_raw() };
    Ok(Whole { size, n_samples: if gray { 1 } else { 3 }, bytes })
}

/// Pixels of a tile, `[rows, columns, n_samples]`.
enum Pixels {
    Bytes(Vec<u8>),
    Numbers(Vec<f64>),
}

/// A TIFF whose tiles (or strips) are read one by one.
struct Tiff {
    decoder: Decoder<BufReader<File>>,
    size: [u32; 2],
    /// Rows and columns of a tile.
    tile: [u32; 2],
    n_tiles: u32,
    /// Samples stored per pixel.
    stored: usize,
    /// Samples taken per pixel.
    n_samples: u8,
}

impl Tiff {
    fn open(path: &Path) -> Result<Tiff, PictureError> {
        let unreadable = |what: String| PictureError::Unreadable { path: path.into(), what };
        let said = |e: tiff::TiffError| unreadable(e.to_string());
        let mut limits = Limits::default();
        limits.decoding_buffer_size = MAX_TILE_BYTES;
        let mut decoder =
            Decoder::new(BufReader::new(File::open(path).map_err(io(path))?)).map_err(said)?.with_limits(limits);
        let (width, height) = decoder.dimensions().map_err(said)?;
        let (stored, n_samples) = match decoder.colortype().map_err(said)? {
            ColorType::Gray(8 | 16 | 32) => (1, 1),
            ColorType::GrayA(8 | 16) => (2, 1),
            ColorType::RGB(8 | 16) => (3, 3),
            ColorType::RGBA(8 | 16) => (4, 3),
            other => return Err(unreadable(format!("pixels are {other:?}"))),
        };
        let (columns, rows) = decoder.chunk_dimensions();
        if width == 0 || height == 0 || columns == 0 || rows == 0 {
            return Err(unreadable(format!("{height} × {width} pixels in tiles of {rows} × {columns}")));
        }
        let n_tiles = height.div_ceil(rows) * width.div_ceil(columns);
        Ok(Tiff { decoder, size: [height, width], tile: [rows, columns], n_tiles, stored, n_samples })
    }

    fn across(&self) -> u32 {
        self.size[1].div_ceil(self.tile[1])
    }

    /// First row, first column, end row, end column of a tile, inside of the picture.
    fn rect(&self, tile: u32) -> [u32; 4] {
        let (row, column) = (tile / self.across() * self.tile[0], tile % self.across() * self.tile[1]);
        [row, column, (row + self.tile[0]).min(self.size[0]), (column + self.tile[1]).min(self.size[1])]
    }

    fn decode(&mut self, tile: u32) -> Result<Pixels, String> {
        let [row, column, end_row, end_column] = self.rect(tile);
        let n_pixels = (end_row - row) as usize * (end_column - column) as usize;
        let decoded = self.decoder.read_chunk(tile).map_err(|e| e.to_string())?;
        let (stored, taken) = (self.stored, usize::from(self.n_samples));
        fn cut<T: Copy>(values: &[T], stored: usize, taken: usize) -> Vec<T> {
            values.chunks(stored).flat_map(|pixel| &pixel[..taken.min(pixel.len())]).copied().collect()
        }
        let pixels = match decoded {
            DecodingResult::U8(values) => Pixels::Bytes(cut(&values, stored, taken)),
            DecodingResult::U16(values) => {
                Pixels::Numbers(cut(&values, stored, taken).into_iter().map(f64::from).collect())
            }
            DecodingResult::U32(values) => {
                Pixels::Numbers(cut(&values, stored, taken).into_iter().map(f64::from).collect())
            }
            DecodingResult::F32(values) => {
                let values = cut(&values, stored, taken);
                if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                    return Err(format!("{} at pixel {at}: pixels must be finite numbers", values[at]));
                }
                Pixels::Numbers(values.into_iter().map(f64::from).collect())
            }
            _ => return Err("pixels of a type that we do not read".to_owned()),
        };
        let n = match &pixels {
            Pixels::Bytes(v) => v.len(),
            Pixels::Numbers(v) => v.len(),
        };
        if n != n_pixels * taken {
            return Err(format!("{n} samples decoded, {} expected", n_pixels * taken));
        }
        Ok(pixels)
    }
}

/// A file that windows are read from.
pub(super) struct OpenFile<'a> {
    file: &'a PictureFile,
    pixels: Opened,
}

enum Opened {
    Whole(Whole),
    Tiff { tiff: Box<Tiff>, cache: VecDeque<(u32, Arc<Vec<u8>>)> },
}

impl fmt::Debug for OpenFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenFile({})", self.file.path.display())
    }
}

impl<'a> OpenFile<'a> {
    pub(super) fn open(file: &'a PictureFile) -> Result<OpenFile<'a>, PictureError> {
        let pixels = if is_tiff(&file.path)? {
            Opened::Tiff { tiff: Box::new(Tiff::open(&file.path)?), cache: VecDeque::new() }
        } else {
            Opened::Whole(decode_whole(&file.path)?)
        };
        let size = match &pixels {
            Opened::Whole(whole) => whole.size,
            Opened::Tiff { tiff, .. } => tiff.size,
        };
        if size != file.size {
            let what = format!("{size:?} pixels, {:?} when it was first read", file.size);
            return Err(PictureError::Unreadable { path: file.path.clone(), what });
        }
        Ok(OpenFile { file, pixels })
    }

    /// Copies what lies inside of the picture into `out` `[side, side, n_samples]`.
    pub(super) fn read(&mut self, window: &Window, out: &mut [u8]) -> Result<(), PictureError> {
        let file = self.file;
        let samples = usize::from(file.n_samples);
        match &mut self.pixels {
            Opened::Whole(whole) => {
                copy(&whole.bytes, [0, 0, file.size[0], file.size[1]], samples, window, out);
            }
            Opened::Tiff { tiff, cache } => {
                let span = |first: i64, size: u32, tile: u32| {
                    let end = (first + i64::from(window.side)).clamp(0, i64::from(size)) as u32;
                    let first = first.clamp(0, i64::from(size)) as u32;
                    if first < end { first / tile..end.div_ceil(tile) } else { 0..0 }
                };
                for down in span(window.row, file.size[0], tiff.tile[0]) {
                    for across in span(window.column, file.size[1], tiff.tile[1]) {
                        let tile = down * tiff.across() + across;
                        let bytes = cached(tiff, cache, tile, file)?;
                        copy(&bytes, tiff.rect(tile), samples, window, out);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A tile's bytes, decoded now or kept.
fn cached(
    tiff: &mut Tiff,
    cache: &mut VecDeque<(u32, Arc<Vec<u8>>)>,
    tile: u32,
    file: &PictureFile,
) -> Result<Arc<Vec<u8>>, PictureError> {
    if let Some(at) = cache.iter().position(|(k, _)| *k == tile) {
        let found = cache.remove(at).expect("just found");
        let bytes = found.1.clone();
        cache.push_front(found);
        return Ok(bytes);
    }
    let decoded = tiff.decode(tile).map_err(|what| file.error(&BadTile { tile, rect: tiff.rect(tile), what }));
    let bytes = match decoded? {
        Pixels::Bytes(bytes) => bytes,
        Pixels::Numbers(values) => {
            let [low, high] = file.range.unwrap_or([0.0, 255.0]);
            let factor = if high > low { 255.0 / (high - low) } else { 0.0 };
            values.into_iter().map(|v| ((v - low) * factor).round().clamp(0.0, 255.0) as u8).collect()
        }
    };
    let bytes = Arc::new(bytes);
    cache.push_front((tile, bytes.clone()));
    let mut held = 0;
    let n = cache.iter().take_while(|(_, tile)| {
        held += tile.len();
        held <= CACHE_BYTES
    });
    let n = n.count().max(1);
    cache.truncate(n);
    Ok(bytes)
}

/// Copies the common part of a tile (`rect`, `samples` per pixel) and a window.
fn copy(bytes: &[u8], rect: [u32; 4], samples: usize, window: &Window, out: &mut [u8]) {
    let [row, column, end_row, end_column] = rect.map(i64::from);
    let side = i64::from(window.side);
    let (from_row, to_row) = (row.max(window.row), end_row.min(window.row + side));
    let (from, to) = (column.max(window.column), end_column.min(window.column + side));
    if from >= to {
        return;
    }
    let n = (to - from) as usize * samples;
    for r in from_row..to_row {
        let source = ((r - row) * (end_column - column) + from - column) as usize * samples;
        let target = ((r - window.row) * side + from - window.column) as usize * samples;
        out[target..target + n].copy_from_slice(&bytes[source..source + n]);
    }
}
