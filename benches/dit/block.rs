//! Time of one DiT block, forward and backward: plain, and with half of its tokens merged around the self-attention.
//!
//! `cargo bench --bench dit_block -- [ROUNDS]`. Rounds alternate between the two in one process, on one kernel thread as
//! a thread-rank has; figures are medians.

use std::time::Instant;

use syncytia::model::dit::block::{DitBlock, Merged};
use syncytia::model::dit::patch::Grid;
use syncytia::model::dit::token_merging::{Destinations, match_tokens};
use syncytia::model::dit::{DitConfig, Keys, TokenMergingConfig};
use syncytia::model::init::Scope;
use syncytia::model::layers::Training;
use syncytia::tensor::{Device, Module, Tensor, TensorData, cpu, total};
use syncytia_shards::draw;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    syncytia::tensor::keep_free_pages();
    let rounds = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(9);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).stack_size(16 << 20).build().unwrap();
    one.install(|| {
        for (name, grid, d, condition, b) in [
            ("small", 16, 384, 128, 4),
            ("small", 16, 384, 128, 8),
            ("base", 32, 768, 512, 1),
            ("base", 32, 768, 512, 2),
        ] {
            measure(name, grid, d, condition, b, rounds);
        }
    });
}

fn measure(name: &str, side: usize, d: usize, condition: usize, b: usize, rounds: usize) {
    let device = cpu().autodiff();
    let config = DitConfig {
        image: side,
        channels: 3,
        patch: 1,
        d,
        blocks: 1,
        heads: d / 64,
        condition,
        condition_dropout: 0.0,
        token_merging: TokenMergingConfig { ratio: 0.5, mlp: false, cross: false },
    };
    let n = side * side;
    let sites = std::cell::Cell::new(0);
    let block = moved(DitBlock::new(&Scope::root(1, &device, &sites), &config), &device);
    let x = tensor::<3>("x", [b, n, d], &device).require_grad();
    let c = tensor::<2>("c", [b, d], &device).require_grad();
    let keys = Keys { tokens: tensor("keys", [b, 70, condition], &device), absent: None };
    let pass = |merge: bool| {
        let started = Instant::now();
        let merged = merge.then(|| {
            let grid = Grid { rows: side, columns: side };
            let map = match_tokens(x.clone().inner(), &Destinations::drawn(1, 0).of(grid, 0), n / 2);
            Merged { map, mlp: false, cross: false }
        });
        let matched = started.elapsed().as_secs_f64();
        let y = block.forward(x.clone(), &c, &keys, merged.as_ref(), Some(&Training::new(1, 0, 0)));
        let gradients = total(y.clone() * y).backward();
        let whole = started.elapsed().as_secs_f64();
        drop(gradients);
        [whole, matched]
    };
    let mut times = [vec![], vec![], vec![]];
    for round in 0..rounds + 2 {
        let ([plain, _], [merged, matched]) = (pass(false), pass(true));
        if round >= 2 {
            [plain, merged, matched].iter().zip(&mut times).for_each(|(t, all)| all.push(1e3 * t));
        }
    }
    let [plain, merged, matched] = times.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    println!(
        r#"{{"block": "{name}", "tokens": {n}, "d": {d}, "records": {b}, "plain_ms": {plain:.1}, "merged_ms": {merged:.1}, "of_it_matching_ms": {matched:.1}, "cut_percent": {:.1}}}"#,
        100.0 * (1.0 - merged / plain)
    );
}

fn tensor<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(draw::init_normals(1, name, shape.iter().product()), shape), device)
}

/// With what starts at zero moved away from it: times are those of training.
fn moved<M: Module>(module: M, device: &Device) -> M {
    let flat = syncytia::model::params::to_flat(&module);
    let noise = draw::init_normals(2, "moved", flat.len());
    let flat: Vec<f32> = flat.iter().zip(noise).map(|(a, b)| a + 0.02 * b).collect();
    syncytia::model::params::from_flat(module, &flat, device)
}
