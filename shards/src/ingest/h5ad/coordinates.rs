//! Where the observations lie: an array or a data frame of `obsm`, or two columns of `obs`.

use crate::ingest::data_frame::{Column, DataFrame};
use crate::ingest::error::IngestError;
use crate::ingest::h5::{H5File, Node};

/// x and y, and z where there is one.
pub(super) type Places = (Vec<[f64; 2]>, Option<Vec<f64>>);

/// x, y and, where there are three columns, z of `obsm[key]`: an array `[n_obs, ≥ 2]` or a data frame with numeric columns.
pub(super) fn coordinates(h5: &H5File, key: &str, n_obs: usize) -> Result<Places, IngestError> {
    let node = format!("obsm/{key}");
    let length = |found| IngestError::Length { path: h5.path().into(), node: node.clone(), found, expected: n_obs };
    match h5.node(&node)? {
        None => {
            let found: Vec<String> =
                if h5.node("obsm")?.is_some() { h5.list("obsm")?.into_keys().collect() } else { Vec::new() };
            Err(IngestError::NoSpatial { path: h5.path().into(), key: key.into(), found: found.join(", ") })
        }
        Some(Node::Dataset) => {
            let extent = h5.extent(&node)?;
            let (rows, columns) = match extent.shape.as_slice() {
                &[rows, columns] if columns >= 2 => (rows, columns),
                other => return Err(h5.unsupported(&node, format!("has shape {other:?}, expected [n_obs, 2]"))),
            };
            if rows != n_obs as u64 {
                return Err(length(rows as usize));
            }
            let values = h5.read_f64(&node, 0, u64::MAX)?;
            let rows = || values.chunks(columns as usize);
            let z = (columns == 3).then(|| rows().map(|row| row[2]).collect());
            Ok((rows().map(|row| [row[0], row[1]]).collect(), z))
        }
        Some(Node::Group) => {
            let frame = DataFrame::open(h5, &node)?;
            let mut numeric = Vec::new();
            for name in &frame.columns {
                match frame.column(h5, name)? {
                    Column::Floats(values) => numeric.push(values),
                    Column::Ints(values) => {
                        numeric.push(values.into_iter().map(|v| v.map_or(f64::NAN, |i| i as f64)).collect());
                    }
                    _ => {}
                }
            }
            let [x, y, ..] = numeric.as_slice() else {
                return Err(h5.unsupported(&node, "has no two numeric columns to take x and y from"));
            };
            if x.len() != n_obs {
                return Err(length(x.len()));
            }
            let z = if let [_, _, z] = numeric.as_slice() { Some(z.clone()) } else { None };
            Ok((x.iter().zip(y).map(|(&x, &y)| [x, y]).collect(), z))
        }
    }
}

/// Two numeric columns of `obs`: x, then y.
pub(super) fn coordinates_in_obs(
    h5: &H5File,
    obs: &DataFrame,
    names: &[String; 2],
) -> Result<Vec<[f64; 2]>, IngestError> {
    let column = |name: &String| -> Result<Vec<f64>, IngestError> {
        if !obs.columns.contains(name) {
            return Err(IngestError::Absent {
                path: h5.path().into(),
                node: format!("obs/{name}"),
                advice: format!("input.xy_columns names x, then y; obs has [{}]", obs.columns.join(", ")),
            });
        }
        match obs.column(h5, name)? {
            Column::Floats(values) => Ok(values),
            Column::Ints(values) => Ok(values.into_iter().map(|v| v.map_or(f64::NAN, |i| i as f64)).collect()),
            _ => Err(h5.unsupported(&format!("obs/{name}"), "holds no numbers (input.xy_columns)")),
        }
    };
    let [x, y] = names;
    Ok(column(x)?.into_iter().zip(column(y)?).map(|(x, y)| [x, y]).collect())
}
