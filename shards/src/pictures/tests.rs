//! Windows against pictures whose pixels tell their own place.

use std::path::{Path, PathBuf};

use tiff::encoder::{TiffEncoder, colortype};

use super::*;

/// 20 rows × 30 columns, pixel = 7 · row + column (below 163), as a gray TIFF in strips of `rows_per_strip`.
fn gray_tiff(dir: &Path, name: &str, rows_per_strip: u32) -> PathBuf {
    let path = dir.join(name);
    let mut encoder = TiffEncoder::new(std::fs::File::create(&path).unwrap()).unwrap();
    let mut image = encoder.new_image::<colortype::Gray8>(30, 20).unwrap();
    image.rows_per_strip(rows_per_strip).unwrap();
    let values: Vec<u8> = (0..600u32).map(|i| value(i64::from(i / 30), i64::from(i % 30))).collect();
    image.write_data(&values).unwrap();
    path
}

fn value(row: i64, column: i64) -> u8 {
    if (0..20).contains(&row) && (0..30).contains(&column) { (7 * row + column) as u8 } else { 0 }
}

fn pictures(source: Source) -> Pictures {
    Pictures { source, origin: [100.0, 200.0], units_per_pixel: 0.5 }
}

fn expected(window: &Window) -> Vec<u8> {
    let side = i64::from(window.side);
    (0..side * side).map(|i| value(window.row + i / side, window.column + i % side)).collect()
}

#[test]
fn a_window_of_strips_and_of_a_whole_file_holds_the_same_pixels_and_0_beyond_the_border() {
    let dir = tempfile::tempdir().unwrap();
    let tiff = gray_tiff(dir.path(), "a.tif", 3);
    let png = dir.path().join("a.png");
    image::GrayImage::from_fn(30, 20, |x, y| image::Luma([value(y.into(), x.into())])).save(&png).unwrap();
    for path in [tiff, png] {
        let pictures = pictures(Source::Picture(PictureFile::inspect(&path).unwrap()));
        assert_eq!((pictures.size(), pictures.channels()), ([20, 30], vec!["gray".to_owned()]));
        let mut cutter = Cutter::open(&pictures).unwrap();
        for (row, column, cover) in
            [(4, 5, Cover::Whole), (-3, 25, Cover::Part), (18, -2, Cover::Part), (-9, -9, Cover::None)]
        {
            let window = Window { row, column, side: 8 };
            assert_eq!(pictures.cover(&window), cover);
            assert_eq!(cutter.cut(&window).unwrap(), expected(&window), "{path:?} {window:?}");
        }
    }
}

#[test]
fn x_is_the_column_and_y_the_row() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = pictures(Source::Picture(PictureFile::inspect(&gray_tiff(dir.path(), "a.tif", 20)).unwrap()));
    let place = pictures.pixel([110.0, 203.0]);
    assert_eq!(place, [20.0, 6.0]);
    assert_eq!(pictures.window(place, 4), Window { row: 4, column: 18, side: 4 });
}

#[test]
fn a_channel_is_the_maximum_over_its_planes() {
    let dir = tempfile::tempdir().unwrap();
    let plane = |name: &str, at: u32| {
        let path = dir.path().join(name);
        image::GrayImage::from_fn(6, 6, |x, _| image::Luma([if x == at { 200 } else { 10 }])).save(&path).unwrap();
        PictureFile::inspect(&path).unwrap()
    };
    let channels = vec![
        Channel { name: "DAPI".into(), planes: vec![plane("a.png", 1), plane("b.png", 2)] },
        Channel { name: "PolyT".into(), planes: vec![plane("c.png", 3)] },
    ];
    let pictures = pictures(Source::Planes(channels));
    let cut = Cutter::open(&pictures).unwrap().cut(&Window { row: 0, column: 0, side: 4 }).unwrap();
    assert_eq!(cut[..8], [10, 10, 200, 10, 200, 10, 10, 200], "one row of two channels");
}

#[test]
fn sixteen_bits_are_brought_to_eight_between_the_extremes_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tif");
    let values: Vec<u16> = (0..16).map(|i| 1000 + 100 * i).collect();
    let mut encoder = TiffEncoder::new(std::fs::File::create(&path).unwrap()).unwrap();
    encoder.write_image::<colortype::Gray16>(4, 4, &values).unwrap();
    let file = PictureFile::inspect(&path).unwrap();
    assert_eq!(file.range, Some([1000.0, 2500.0]));
    let pictures = pictures(Source::Picture(file));
    let cut = Cutter::open(&pictures).unwrap().cut(&Window { row: 0, column: 0, side: 4 }).unwrap();
    assert_eq!((cut[0], cut[3], cut[15]), (0, 51, 255));
}

#[test]
fn a_tile_that_does_not_decode_is_named_and_a_pixel_that_is_no_number_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tif");
    let mut values = vec![1f32; 30];
    values[17] = f32::NAN;
    let mut encoder = TiffEncoder::new(std::fs::File::create(&path).unwrap()).unwrap();
    let mut image = encoder.new_image::<colortype::Gray32Float>(5, 6).unwrap();
    image.rows_per_strip(2).unwrap();
    image.write_data(&values).unwrap();
    let file = PictureFile::inspect(&path).unwrap();
    let [bad] = file.bad.as_slice() else { panic!("{:?}", file.bad) };
    assert_eq!((bad.tile, bad.rect), (1, [2, 0, 4, 5]));
    assert!(file.error(bad).to_string().contains("tile 1 (pixel rows 2..4, columns 0..5): NaN"), "{}", file.error(bad));

    // cut short: the last strips are missing
    let whole = gray_tiff(dir.path(), "b.tif", 5);
    let mut bytes = std::fs::read(&whole).unwrap();
    let header = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    bytes[8 + 300..8 + 600].fill(0);
    assert!(header >= 608, "the directory lies behind the pixels");
    std::fs::write(&whole, &bytes[..header - 200]).unwrap();
    let error = PictureFile::inspect(&whole).unwrap_err().to_string();
    assert!(error.contains("b.tif") && error.contains("convert it"), "{error}");
}

#[test]
fn resizing_keeps_a_constant_and_averages_when_it_shrinks() {
    let image =
        |bytes: &'static [u8], side| CellImage { bytes, channels: 1, height: side, width: side, um_per_pixel: None };
    assert_eq!(image(&[9; 25], 5).resized(8), vec![9; 64]);
    assert_eq!(image(&[0, 100, 100, 200], 2).resized(1), vec![100]);
    assert_eq!(image(&[1, 2, 3, 4], 2).resized(2), [1, 2, 3, 4]);
}
