//! The pictures: labels and clusters where they lie, random cells of each cluster, curves.

use std::collections::BTreeMap;

use serde_json::Value;
use syncytia_shards::draw::{Purpose, ShuffleStream};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::Columns;

use super::words::library;
use super::{Clusters, Gathered};
use crate::evaluate::embedding::matched;
use crate::report::findings::{Gallery, Key, Picture};
use crate::report::{contact_sheet, curves, map};

/// Cells of a cluster on the sheet.
const SHOWN: usize = 12;
/// Pixels a side of a cell on the sheet.
const SIDE: u32 = 48;

/// The section with most judged records: labels, and the clusters of the first seed in the colours of the labels.
pub fn maps(shards: &Shards, gathered: &Gathered, clusters: &Clusters, column_name: &str) -> Gallery {
    let mut counts = BTreeMap::<u32, usize>::new();
    clusters.assigned.iter().for_each(|&i| *counts.entry(gathered.sections[i]).or_default() += 1);
    let most = counts.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0)));
    let section = most.expect("some are judged").0;
    let here: Vec<usize> = (0..gathered.sections.len()).filter(|&i| gathered.sections[i] == section).collect();
    let xy: Vec<[f64; 2]> = here.iter().map(|&i| gathered.xy[i]).collect();
    let coloured = |classes: &[u32]| -> Vec<u8> {
        let mut of_all = vec![None; gathered.sections.len()];
        clusters.assigned.iter().zip(classes).for_each(|(&i, &class)| of_all[i] = Some(class));
        map::classes_png(&xy, &here.iter().map(|&i| of_all[i]).collect::<Vec<_>>())
    };
    let picture = |name: &str, caption: String, classes: &[u32]| Picture {
        file: format!("map_{name}.png"),
        caption,
        bytes: coloured(classes),
    };
    let mut pictures = vec![picture("label", column_name.to_owned(), &clusters.classes)];
    for (method, clustered) in gathered.methods.iter().zip(&clusters.clustered) {
        let class_of = matched(&clustered.first, &clusters.classes, clusters.k);
        let classes: Vec<u32> = clustered.first.iter().map(|&cluster| class_of[cluster as usize]).collect();
        let caption = format!("{}, ARI {:.3}", method.name, clustered.seeds[0].ari);
        pictures.push(picture(&method.name, caption, &classes));
    }
    Gallery {
        title: format!("Where they lie: section {}", library(shards, section)),
        note: "Labels, then the clusters of the first seed, each in the colour of the label it shares most with. Grey: no label."
            .to_owned(),
        legend: (0u32..)
            .zip(&clusters.names)
            .map(|(at, name)| Key { colour: map::class_css(at), name: name.clone() })
            .collect(),
        width_px: 220,
        pictures,
    }
}

/// Random cells of every cluster of the model.
pub fn sheet(
    shards: &Shards,
    split: Split,
    gathered: &Gathered,
    clusters: &Clusters,
) -> anyhow::Result<Option<Gallery>> {
    if gathered.crops.is_empty() {
        return Ok(None);
    }
    let clustered = &clusters.clustered[0];
    let class_of = matched(&clustered.first, &clusters.classes, clusters.k);
    let of_cluster = |cluster: u32| -> Vec<usize> {
        (0..clusters.assigned.len()).filter(|&i| clustered.first[i] == cluster).collect()
    };
    let mut order: Vec<u32> = (0..clusters.k as u32).filter(|&cluster| clustered.first.contains(&cluster)).collect();
    order.sort_by_key(|&cluster| class_of[cluster as usize]);
    let drawn = |members: &[usize], cluster: u32| -> Vec<usize> {
        let mut stream = ShuffleStream::new(u64::from(cluster), Purpose::Clusters, &[]);
        stream.permutation(members.len()).into_iter().take(SHOWN).map(|at| members[at as usize]).collect()
    };
    let shown: Vec<Vec<usize>> = order.iter().map(|&cluster| drawn(&of_cluster(cluster), cluster)).collect();
    let mut places: Vec<(usize, usize)> =
        shown.iter().flatten().map(|&i| gathered.crops[clusters.assigned[i]]).collect();
    places.sort_unstable();
    let mut crops: BTreeMap<(usize, usize), Vec<u8>> = BTreeMap::new();
    let columns = Columns { images: true, ..Columns::default() };
    for of_group in places.chunk_by(|a, b| a.0 == b.0) {
        let group = shards.read_row_group(&shards.row_groups(split)[of_group[0].0], &columns)?;
        for &(at, row) in of_group {
            crops.insert((at, row), group.image(row).expect("pictures were asked for").resized(SIDE));
        }
    }
    let channels = shards.manifest().crops.as_ref().map_or(1, |crops| crops.channels.len());
    let rows: Vec<Vec<&[u8]>> = shown
        .iter()
        .map(|row| row.iter().map(|&i| crops[&gathered.crops[clusters.assigned[i]]].as_slice()).collect())
        .collect();
    let strips = contact_sheet::strips(&rows, SIDE, channels as u8);
    let pictures = order.iter().zip(strips).enumerate().map(|(at, (&cluster, bytes))| {
        let members = of_cluster(cluster);
        let class = class_of[cluster as usize];
        let hits = members.iter().filter(|&&i| clusters.classes[i] == class).count();
        let share = 100.0 * hits as f64 / members.len().max(1) as f64;
        Picture {
            file: format!("cluster_{:02}.png", at + 1),
            caption: format!("{} cells, {share:.0} % of them {}", members.len(), clusters.names[class as usize]),
            bytes,
        }
    });
    Ok(Some(Gallery {
        title: "Random cells of each cluster".to_owned(),
        note: format!(
            "At most {SHOWN} of each of the model's clusters (first seed). Contrast stretched per channel over this sheet."
        ),
        legend: Vec::new(),
        width_px: 460,
        pictures: pictures.collect(),
    }))
}

/// Training and validation loss; none beside a bare checkpoint.
pub fn learning(metrics: &[Value]) -> Option<Gallery> {
    let svg = curves::loss_svg(metrics);
    (!svg.is_empty()).then(|| Gallery {
        title: "Learning curves".to_owned(),
        note: String::new(),
        legend: Vec::new(),
        width_px: 458,
        pictures: vec![Picture {
            file: "curves.svg".to_owned(),
            caption: "Grey: training loss, means of neighbouring steps. Green: loss on the validation split."
                .to_owned(),
            bytes: svg.into_bytes(),
        }],
    })
}
