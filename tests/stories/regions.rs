//! Niches with the pictures of their regions, from the cut to the niche's vector.

use std::collections::BTreeMap;
use std::path::Path;

use syncytia::train::checkpoint::CheckpointContents;
use syncytia_shards::pictures::CellImage;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::Columns;
use syncytia_shards::tables::vectors::{Vectors, VectorsOf, VectorsWriter};

use crate::chain::{Chain, last, ran, train};
use crate::command::{done, refused};

const NICHES: &str = "configs/spatia/tiny-niche.toml";
const SPLITS: [Split; 3] = [Split::Train, Split::Val, Split::Test];

/// Shards with regions, a stage on their cells, vectors of both.
struct Pictured {
    own: tempfile::TempDir,
    shards: String,
}

impl Pictured {
    fn new(chain: &Chain) -> Pictured {
        chain.shard("pictured", &["process.niches=\"grid\"", "process.niche_pictures=true"]);
        let this = Pictured { own: tempfile::tempdir().unwrap(), shards: chain.path("pictured") };
        let run = this.at("run");
        ran(&train("configs/spatia/tiny.toml", &this.shards, &run, 2, &["--set", "train.micro_batch=4"]));
        done(&["embed", &run, "--shards", &this.shards, "--out", &this.at("cells")]);
        done(&["embed", &run, "--shards", &this.shards, "--level", "region", "--out", &this.at("regions")]);
        this
    }

    fn at(&self, name: &str) -> String {
        self.own.path().join(name).to_str().unwrap().to_owned()
    }

    fn opened(&self) -> Shards {
        Shards::open(Path::new(&self.shards)).unwrap()
    }

    /// `train` of niches on vectors in the folders named.
    fn niches(&self, run: &str, ranks: usize, vectors: &[&str]) -> Vec<String> {
        let mut more = ["--from", &self.at("run"), "--set", "model.spatia.regions=true"].map(str::to_owned).to_vec();
        more.extend(vectors.iter().flat_map(|name| ["--vectors".to_owned(), self.at(name)]));
        train(NICHES, &self.shards, &self.at(run), ranks, &more)
    }

    /// `embed` of niches with the vectors of cells and those of regions in a folder.
    fn embed(&self, out: &str, regions: &[&str]) -> Vec<String> {
        let [run, out, cells] = [self.at("niches"), self.at(out), self.at("cells")];
        let args = ["embed", &run, "--shards", &self.shards, "--level", "niche", "--out", &out, "--vectors", &cells];
        let more = regions.iter().flat_map(|name| ["--vectors".to_owned(), self.at(name)]);
        args.map(str::to_owned).into_iter().chain(more).collect()
    }

    fn vectors(&self, name: &str, of: VectorsOf) -> Vectors {
        Vectors::read(Path::new(&self.at(name)), of, &self.opened().manifest().data_hash()).unwrap()
    }
}

#[test]
fn a_niche_is_read_with_the_picture_of_its_region() {
    let chain = Chain::get();
    let all = Pictured::new(chain);
    done(&["verify", &all.shards]);
    every_region_shows_its_cells(&all.opened());

    ran(&all.niches("niches", 1, &["regions", "cells"])); // in any order
    ran(&all.niches("niches-3", 3, &["cells", "regions"]));
    let (begun, one, three) = (last(&all.at("run")), last(&all.at("niches")), last(&all.at("niches-3")));
    assert!(one.model == three.model, "on three ranks the same bits");
    assert_eq!(token(&begun), None, "a stage without the token has no such tensor");
    assert!(token(&one).unwrap().iter().any(|&v| v != 0.0));

    // The picture reaches the vector: with that of another niche it is another, and without it too.
    let regions = all.vectors("regions", VectorsOf::Region);
    let (n, h) = (regions.ids.len(), regions.values.n_cols);
    let other = |name: &str, ids: &[u64], values: &[f32]| {
        let (hash, path) = (all.opened().manifest().data_hash(), all.at(name));
        let producer = &regions.facts.producer;
        let mut writer = VectorsWriter::create(Path::new(&path), VectorsOf::Region, h, producer, &hash).unwrap();
        writer.push(ids, values).unwrap();
        writer.finish().unwrap();
    };
    let turned = [&regions.values.values[h..], &regions.values.values[..h]].concat();
    other("turned", &regions.ids, &turned);
    other("one", &regions.ids[..1], &regions.values.values[..h]);
    let z = |name: &str, regions: &str| {
        ran(&all.embed(name, &[regions]));
        all.vectors(name, VectorsOf::Niche)
    };
    let (plain, turned, alone) = (z("plain", "regions"), z("of-turned", "turned"), z("of-one", "one"));
    assert_eq!((n, plain.ids.len()), (plain.ids.len(), alone.ids.len()));
    let differ = |other: &Vectors| (0..n).filter(|&i| plain.values.row(i) != other.values.row(i)).count();
    assert_eq!(differ(&turned), n);
    assert_eq!(differ(&alone), n - 1, "a niche without a picture is read without one");

    // A file of cells: its niches get the same pictures from its own mosaic.
    let mut files = std::fs::read_dir(chain.path("cohort")).unwrap().map(|entry| entry.unwrap().path());
    let input = files.find(|path| path.extension().is_some_and(|e| e == "h5ad")).unwrap();
    let output = all.at("embedded.h5ad");
    let said = done(&["embed", &all.at("niches"), "--input", input.to_str().unwrap(), "--output", &output]);
    assert!(said.contains("X_spatia_niche"), "{said}");

    what_is_missing_is_said(chain, &all);
}

fn what_is_missing_is_said(chain: &Chain, all: &Pictured) {
    let no = |args: &[String], code: i32, words: &[&str]| {
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, words);
        assert!(!Path::new(&all.at("none")).exists(), "{args:?} left something");
    };
    no(&all.niches("none", 1, &["cells"]), 3, &["vectors of regions", "--level region"]);
    no(&all.embed("none", &[]), 3, &["pictures of their regions", "--level region"]);
    let region = |run: &str, shards: &str| {
        ["embed", run, "--shards", shards, "--level", "region", "--out", &all.at("none")].map(str::to_owned)
    };
    no(&region(&chain.path("run"), &chain.path("cells")), 3, &["process.niche_pictures=true"]);
    let foreign = all.at("foreign");
    let args = ["embed", &all.at("niches"), "--shards", &all.shards, "--level", "region", "--out", &foreign];
    ran(&args.map(str::to_owned));
    no(&all.niches("none", 1, &["cells", "foreign"]), 3, &["the vectors of cells beside it by"]);
    let tissue = ["--from", &all.at("niches"), "--vectors", &all.at("plain")].map(str::to_owned);
    let tissue = train("configs/spatia/tiny-tissue.toml", &all.shards, &all.at("none"), 1, &tissue);
    no(&tissue, 5, &["learned with model.spatia.regions = true, here it is false"]);
    let shard = ["shard", &chain.path("cohort"), "--config", "configs/spatia/shard.toml", "--out", &all.at("none")];
    let sets = ["--set", "process.niche_pictures=true", "--set", "process.niches=\"none\""];
    no(&[&shard[..], &sets].concat().iter().map(|&s| s.to_owned()).collect::<Vec<_>>(), 2, &["process.niche_pictures"]);
}

fn token(of: &CheckpointContents) -> Option<Vec<f32>> {
    of.model.iter().find(|t| t.name == "model.niche.image.weight").map(|t| t.values.clone())
}

/// Pixels of a cell's picture that lie in its niche's square are those of the square's picture.
fn every_region_shows_its_cells(shards: &Shards) {
    let (mut seen, mut shown) = (0, 0);
    for split in SPLITS {
        let niches = shards.niches(split).unwrap();
        let row: BTreeMap<u64, usize> = niches.niche_ids.iter().enumerate().map(|(row, &id)| (id, row)).collect();
        let columns = Columns { images: true, ..Columns::default() };
        let groups: Vec<_> =
            shards.row_groups(split).iter().map(|entry| shards.read_row_group(entry, &columns).unwrap()).collect();
        let cells: BTreeMap<u64, CellImage<'_>> = groups
            .iter()
            .flat_map(|group| (0..group.n_own).map(|row| (group.record_ids[row], group.image(row).unwrap())))
            .collect();
        for entry in shards.region_groups(split) {
            let regions = shards.regions(entry).unwrap();
            for (i, id) in regions.niche_ids.iter().enumerate() {
                let region = regions.images.get(i);
                let (members, offsets) = niches.members(row[id]);
                for (member, offset) in members.iter().zip(offsets) {
                    seen += 1;
                    shown += usize::from(shows(&region, &cells[member], *offset));
                }
            }
        }
        assert_eq!(shards.region_groups(split).iter().map(|e| e.n_own as usize).sum::<usize>(), niches.n_niches());
    }
    assert!(seen > 1000 && shown == seen, "{shown} of {seen} cells are where their niche's picture shows them");
}

/// Whether a cell's picture lies `offset_um` from the centre of a region's, each window rounded to whole pixels.
fn shows(region: &CellImage<'_>, cell: &CellImage<'_>, offset_um: [f32; 2]) -> bool {
    let scale = region.um_per_pixel.unwrap();
    let (side, crop, c) = (i64::from(region.width), i64::from(cell.width), usize::from(cell.channels));
    let first = offset_um.map(|um| (f64::from(um) / scale + (side - crop) as f64 / 2.0).round() as i64);
    let pixel = |of: &CellImage<'_>, row: i64, column: i64| {
        let at = (row * i64::from(of.width) + column) as usize * c;
        of.bytes[at..at + c].to_vec()
    };
    let same = |dx: i64, dy: i64| {
        let inside =
            (0..crop).flat_map(|row| (0..crop).map(move |column| (row, column))).filter_map(|(row, column)| {
                let (y, x) = (first[1] + dy + row, first[0] + dx + column);
                ((0..side).contains(&y) && (0..side).contains(&x)).then_some(((row, column), (y, x)))
            });
        let pixels: Vec<_> = inside.collect();
        let alike =
            |((row, column), (y, x)): &((i64, i64), (i64, i64))| pixel(cell, *row, *column) == pixel(region, *y, *x);
        pixels.len() > 64 && pixels.iter().all(alike)
    };
    (-1..=1).any(|dx| (-1..=1).any(|dy| same(dx, dy)))
}
