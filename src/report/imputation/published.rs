//! What was published, never measured here: SpotDiff's tables (Chen et al., AAAI 2025) and, of FISH, the per-gene metrics of the
//! benchmark the data are from (Li et al., Nature Methods 2022). Shown beside our figures under that word.

/// Where the columns of [`PCC`], [`OSMFISH`], [`CLUSTERING`] and [`ABLATION`] are from.
pub const SPOTDIFF: &str = "published: Chen et al., SpotDiff, AAAI 2025; its protocol is not told (random entries by its text, gene \
                            folds by the size of its figures)";
/// Where [`FISH_BENCHMARK`] is from.
pub const BENCHMARK: &str = "published: Li et al., Nature Methods 2022 (Data14), gene folds, mean over 84 genes";

/// Data sets of [`PCC`].
pub const DATA_SETS: [&str; 6] = ["osmFISH", "FISH", "STARmap", "MERFISH", "10x BA", "10x HBC"];

/// Pearson's r by model and data set.
pub const PCC: [(&str, [f64; 6]); 8] = [
    ("gimVI", [0.2011, 0.4984, 0.1854, 0.2365, 0.1845, 0.1837]),
    ("Tangram", [0.2124, 0.4622, 0.2254, 0.3421, 0.1847, 0.1829]),
    ("GraphST", [0.2354, 0.3432, 0.1754, 0.2157, 0.1896, 0.1663]),
    ("SpaFormer", [0.3020, 0.5112, 0.2454, 0.3325, 0.2401, 0.2100]),
    ("stMCDI", [0.2954, 0.5876, 0.2874, 0.3412, 0.2311, 0.2244]),
    ("stDiff", [0.2775, 0.4109, 0.1754, 0.2451, 0.1954, 0.2085]),
    ("STEM", [0.2745, 0.3874, 0.1984, 0.1854, 0.1896, 0.1832]),
    ("SpotDiff", [0.3721, 0.6215, 0.3215, 0.3784, 0.2559, 0.2345]),
];

/// Columns of [`OSMFISH`].
pub const OSMFISH_METRICS: [&str; 4] = ["PCC", "SSIM", "RMSE", "COSSIM"];

/// All metrics of osmFISH. Three of the RMSE cannot be a mean over the same columns as the PCC beside them: √(2 − 2·mean PCC) is
/// the most that it could be.
pub const OSMFISH: [(&str, [f64; 4]); 6] = [
    ("gimVI", [0.2011, 0.0876, 1.3071, 0.3845]),
    ("Tangram", [0.2124, 0.1120, 1.3158, 0.4011]),
    ("GraphST", [0.2354, 0.1211, 1.2741, 0.4658]),
    ("SpaFormer", [0.3020, 0.2421, 1.1003, 0.5721]),
    ("stMCDI", [0.2954, 0.2444, 1.1021, 0.5845]),
    ("SpotDiff", [0.3721, 0.3021, 1.0442, 0.6615]),
];

/// ARI, AMI, NMI on the motor cortex.
pub const CLUSTERING: [(&str, [f64; 3]); 6] = [
    ("raw", [0.6404, 0.8073, 0.8097]),
    ("gimVI", [0.6832, 0.8038, 0.8074]),
    ("Tangram", [0.6732, 0.7936, 0.7972]),
    ("stDiff", [0.7254, 0.8345, 0.8361]),
    ("stMCDI", [0.7022, 0.7784, 0.7841]),
    ("SpotDiff", [0.7336, 0.8440, 0.8561]),
];

/// Pearson's r with and without f_rna and f_text on osmFISH, FISH, STARmap, MERFISH. By the paper's columns; its text has the two
/// names the other way round.
pub const ABLATION: [([bool; 2], [f64; 4]); 4] = [
    ([false, false], [0.2987, 0.5124, 0.2315, 0.3025]),
    ([true, false], [0.3215, 0.5651, 0.2655, 0.3315]),
    ([false, true], [0.3612, 0.6055, 0.3154, 0.3644]),
    ([true, true], [0.3721, 0.6215, 0.3215, 0.3784]),
];

/// Mean PCC of FISH, gene folds.
pub const FISH_BENCHMARK: [(&str, f64); 8] = [
    ("SpaGE", 0.561),
    ("Seurat", 0.533),
    ("SpaOTsc", 0.512),
    ("gimVI", 0.504),
    ("Tangram", 0.473),
    ("LIGER", 0.464),
    ("stPlus", 0.389),
    ("novoSpaRc", 0.192),
];

/// The column of [`PCC`] that a data set of this name is compared with.
pub fn column_of(data_set: &str) -> Option<usize> {
    let plain = |name: &str| name.to_lowercase().replace([' ', '-', '_'], "");
    DATA_SETS.iter().position(|name| plain(name) == plain(data_set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_agree_where_they_tell_the_same() {
        let of = |model: &str| PCC.iter().find(|(name, _)| *name == model).unwrap().1;
        for (model, [pcc, ..]) in OSMFISH {
            assert_eq!(of(model)[0], pcc, "{model}");
        }
        assert_eq!(of("SpotDiff")[..4], ABLATION[3].1);
        // Which RMSE cannot be (spotdiff.md §6).
        let beyond = OSMFISH.iter().filter(|(_, [pcc, _, rmse, _])| *rmse > (2.0 - 2.0 * pcc).sqrt());
        assert_eq!(beyond.map(|(name, _)| *name).collect::<Vec<_>>(), ["gimVI", "Tangram", "GraphST"]);
        assert_eq!((column_of("fish"), column_of("10x-ba"), column_of("brain")), (Some(1), Some(4), None));
    }
}
