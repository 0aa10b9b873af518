//! The encoder's promises: sizes, what may depend on what, and where gradients come from.

mod gradients;

use syncytia_shards::draw::{DrawKey, Purpose};

use super::config::FusionKind;
use super::context::RegionInput;
use super::*;
use crate::model::layers::reference::{tensor, values};
use crate::model::params;
use crate::tensor::{Bool, Padding, cpu};

const GENES: usize = 64;

fn model(config: &SpatiaConfig) -> Spatia {
    assert_eq!(config.problems(), Vec::<String>::new());
    Spatia::new(config, GENES, 1, &cpu())
}

/// Tiny with everything that is optional.
fn full() -> SpatiaConfig {
    let mut config =
        SpatiaConfig { contrast_width: Some(16), masked_token: true, vector_painter: true, ..SpatiaConfig::tiny() };
    config.gene.families[1].classes = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
    config
}

/// Numbers without meaning, the same ones for the same `salt`.
fn noise(n: usize, salt: u64) -> Vec<f32> {
    let key = DrawKey::new(salt, Purpose::Synthetic);
    let mut out = vec![0.0; n];
    key.for_each(n, [0; 3], |i, word| out[i] = syncytia_shards::draw::uniform(word));
    out
}

/// Lists of (gene, count), padded to `k`.
fn gene_input(cells: &[Vec<(i64, f32)>], k: usize) -> GeneInput {
    let (mut genes, mut shares, mut padding, mut depths) = (vec![], vec![], vec![], vec![]);
    for cell in cells {
        let counts: Vec<f32> = cell.iter().map(|&(_, count)| count).collect();
        let (values, depth) = gene_encoder::values_and_depth(&counts);
        depths.push(depth);
        for i in 0..k {
            genes.push(cell.get(i).map_or(GENES as i64, |&(gene, _)| gene));
            shares.push(values.get(i).copied().unwrap_or(0.0));
            padding.push(i >= cell.len());
        }
    }
    let b = cells.len();
    GeneInput {
        genes: Tensor::from_data(TensorData::new(genes, [b, k]), &cpu()),
        values: tensor(shares, [b, k]),
        depth: tensor(depths, [b]),
        bins: None,
        padding: Padding::of(padding, [b, k]),
    }
}

/// A cell of `n` genes.
fn cell(n: usize, salt: u64) -> Vec<(i64, f32)> {
    let counts = noise(n, salt);
    (0..n).map(|i| ((i * 7 + salt as usize) as i64 % GENES as i64, 1.0 + (counts[i] * 9.0).floor())).collect()
}

fn pictures(b: usize, kept: Option<Kept>) -> ImageInput {
    let pixels = (0..b).flat_map(|i| noise(3 * 32 * 32, 100 + i as u64)).collect();
    ImageInput { pixels: tensor(pixels, [b, 3, 32, 32]), kept }
}

fn close(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

#[test]
fn parameter_counts_are_those_of_the_spec() {
    let count = |config: &SpatiaConfig, genes| params::to_flat(&Spatia::new(config, genes, 1, &cpu())).len() as f64;
    for (config, genes, expected) in
        [(SpatiaConfig::tiny(), TABLE[0], 137_539.0), (SpatiaConfig::small(), TABLE[1], 5_641_891.0)]
    {
        assert_eq!(config.n_parameters(genes), expected);
        assert_eq!(count(&config, genes), expected);
    }
    // MVC reads the cell vector, 512 wide: 65,536 more than a first map from 256.
    assert_eq!(SpatiaConfig::base().n_parameters(TABLE[2]), 156_862_467.0 + 65_536.0);
    assert_eq!(SpatiaConfig::foundation().n_parameters(TABLE[3]), 921_988_867.0);
    for kind in [FusionKind::Both, FusionKind::ImageQueries, FusionKind::None] {
        let mut config = full();
        (config.fusion.kind, config.image.channels, config.h) = (kind, 2, 48);
        assert_eq!(count(&config, 11), config.n_parameters(11), "{kind:?}");
    }
}

#[test]
fn base_is_made_of_the_parts_of_the_spec() {
    let parts = SpatiaConfig::base().parts(TABLE[2]);
    let expected = [
        ("gene_encoder", 7_680_256 + 133_632 + 1_024 + 6_318_080 + 512),
        ("image_encoder", 590_592 + 768 + 85_054_464 + 1_536),
        ("image_decoder", 393_728 + 512 + 25_219_072 + 1_024 + 393_984),
        ("fusion", 196_864 + 197_376 + 330_112 + 2_956_416),
        ("expression_decoder", 133_379),
        ("mvc", 65_792 + 65_536 + 512 + 196_608),
        ("classes", 0),
        ("contrast", 0),
        ("cell_out", 524_800 + 1_024),
        ("vector_painter", 0),
        ("niche", 12_609_536 + 1_024 + 393_728 + 33_280 + 512),
        ("tissue", 12_609_536 + 1_024 + 33_280 + 512),
        ("final_fusion", 786_944 + 1_024),
    ];
    assert_eq!(parts, expected.map(|(name, n)| (name, f64::from(n))));
}

#[test]
fn parts_are_declared_in_the_order_of_the_spec_and_have_stable_names() {
    let specs = params::specs(&model(&full()));
    let mut parts: Vec<&str> = specs.iter().map(|spec| spec.path.split('.').next().unwrap()).collect();
    parts.dedup();
    let names: Vec<&str> = full().parts(GENES).iter().map(|(name, _)| *name).collect();
    assert_eq!(parts, names);
    for path in [
        "gene_encoder.table",
        "gene_encoder.encoder.layers.1.self_attn.in_proj_weight",
        "image_encoder.cls",
        "image_decoder.mask_token",
        "fusion.image.block.attention.kv.bias",
        "mvc.bilinear",
        "classes.families.1.weight",
        "contrast.log_scale",
        "vector_painter.weight",
        "niche.context.masked",
        "tissue.context.query",
        "final_fusion.norm.bias",
    ] {
        assert!(specs.iter().any(|spec| spec.path == path), "no {path}");
    }
}

#[test]
fn the_order_of_genes_is_irrelevant() {
    let model = model(&SpatiaConfig::tiny());
    let list = cell(13, 1);
    let backwards: Vec<_> = list.iter().rev().copied().collect();
    let z = |list: &Vec<(i64, f32)>| {
        let genes = Some(gene_input(std::slice::from_ref(list), 13));
        values(model.forward(&CellInput { genes, image: Some(pictures(1, None)) }, None).z_cell)
    };
    // Sums over genes are taken in another order: f32 with entries near 1.
    assert!(close(&z(&list), &z(&backwards), 3e-6));
    let mut other = list.clone();
    other[0].1 += 30.0;
    assert!(!close(&z(&list), &z(&other), 1e-4), "a count must matter");
}

#[test]
fn padding_and_the_other_cells_of_a_batch_change_nothing() {
    let model = model(&SpatiaConfig::tiny());
    let cells = [cell(13, 1), cell(5, 2), cell(9, 3)];
    let key = DrawKey::new(1, Purpose::PatchMask);
    let streams = [[0, 0, 0], [1, 0, 0], [2, 0, 0]];
    let read = |cells: &[Vec<(i64, f32)>], k: usize, image: ImageInput| {
        let input = CellInput { genes: Some(gene_input(cells, k)), image: Some(image) };
        let out = model.forward(&input, None);
        let genes = out.genes.as_ref().unwrap();
        let depth = tensor(vec![20.0; cells.len()], [cells.len()]);
        let expression = model.expression(genes, depth.clone(), None).mean;
        let of_vector = model.expression_of_vector(out.z_cell.clone(), genes, depth, None).mean;
        let painted = model.paint_hidden(out.image.as_ref().unwrap(), Some(&out.z_cell), None).prediction;
        (values(out.z_cell), values(expression), values(of_vector), values(painted))
    };
    let together = read(&cells, 20, pictures(3, Some(Kept::draw(key, &streams, 16, 0.75))));
    for (i, cell) in cells.iter().enumerate() {
        let pixels = pictures(3, None).pixels.narrow(0, i, 1);
        let kept = Some(Kept::draw(key, &streams[i..=i], 16, 0.75));
        let alone = read(std::slice::from_ref(cell), cell.len(), ImageInput { pixels, kept });
        // Other widths take other kernels: f32 with entries near 1, means of counts up to 20.
        assert!(close(&alone.0, &together.0[i * 32..][..32], 3e-6), "z of cell {i}");
        for (alone, together) in [(&alone.1, &together.1), (&alone.2, &together.2)] {
            let row = &together[i * 20..][..20];
            assert!(close(alone, &row[..cell.len()], 3e-5), "expression of cell {i}");
            assert!(row[cell.len()..].iter().all(|&mean| mean == 0.0), "padding takes no share");
        }
        let each = together.3.len() / 3;
        assert!(close(&alone.3, &together.3[i * each..][..each], 3e-6), "picture of cell {i}");
    }
}

#[test]
fn another_cell_in_the_batch_changes_no_bit() {
    let model = model(&SpatiaConfig::tiny());
    let z = |first: Vec<(i64, f32)>, shade: f32| {
        let mut image = pictures(3, None);
        let shades = [shade, 0.0, 0.0].iter().flat_map(|&shade| vec![shade; 3 * 32 * 32]).collect();
        image.pixels = image.pixels + tensor(shades, [3, 3, 32, 32]);
        let genes = gene_input(&[first, cell(5, 2), cell(9, 3)], 13);
        values(model.forward(&CellInput { genes: Some(genes), image: Some(image) }, None).z_cell)
    };
    let (a, b) = (z(cell(13, 1), 0.0), z(cell(11, 8), 0.7));
    assert_ne!(a[..32], b[..32]);
    assert_eq!(a[32..], b[32..]);
}

#[test]
fn a_cell_without_counts_gives_finite_numbers() {
    let model = model(&SpatiaConfig::tiny());
    for (cells, k) in [([vec![], vec![]], 3), ([cell(3, 1), vec![]], 3), ([vec![(1, 0.0)], vec![(2, 0.0)]], 1)] {
        let input = CellInput { genes: Some(gene_input(&cells, k)), image: None };
        let out = model.forward(&input, None);
        let (genes, none) = (out.genes.as_ref().unwrap(), tensor(vec![0.0; 2], [2]));
        for seen in [
            model.expression(genes, none.clone(), None),
            model.expression_of_vector(out.z_cell.clone(), genes, none, None),
        ] {
            for seen in [seen.mean, seen.dispersion, seen.dropout_logit] {
                assert!(values(seen).iter().all(|v| v.is_finite()));
            }
        }
        assert!(values(out.z_cell).iter().all(|v| v.is_finite()));
    }
}

#[test]
fn what_is_padded_reaches_no_output() {
    let model = model(&SpatiaConfig::tiny());
    let z = |gene: i64, value: f32| {
        let mut genes = gene_input(&[cell(5, 2)], 7);
        let ids: Vec<i64> = (0..7).map(|i| if i < 5 { i } else { gene }).collect();
        genes.genes = Tensor::from_data(TensorData::new(ids, [1, 7]), &cpu());
        genes.values = genes.values + tensor(vec![0., 0., 0., 0., 0., value, value], [1, 7]);
        values(model.forward(&CellInput { genes: Some(genes), image: Some(pictures(1, None)) }, None).z_cell)
    };
    assert_eq!(z(63, 0.0), z(7, 3.5));
}

#[test]
fn hidden_patches_reach_no_visible_output() {
    let model = model(&full());
    let kept = Kept::draw(DrawKey::new(1, Purpose::PatchMask), &[[0, 0, 0]], 16, 0.75);
    let hidden = kept.hidden();
    let read = |image: ImageInput| {
        let out = model.forward(&CellInput { genes: Some(gene_input(&[cell(5, 2)], 5)), image: Some(image) }, None);
        let image = out.image.unwrap();
        let painted = model.paint_hidden(&image, Some(&out.z_cell), None);
        let predictions = Tensor::cat(vec![painted.prediction, painted.of_vector.unwrap()], 0);
        let seen = [out.z_cell.reshape([32]), image.tokens.reshape([-1]), predictions.reshape([-1])].map(values);
        (seen, values(painted.patches))
    };
    let (seen, targets) = read(pictures(1, Some(kept.clone())));
    // Every pixel of every hidden patch changes.
    let mut pixels = noise(3 * 32 * 32, 100);
    for (i, pixel) in pixels.iter_mut().enumerate() {
        let (row, col) = (i / 32 % 32 / 8, i % 32 / 8);
        if hidden.contains(&((row * 4 + col) as u32)) {
            *pixel += 2.0;
        }
    }
    let (seen_after, targets_after) = read(ImageInput { pixels: tensor(pixels, [1, 3, 32, 32]), kept: Some(kept) });
    assert_eq!(seen, seen_after);
    assert!(targets.iter().zip(&targets_after).all(|(a, b)| (b - a - 2.0).abs() < 1e-6), "the targets did change");
}

#[test]
fn a_cell_with_one_side_only_is_encoded_and_sees_nothing_of_the_other() {
    let model = model(&SpatiaConfig::tiny());
    let genes = || Some(gene_input(&[cell(5, 2)], 5));
    let out = |genes, image| model.forward(&CellInput { genes, image }, None);
    let alone = out(genes(), None);
    assert!(alone.image.is_none() && alone.image_vector.is_none());
    let both = out(genes(), Some(pictures(1, None)));
    let vector = |out: &CellOutput| values(out.gene_vector.clone().unwrap());
    assert_eq!(vector(&alone), vector(&both), "vectors before fusion know one side only");
    let seen = out(None, Some(pictures(1, None)));
    for z in [alone.z_cell, seen.z_cell, both.z_cell] {
        assert!(values(z).iter().all(|z| z.is_finite()));
    }
}

#[test]
fn without_fusion_the_sides_stay_apart_and_alpha_goes_from_none_to_all() {
    let encode = |kind, alpha| {
        let mut config = SpatiaConfig::tiny();
        (config.fusion.kind, config.fusion.alpha) = (kind, alpha);
        let input = CellInput { genes: Some(gene_input(&[cell(5, 2)], 5)), image: Some(pictures(1, None)) };
        let out = model(&config).forward(&input, None);
        (values(out.genes.unwrap().tokens), values(out.image.unwrap().tokens))
    };
    let apart = encode(FusionKind::None, 1.0);
    assert_eq!(apart, encode(FusionKind::Both, 0.0));
    let asked = encode(FusionKind::ImageQueries, 1.0);
    assert_eq!(asked.0, apart.0);
    let both = encode(FusionKind::Both, 1.0);
    assert_eq!(asked.1, both.1);
    assert_ne!(both.0, apart.0);
    let half = encode(FusionKind::Both, 0.5);
    let mid: Vec<f32> = apart.0.iter().zip(&both.0).map(|(a, b)| (a + b) / 2.0).collect();
    assert!(close(&half.0, &mid, 1e-6));
}

#[test]
fn dropout_is_keyed_by_slot_and_off_outside_training() {
    let model = model(&SpatiaConfig::tiny());
    let z = |first_slot, cells: &[Vec<(i64, f32)>]| {
        let training = Training::new(3, 2, first_slot);
        let input = CellInput { genes: Some(gene_input(cells, 5)), image: None };
        values(model.forward(&input, Some(&training)).z_cell)
    };
    let (a, b) = (cell(5, 2), cell(5, 4));
    let together = z(8, &[a.clone(), b.clone()]);
    assert!(close(&z(9, std::slice::from_ref(&b)), &together[32..], 3e-6), "slot 9 is slot 9, whoever is beside it");
    assert!(!close(&z(8, &[b]), &together[32..], 1e-3));
    assert!(!close(&z(8, std::slice::from_ref(&a)), &z(7, &[a]), 1e-3));
}

#[test]
fn a_level_ignores_padding_and_sees_neither_order_nor_what_is_hidden() {
    let model = model(&full());
    let read = |order: [usize; 3], pad: f32, hidden_value: f32| {
        let (vectors, offsets) = (noise(3 * 32, 1), noise(6, 2));
        let (mut members, mut at) = (vec![], vec![]);
        for i in order {
            let value = |v: &f32| if i == 1 { v + hidden_value } else { *v };
            members.extend(vectors[i * 32..][..32].iter().map(value));
            at.extend(offsets[i * 2..][..2].iter().map(|v| v * 50.0));
        }
        members.extend([pad; 32]);
        at.extend([pad, pad]);
        let flags = |flags: Vec<bool>| Some(Tensor::<2, Bool>::from_data(TensorData::new(flags, [1, 4]), &cpu()));
        let input = ContextInput {
            members: tensor(members, [1, 4, 32]),
            offsets_um: tensor(at, [1, 4, 2]),
            padding: Padding::of(vec![false, false, false, true], [1, 4]),
            hidden: flags(order.iter().map(|&i| i == 1).chain([false]).collect()),
            region: None,
        };
        [values(model.niche(&input, None).z), values(model.tissue(&input, None).z)]
    };
    let pictured = |absent: bool, value: f32| {
        let [members, at] =
            [(noise(2 * 32, 1), [1, 2, 32]), (noise(4, 2), [1, 2, 2])].map(|(of, shape)| tensor(of, shape));
        let vectors = Tensor::<2>::from_data(TensorData::new(vec![value; 32], [1, 32]), &cpu());
        let region = Some(RegionInput { vectors, absent: Padding::of(vec![absent], [1, 1]) });
        values(model.niche(&ContextInput { members, offsets_um: at, padding: None, hidden: None, region }, None).z)
    };
    assert_eq!(pictured(true, 0.0), pictured(true, 3.0), "a picture that is not there");
    assert!(!close(&pictured(false, 1.0), &pictured(false, 3.0), 1e-3), "a picture that is there");
    let plain = read([0, 1, 2], 0.0, 0.0);
    assert_eq!(plain, read([0, 1, 2], 3.0, 0.0), "padding");
    assert_eq!(plain, read([0, 1, 2], 0.0, 7.0), "a hidden member");
    for (a, b) in plain.iter().zip(&read([2, 0, 1], 0.0, 0.0)) {
        assert!(close(a, b, 3e-6), "order");
    }
}
