//! How fast `MpiEngine` sums against the MPI library below it: every form in turn, round after round, so that a busy moment
//! meets all of them. One process of two or more under mpirun; `benches/comm.py` starts it and reads what rank 0 prints:
//! one JSON line per (sum, bytes, form) with the seconds of every round.
//!
//! Usage: reduce ROUNDS BYTES…

use std::ffi::{c_int, c_void};
use std::time::{Duration, Instant};

use mpi::ffi;
use syncytia::elementwise::bf16;
use syncytia::engine::mpi::MpiEngine;
use syncytia::engine::{Engine, reduce};

/// That of the program: a large buffer is not given back to the kernel between two uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pieces in which a user of the library might cut a message, bytes.
const PIECES: [usize; 4] = [usize::MAX, 256 << 10, 1 << 20, 4 << 20];
/// A round lasts at least about this many bytes' worth of calls, so that a clock of 25 ns does not show.
const ROUND: usize = 1 << 19;
/// Largest size at which buffers stay in the caches between two calls.
const CACHED: usize = 8 << 20;
/// Fixed point of the conversion.
const SHIFT: i32 = 40;

/// One way to do the same work, by name.
type Form<'a> = (String, Box<dyn FnMut(&mut Buffers, &mut MpiEngine) + 'a>);

/// Operands of `n` values; which are used depends on the form.
struct Buffers {
    i64s: Vec<i64>,
    i64s_out: Vec<i64>,
    f32s: Vec<f32>,
    f32s_out: Vec<f32>,
    bf16s: Vec<u16>,
    /// As many values as `bf16s`, to sum in f32 what is asked for in bf16.
    wide: Vec<f32>,
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with("--")); // cargo bench adds `--bench`
    let mut number = || arguments.next().map(|a| a.parse::<usize>().expect("ROUNDS BYTES… are numbers"));
    let rounds = number().expect("ROUNDS BYTES…");
    let sizes: Vec<usize> = std::iter::from_fn(number).collect();
    let mut engine = MpiEngine::join(Duration::from_secs(120)).unwrap();
    if engine.rank() == 0 {
        println!(r#"{{"library": "{}", "ranks": {}}}"#, MpiEngine::library(), engine.world_size());
    }
    for bytes in sizes {
        let w = engine.world_size();
        measure("i64", bytes, rounds, i64_forms(), &mut engine);
        measure("converted", bytes, rounds, converted_forms(w), &mut engine);
        measure("f32", bytes, rounds, f32_forms(), &mut engine);
        measure("bf16", bytes, rounds, bf16_forms(), &mut engine);
    }
    engine.finish().unwrap();
}

/// Runs every form once per round and prints their seconds per call.
fn measure(sum: &str, bytes: usize, rounds: usize, mut forms: Vec<Form<'_>>, engine: &mut MpiEngine) {
    let (n8, n4) = (bytes / 8, bytes / 4);
    // zeros stay zeros whatever is summed; `vec![0; n]` alone would be pages that nobody has touched
    let mut buffers = Buffers {
        i64s: vec![1; n8],
        i64s_out: vec![1; n8],
        f32s: vec![1.0; n4],
        f32s_out: vec![1.0; n4],
        bf16s: vec![1; bytes / 2],
        wide: vec![1.0; bytes / 2],
    };
    buffers.i64s.fill(0);
    buffers.bf16s.fill(0);
    buffers.wide.fill(0.0);
    buffers.f32s.fill(0.0);
    let calls = (ROUND / bytes).clamp(1, 200);
    let mut seconds = vec![vec![]; forms.len()];
    let mut order: Vec<usize> = (0..forms.len()).collect();
    let mut draws = 88_172_645_463_325_252u64; // the same on every rank
    for round in 0..=rounds {
        shuffle(&mut order, &mut draws); // no form always follows the same other one
        for &k in &order {
            if bytes <= CACHED {
                forms[k].1(&mut buffers, engine); // or it would meet what the form before left in the caches
            }
            barrier();
            let begun = Instant::now();
            for _ in 0..calls {
                forms[k].1(&mut buffers, engine);
            }
            let took = slowest(begun.elapsed().as_secs_f64() / calls as f64);
            if round > 0 {
                seconds[k].push(took); // the first round meets cold buffers
            }
        }
    }
    if engine.rank() == 0 {
        for ((form, _), seconds) in forms.iter().zip(seconds) {
            println!(r#"{{"sum": "{sum}", "bytes": {bytes}, "form": "{form}", "seconds": {seconds:?}}}"#);
        }
    }
}

/// Fisher and Yates, by xorshift.
fn shuffle(order: &mut [usize], draws: &mut u64) {
    for last in (1..order.len()).rev() {
        *draws ^= *draws << 13;
        *draws ^= *draws >> 7;
        *draws ^= *draws << 17;
        order.swap(last, (*draws % (last as u64 + 1)) as usize);
    }
}

fn i64_forms() -> Vec<Form<'static>> {
    let mut forms: Vec<Form<'_>> = vec![
        ("ours".into(), Box::new(|b, e| e.all_reduce_i64("bench", &mut b.i64s).unwrap())),
        ("memcpy".into(), Box::new(|b, _| b.i64s_out.copy_from_slice(&b.i64s))),
    ];
    for piece in PIECES {
        let in_place = move |b: &mut Buffers, _: &mut MpiEngine| library(&mut b.i64s, None, piece, sum_type::<i64>());
        let apart = move |b: &mut Buffers, _: &mut MpiEngine| {
            library(&mut b.i64s, Some(&mut b.i64s_out), piece, sum_type::<i64>());
        };
        forms.push((format!("in place, {}", cut(piece)), Box::new(in_place)));
        forms.push((format!("apart, {}", cut(piece)), Box::new(apart)));
    }
    forms
}

fn f32_forms() -> Vec<Form<'static>> {
    let mut forms: Vec<Form<'_>> = vec![
        ("ours".into(), Box::new(|b, e| e.all_reduce_f32("bench", &mut b.f32s).unwrap())),
        ("memcpy".into(), Box::new(|b, _| b.f32s_out.copy_from_slice(&b.f32s))),
    ];
    for piece in PIECES {
        let in_place = move |b: &mut Buffers, _: &mut MpiEngine| library(&mut b.f32s, None, piece, sum_type::<f32>());
        let apart = move |b: &mut Buffers, _: &mut MpiEngine| {
            library(&mut b.f32s, Some(&mut b.f32s_out), piece, sum_type::<f32>());
        };
        forms.push((format!("in place, {}", cut(piece)), Box::new(in_place)));
        forms.push((format!("apart, {}", cut(piece)), Box::new(apart)));
    }
    forms
}

/// Ours with the rounding before it and the way back; the library has no bf16, so the other side sums as many values in f32.
fn bf16_forms() -> Vec<Form<'static>> {
    let ours = |b: &mut Buffers, e: &mut MpiEngine| {
        bf16::narrow(&b.wide, &mut b.bf16s);
        e.all_reduce_bf16("bench", &mut b.bf16s).unwrap();
        bf16::widen(&b.bf16s, &mut b.wide);
    };
    let mut forms: Vec<Form<'_>> = vec![("ours".into(), Box::new(ours))];
    for piece in PIECES {
        let in_place = move |b: &mut Buffers, _: &mut MpiEngine| library(&mut b.wide, None, piece, sum_type::<f32>());
        forms.push((format!("f32 in place, {}", cut(piece)), Box::new(in_place)));
    }
    forms
}

/// The library's sum and one pass of conversion after it; and the other order: sum a segment, convert it, gather f32.
fn converted_forms(world_size: usize) -> Vec<Form<'static>> {
    let convert = |_: usize, sums: &[i64], out: &mut [f32]| reduce::dequantise(sums, SHIFT, out);
    let ours = move |b: &mut Buffers, e: &mut MpiEngine| {
        let n = b.i64s.len();
        e.all_reduce_converted("bench", &mut b.i64s, 0, &convert, &mut b.f32s_out[..n]).unwrap();
    };
    let mut forms: Vec<Form<'_>> = vec![("ours".into(), Box::new(ours))];
    for piece in PIECES {
        let then = move |b: &mut Buffers, _: &mut MpiEngine| {
            library(&mut b.i64s, None, piece, sum_type::<i64>());
            let n = b.i64s.len();
            reduce::dequantise(&b.i64s, SHIFT, &mut b.f32s_out[..n]);
        };
        forms.push((format!("in place, {}, then convert", cut(piece)), Box::new(then)));
        let then = move |b: &mut Buffers, _: &mut MpiEngine| {
            library(&mut b.i64s, Some(&mut b.i64s_out), piece, sum_type::<i64>());
            let n = b.i64s.len();
            reduce::dequantise(&b.i64s_out, SHIFT, &mut b.f32s_out[..n]);
        };
        forms.push((format!("apart, {}, then convert", cut(piece)), Box::new(then)));
    }
    for piece in PIECES {
        let order = move |b: &mut Buffers, _: &mut MpiEngine| scatter_convert_gather(b, piece, world_size);
        forms.push((format!("scatter, convert, gather, {}", cut(piece)), Box::new(order)));
    }
    forms
}

fn cut(piece: usize) -> String {
    if piece == usize::MAX { "whole".into() } else { format!("{} KiB", piece >> 10) }
}

/// `MPI_Allreduce` of pieces, in place or into `out`.
fn library<T>(values: &mut [T], mut out: Option<&mut [T]>, piece: usize, of_type: ffi::MPI_Datatype) {
    let step = (piece / size_of::<T>()).min(values.len());
    for first in (0..values.len()).step_by(step) {
        let chunk = &mut values[first..];
        let n = chunk.len().min(step);
        let (from, to): (*const c_void, *mut c_void) = match &mut out {
            Some(out) => (chunk.as_ptr().cast(), out[first..].as_mut_ptr().cast()),
            None => (in_place(), chunk.as_mut_ptr().cast()),
        };
        // SAFETY: both places have `n` values left and outlive the blocking call; the handles are the library's.
        let code = unsafe { ffi::MPI_Allreduce(from, to, n as c_int, of_type, ffi::RSMPI_SUM, ffi::RSMPI_COMM_WORLD) };
        assert_eq!(code, 0);
    }
}

/// Whole segments only: sizes are powers of two, and so is the number of ranks.
fn scatter_convert_gather(b: &mut Buffers, piece: usize, world_size: usize) {
    let step = (piece / 8).min(b.i64s.len());
    for first in (0..b.i64s.len()).step_by(step) {
        let n = (b.i64s.len() - first).min(step);
        let mine = n / world_size;
        let (sums, out) = (&mut b.i64s_out[..mine], &mut b.f32s_out[first..first + n]);
        // SAFETY: `n` values to read, a segment to write; the calls block.
        unsafe {
            let (sum, world) = (ffi::RSMPI_SUM, ffi::RSMPI_COMM_WORLD);
            let (from, to) = (b.i64s[first..].as_ptr().cast(), sums.as_mut_ptr().cast());
            let code = ffi::MPI_Reduce_scatter_block(from, to, mine as c_int, ffi::RSMPI_INT64_T, sum, world);
            assert_eq!(code, 0);
            let segment = &mut b.f32s[..mine];
            reduce::dequantise(sums, SHIFT, segment);
            let (of_type, count) = (ffi::RSMPI_FLOAT, mine as c_int);
            let (from, to) = (segment.as_ptr().cast(), out.as_mut_ptr().cast());
            assert_eq!(ffi::MPI_Allgather(from, count, of_type, to, count, of_type, world), 0);
        }
    }
}

/// `MPI_IN_PLACE`, as in the engine.
fn in_place() -> *const c_void {
    let handles_are_pointers = size_of::<ffi::MPI_Comm>() == size_of::<*const c_void>();
    std::ptr::without_provenance(if handles_are_pointers { 1 } else { usize::MAX })
}

/// The library's name of a type that is summed.
fn sum_type<T: 'static>() -> ffi::MPI_Datatype {
    let floats = std::any::TypeId::of::<T>() == std::any::TypeId::of::<f32>();
    // SAFETY: constants of the initialised library.
    unsafe { if floats { ffi::RSMPI_FLOAT } else { ffi::RSMPI_INT64_T } }
}

fn barrier() {
    // SAFETY: no buffers.
    unsafe { ffi::MPI_Barrier(ffi::RSMPI_COMM_WORLD) };
}

/// The most that any rank took.
fn slowest(mine: f64) -> f64 {
    let mut all = 0.0f64;
    // SAFETY: one value each.
    unsafe {
        let (from, to) = ((&raw const mine).cast(), (&raw mut all).cast());
        ffi::MPI_Allreduce(from, to, 1, ffi::RSMPI_DOUBLE, ffi::RSMPI_MAX, ffi::RSMPI_COMM_WORLD);
    }
    all
}
