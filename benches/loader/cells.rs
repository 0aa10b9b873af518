//! How fast the loader brings cells: three epochs of the training split in a run's order, lane by lane, checksums on, as
//! `benches/loader.py` asks for it.
//!
//! Usage: loader SHARDS THREADS bytes|SIZE
//!
//! `bytes`: pictures of a batch as they are stored, one after the other, and its gene lists. SIZE: pictures as the encoder reads
//! them, f32 planes of SIZE pixels, resized and normalised. A thread is a lane of 256 cells a batch, windows of four row groups.
//! Prints cells, seconds and a sum over what was brought, which is the same for the same data.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use syncytia::model::spatia::config::ImageConfig;
use syncytia::model::spatia::{SpatiaConfig, pixels};
use syncytia_shards::loader::{Loader, Slot};
use syncytia_shards::order::{Order, OrderConfig, Window};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::Columns;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 256;
const ROW_GROUPS: usize = 4;
const EPOCHS: u64 = 3;

fn main() {
    syncytia::tensor::keep_free_pages();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [shards, threads, what] = &arguments[..] else { panic!("SHARDS THREADS bytes|SIZE") };
    let lanes: usize = threads.parse().unwrap();
    let image = what.parse().ok().map(|size| ImageConfig { size, ..SpatiaConfig::small().image });
    let started = Instant::now();
    let shards = Arc::new(Shards::open(Path::new(shards)).unwrap());
    let entries = shards.row_groups(Split::Train);
    let sizes = entries.iter().map(|entry| entry.n_own).collect();
    // room for every lane's window and the next one's first row group
    let largest = entries.iter().map(|entry| entry.decoded_bytes).max().unwrap();
    let room = largest * (lanes as u64) * (ROW_GROUPS as u64 + 1);
    let columns = Columns { counts: true, images: true, ..Columns::default() };
    let loader = Loader::new(Arc::clone(&shards), Split::Train, columns, room).unwrap();
    assert!(!loader.holds_all(), "shards of more than {room} bytes, so that they are read in windows");
    let window = Window::RowGroups(ROW_GROUPS);
    let order = Order::new(OrderConfig { seed: 1, lanes, micro_batch: BATCH, window }, sizes).unwrap();
    let steps = EPOCHS * order.steps_per_epoch();
    let lane = |lane| {
        let mut sum = 0u64;
        for step in 0..steps {
            let rows = order.ids(step, lane);
            let slots = loader.batch(rows.iter().map(|row| (row.row_group, row.row))).unwrap();
            sum = sum.wrapping_add(brought(&slots, image.as_ref()));
        }
        sum
    };
    let sum = std::thread::scope(|scope| {
        let running: Vec<_> = (0..lanes).map(|l| scope.spawn(move || lane(l))).collect();
        running.into_iter().fold(0u64, |sum, one| sum.wrapping_add(one.join().unwrap()))
    });
    let (cells, seconds) = (steps as usize * lanes * BATCH, started.elapsed().as_secs_f64());
    println!(r#"{{"cells": {cells}, "seconds": {seconds}, "sum": {sum}}}"#);
}

/// Makes a batch of it; gives a sum of its first values, so that nothing is left out.
fn brought(slots: &[Slot], image: Option<&ImageConfig>) -> u64 {
    let (mut genes, mut counts) = (Vec::new(), Vec::new());
    for slot in slots {
        let of = slot.group.counts.as_ref().unwrap().row(slot.row);
        genes.extend_from_slice(of.0);
        counts.extend_from_slice(of.1);
    }
    let first = match image {
        None => {
            let of = |slot: &Slot| slot.group.image(slot.row).unwrap().bytes.len();
            let mut bytes = Vec::with_capacity(slots.iter().map(of).sum());
            slots.iter().for_each(|slot| bytes.extend_from_slice(slot.group.image(slot.row).unwrap().bytes));
            u64::from(bytes[0]) + bytes.len() as u64
        }
        Some(config) => {
            let mut planes = Vec::with_capacity(slots.len() * config.channels * config.size * config.size);
            for slot in slots {
                let picture = slot.group.image(slot.row).unwrap();
                let shape = [picture.height as usize, picture.width as usize, usize::from(picture.channels)];
                pixels::push_picture(&mut planes, picture.bytes, shape, config).unwrap();
            }
            u64::from(planes[0].to_bits()) + planes.len() as u64
        }
    };
    let counts: f32 = counts.iter().sum();
    first + genes.iter().map(|&gene| u64::from(gene)).sum::<u64>() + counts as u64
}
