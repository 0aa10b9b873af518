//! Against scikit-image: `tests/golden/shapes.py` wrote the features of 29 small pictures.

use serde::Deserialize;
use syncytia_shards::processed::Matrix;

use super::{NAMES, Shape, gray, shape};

#[derive(Deserialize)]
struct Known {
    name: String,
    width: usize,
    pixels: Vec<u8>,
    shape: Option<Shape>,
}

/// Tolerance 1e-9 relative, 1e-7 at least: of a disc or a line, eccentricity and short axis are roots of a rounding error.
#[test]
fn shapes_are_those_of_scikit_image() {
    let known: Vec<Known> = serde_json::from_str(include_str!("../../../tests/golden/shapes.json")).unwrap();
    assert_eq!(known.len(), 29);
    for picture in known {
        let ours = shape(&Matrix { n_cols: picture.width, values: picture.pixels });
        let (Some(ours), Some(theirs)) = (ours, picture.shape) else {
            assert!(ours.is_none() && picture.shape.is_none(), "{}: {ours:?} for {:?}", picture.name, picture.shape);
            continue;
        };
        for ((name, ours), theirs) in NAMES.iter().zip(ours).zip(theirs) {
            let near = (ours - theirs).abs() <= 1e-9 * theirs.abs().max(100.0);
            assert!(near, "{}: {name} {ours}, scikit-image {theirs}", picture.name);
        }
    }
}

#[test]
fn gray_is_the_mean_over_channels_rounded() {
    assert_eq!(gray(&[1, 2, 3, 0, 0, 1, 255, 255, 254], 3, 3).values, [2, 0, 255]);
    assert_eq!(gray(&[1, 2, 4, 5], 2, 1).values, [2, 5], "a half goes up");
    assert_eq!(gray(&[7, 8], 1, 2).values, [7, 8]);
}
