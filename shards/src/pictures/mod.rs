//! Pictures of single cells: windows of a large image, cut when they are asked for.
//!
//! A [`Pictures`] says which files make the channels and how a section's native coordinates fall on their pixels; it is
//! made at ingest, where every tile is decoded once, so that what cannot be read is known before anything is written.
//! A [`Cutter`] cuts [`Window`]s out of it. Pixels are native and of one byte; nothing here resizes but
//! [`CellImage::resized`], which a loader calls. Knows no cell, no record and no Parquet.

mod file;

use std::path::PathBuf;

use rayon::prelude::*;

use file::OpenFile;
pub use file::{BadTile, PictureFile};

/// Why a picture could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The system refused.
    #[error("{path}: cannot be read: {source}")]
    Io {
        /// The image.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// No image, or of a kind we do not read.
    #[error("{path}: {what}; 8 or 16 bit gray or RGB is read, as TIFF (tiles or strips), PNG or JPEG: convert it")]
    Unreadable {
        /// The image.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A part of an image that does not decode.
    #[error("{path}: tile {tile} (pixel rows {}..{}, columns {}..{}): {what}", rect[0], rect[2], rect[1], rect[3])]
    Tile {
        /// The image.
        path: PathBuf,
        /// Tile or strip, counted from 0.
        tile: u32,
        /// First row, first column, end row, end column.
        rect: [u32; 4],
        /// What is wrong.
        what: String,
    },
    /// Planes of one picture that do not lie on one grid.
    #[error("{path}: {found:?} pixels (height, width), the other planes have {expected:?}")]
    OtherSize {
        /// The image.
        path: PathBuf,
        /// Its height and width.
        found: [u32; 2],
        /// Those of the first plane.
        expected: [u32; 2],
    },
}

/// What the channels are made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Gray planes on one grid, one file each (mosaics of an instrument): a channel is the pixelwise maximum over its planes.
    Planes(Vec<Channel>),
    /// One file that holds all channels (H&E).
    Picture(PictureFile),
}

/// A channel of [`Source::Planes`].
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    /// Its stain.
    pub name: String,
    /// Its planes along the optical axis.
    pub planes: Vec<PictureFile>,
}

/// Where pictures of a section's cells are cut from.
#[derive(Debug, Clone, PartialEq)]
pub struct Pictures {
    /// The files.
    pub source: Source,
    /// Native coordinates (x, y) of the outer corner of the first pixel.
    pub origin: [f64; 2],
    /// Native units per pixel.
    pub units_per_pixel: f64,
}

impl Pictures {
    /// Names of the channels in stored order.
    pub fn channels(&self) -> Vec<String> {
        match &self.source {
            Source::Planes(channels) => channels.iter().map(|c| c.name.clone()).collect(),
            Source::Picture(file) if file.n_samples == 1 => vec!["gray".to_owned()],
            Source::Picture(_) => ["red", "green", "blue"].map(str::to_owned).to_vec(),
        }
    }

    /// The files in channel order.
    pub fn files(&self) -> Vec<&PictureFile> {
        match &self.source {
            Source::Planes(channels) => channels.iter().flat_map(|c| &c.planes).collect(),
            Source::Picture(file) => vec![file],
        }
    }

    /// Height and width in pixels.
    pub fn size(&self) -> [u32; 2] {
        self.files().first().map_or([0, 0], |file| file.size)
    }

    /// Refuses planes of different sizes.
    ///
    /// # Errors
    /// [`PictureError::OtherSize`].
    pub fn check(&self) -> Result<(), PictureError> {
        let expected = self.size();
        match self.files().into_iter().find(|file| file.size != expected) {
            Some(file) => Err(PictureError::OtherSize { path: file.path.clone(), found: file.size, expected }),
            None => Ok(()),
        }
    }

    /// A native place in pixels (x = column, y = row), the centre of the first pixel at .5.
    pub fn pixel(&self, xy: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|axis| (xy[axis] - self.origin[axis]) / self.units_per_pixel)
    }

    /// The square of `side` pixels around a place in pixels.
    pub fn window(&self, [x, y]: [f64; 2], side: u32) -> Window {
        let first = |centre: f64| (centre - f64::from(side) / 2.0).round() as i64;
        Window { row: first(y), column: first(x), side }
    }

    /// How much of a window lies inside of the picture.
    pub fn cover(&self, window: &Window) -> Cover {
        let [height, width] = self.size().map(i64::from);
        let side = i64::from(window.side);
        let inside = |first: i64, size: i64| (first + side).min(size) - first.max(0);
        match (inside(window.row, height), inside(window.column, width)) {
            (h, w) if h <= 0 || w <= 0 => Cover::None,
            (h, w) if h == side && w == side => Cover::Whole,
            _ => Cover::Part,
        }
    }

    /// The first tile under a window that does not decode.
    pub fn bad_tile(&self, window: &Window) -> Option<(&PictureFile, &BadTile)> {
        let touches = |tile: &BadTile| {
            let [row, column, end_row, end_column] = tile.rect.map(i64::from);
            let side = i64::from(window.side);
            window.row < end_row
                && row < window.row + side
                && window.column < end_column
                && column < window.column + side
        };
        self.files().into_iter().find_map(|file| file.bad.iter().find(|tile| touches(tile)).map(|tile| (file, tile)))
    }
}

/// A square of pixels; it may reach over the border of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First row.
    pub row: i64,
    /// First column.
    pub column: i64,
    /// Pixels a side.
    pub side: u32,
}

/// How much of a window a picture covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// All.
    Whole,
    /// Some: the rest is padded with 0.
    Part,
    /// None.
    None,
}

/// A cell's picture: bytes `[height, width, channels]`, row-major.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CellImage<'a> {
    /// The pixels.
    pub bytes: &'a [u8],
    /// Channels.
    pub channels: u8,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// µm per pixel, where known.
    pub um_per_pixel: Option<f64>,
}

impl CellImage<'_> {
    /// The pixels at `side` × `side` (bilinear, averaging where it shrinks), `[side, side, channels]`; a copy where the
    /// picture has that size already. Plain f32 arithmetic: the same bytes on every machine.
    pub fn resized(&self, side: u32) -> Vec<u8> {
        if (self.height, self.width) == (side, side) {
            return self.bytes.to_vec();
        }
        let (height, width, c) = (self.height as usize, self.width as usize, usize::from(self.channels));
        let to = side as usize;
        let columns = weights(width, to);
        let mut wide = vec![0f32; height * to * c]; // rows as they are, columns resized
        for row in 0..height {
            for (column, (first, taps)) in columns.iter().enumerate() {
                for channel in 0..c {
                    let sum = |k: usize| f32::from(self.bytes[(row * width + first + k) * c + channel]) * taps[k];
                    wide[(row * to + column) * c + channel] = (0..taps.len()).map(sum).sum();
                }
            }
        }
        let mut out = Vec::with_capacity(to * to * c);
        for (first, taps) in &weights(height, to) {
            for at in 0..to * c {
                let sum: f32 = (0..taps.len()).map(|k| wide[(first + k) * to * c + at] * taps[k]).sum();
                out.push(sum.round().clamp(0.0, 255.0) as u8);
            }
        }
        out
    }
}

/// For each of `to` pixels, the first of `from` pixels it reads and their weights: a triangle as wide as a target pixel,
/// at least one source pixel to each side.
fn weights(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    let one = |i: usize| {
        let centre = (i as f64 + 0.5) * scale - 0.5;
        let first = (centre - reach).ceil().max(0.0) as usize;
        let last = ((centre + reach).floor() as usize).min(from - 1);
        let taps: Vec<f64> = (first..=last).map(|k| (1.0 - (k as f64 - centre).abs() / reach).max(0.0)).collect();
        let sum: f64 = taps.iter().sum();
        (first, taps.into_iter().map(|t| (t / sum) as f32).collect())
    };
    (0..to).map(one).collect()
}

/// Cuts windows; holds open files and the tiles used last, so windows near each other are cheap one after the other.
#[derive(Debug)]
pub struct Cutter<'a> {
    pictures: &'a Pictures,
    files: Vec<OpenFile<'a>>,
}

impl<'a> Cutter<'a> {
    /// Opens the files of `pictures`.
    ///
    /// # Errors
    /// [`PictureError`].
    pub fn open(pictures: &'a Pictures) -> Result<Cutter<'a>, PictureError> {
        let files = pictures.files().into_par_iter().map(OpenFile::open).collect::<Result<_, _>>()?;
        Ok(Cutter { pictures, files })
    }

    /// The pixels of a window `[side, side, channels]`, 0 where it leaves the picture.
    ///
    /// # Errors
    /// [`PictureError`].
    pub fn cut(&mut self, window: &Window) -> Result<Vec<u8>, PictureError> {
        let n_pixels = window.side as usize * window.side as usize;
        match &self.pictures.source {
            Source::Picture(file) => {
                let mut out = vec![0; n_pixels * usize::from(file.n_samples)];
                self.files[0].read(window, &mut out)?;
                Ok(out)
            }
            Source::Planes(channels) => {
                let mut out = vec![0; n_pixels * channels.len()];
                let mut plane = vec![0; n_pixels];
                let of_files =
                    channels.iter().enumerate().flat_map(|(c, channel)| channel.planes.iter().map(move |_| c));
                for (c, file) in of_files.zip(&mut self.files) {
                    plane.fill(0);
                    file.read(window, &mut plane)?;
                    for (out, &value) in out.iter_mut().skip(c).step_by(channels.len()).zip(&plane) {
                        *out = (*out).max(value);
                    }
                }
                Ok(out)
            }
        }
    }
}

#[cfg(test)]
mod tests;
