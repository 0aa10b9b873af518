//! Stories of the readers: what real files give, what bad ones get, and that damage never takes the process down. Here:
//! what they share.

mod h5ad;
mod h5ad_files;
mod space_ranger;
mod tables;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::h5ad_write::{AnnData, Values, X, write};
use super::*;
use crate::matrix::Matrix;
use crate::section::Csr;

/// A file of the shared data; `None` (said aloud) when the data is not here.
fn real(relative: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(relative);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("SYNCYTIA_REQUIRE_ALL").as_deref() != Ok("1"), "{relative} is absent and all is required");
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {relative} is absent");
    None
}

fn read(path: &Path) -> Result<Section, IngestError> {
    read_section(path, &IngestOptions::default())
}

fn names(prefix: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{prefix}{i}")).collect()
}

/// Three spots, two genes: the smallest section.
fn small() -> AnnData {
    AnnData {
        obs_names: names("spot", 3),
        obs: vec![("layer".into(), Values::Categorical(vec![Some("L2".into()), None, Some("L1".into())]))],
        var_names: names("gene", 2),
        x: Some(X::Sparse(Csr {
            n_cols: 2,
            indptr: vec![0, 1, 1, 3],
            indices: vec![1, 0, 1],
            values: vec![3., 1., 2.],
        })),
        obsm: BTreeMap::from([("spatial".into(), Matrix { n_cols: 2, values: vec![0., 1., 2., 3., 4., 5.] })]),
        ..AnnData::default()
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn h5ad(&self, adata: &AnnData) -> PathBuf {
        let path = self.0.path().join("small.h5ad");
        write(&path, adata).unwrap();
        path
    }
}

/// Damages copies of `whole` with a fixed seed; each must be read or refused, never take the process down.
fn survive(whole: &[u8], path: &Path, n: usize, read: impl Fn(&Path) -> bool) {
    let mut rng = ChaCha8Rng::seed_from_u64(20_261_121);
    let mut n_refused = 0;
    for i in 0..n {
        let mut bytes = whole.to_vec();
        if i % 3 == 0 {
            bytes.truncate((i * whole.len() / n).max(1));
        } else {
            for _ in 0..rng.random_range(1..=6) {
                // Half of the hits go to the first part, where headers and shapes lie thickest.
                let limit = if rng.random_bool(0.5) { whole.len() } else { whole.len().min(40_000) };
                let at = rng.random_range(0..limit);
                bytes[at] = rng.random();
            }
        }
        std::fs::write(path, &bytes).unwrap();
        n_refused += usize::from(!read(path));
    }
    assert!(n_refused >= n / 3, "every truncated copy must be refused; {n_refused} of {n} were");
}
