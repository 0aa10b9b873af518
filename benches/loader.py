#!/usr/bin/env python3
"""Our loader against pyarrow + numpy on the same shards, in turn: cells a second.

    benches/loader.py LOADER SHARDS [--threads 1 4] [--rounds 5]       (python with pyarrow, numpy)

LOADER is the bench program of benches/loader/cells.rs (cargo build --release --bench loader), SHARDS a folder of cells with
pictures of one size (benches/cohort.py: 100,000 cells of 64 × 64 and 80 genes each). Both read every row group of the training
split three times, as many threads each with its own span, in windows of four row groups that are shuffled, and make batches of 256:
pictures one after the other and gene lists. `bytes`: pictures as stored. 64: f32 planes, normalised. 128: resized on the way.
Ours checks the CRC-32C of every row group and that every picture has its size and every list ascends; pyarrow checks nothing.
numpy's side has no loop over cells: whole columns, fancy indexing, resizing as two products.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

BATCH, WINDOW, EPOCHS = 256, 4, 3
PRIORITY = ["chrt", "-r", "1"] if os.geteuid() == 0 and shutil.which("chrt") else []
COLUMNS = ["record_id", "x", "y", "image", "gene_idx", "count"]
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights(size, to):
    """Bilinear, as PIL: rows are the pixels that are made."""
    import numpy as np

    step = size / to
    reach = max(step, 1.0)
    centre = (np.arange(to)[:, None] + 0.5) * step
    w = np.clip(1 - np.abs(np.arange(size)[None] + 0.5 - centre) / reach, 0, None)
    return (w / w.sum(1, keepdims=True)).astype(np.float32)


def theirs(shards, threads, what):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    started = time.perf_counter()
    pa.set_cpu_count(1)
    manifest = json.loads(Path(shards, "manifest.json").read_text())
    table = next(t for t in manifest["tables"] if t["kind"] == "obs")
    groups = [(table["files"][g["file"]]["name"], g["index"]) for g in table["row_groups"] if g["split"] == "train"]
    sums, cells = [0] * threads, [0] * threads
    mean, sd = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (MEAN, SD))

    def columns(batch):
        image = batch.column("image").combine_chunks()
        offsets = np.frombuffer(image.field("bytes").buffers()[1], np.int32)
        height, width, channels = (image.field(n)[0].as_py() for n in ("height", "width", "channels"))
        n = len(image)
        assert offsets[n] == n * height * width * channels, "pictures of one size"
        pixels = np.frombuffer(image.field("bytes").buffers()[2], np.uint8)[: offsets[n]]
        lists = [batch.column(name).combine_chunks() for name in ("gene_idx", "count")]
        genes, counts = (part.values.to_numpy() for part in lists)
        return pixels.reshape(n, height, width, channels), lists[0].offsets.to_numpy(), genes, counts

    def lane(number):
        random = np.random.default_rng(number)
        own = groups[number * len(groups) // threads : (number + 1) * len(groups) // threads]
        files = {}
        for first in [*range(0, len(own), WINDOW)] * EPOCHS:
            read = []
            for name, index in own[first : first + WINDOW]:
                file = files.get(name) or files.setdefault(name, pq.ParquetFile(Path(shards, name)))
                read.append(columns(file.read_row_group(index, COLUMNS, use_threads=False)))
            starts = np.cumsum([0] + [len(r[2]) for r in read])
            begin = np.concatenate([r[1][:-1] + start for r, start in zip(read, starts)])
            length = np.concatenate([np.diff(r[1]) for r in read])
            pixels, genes, counts = (np.concatenate([r[i] for r in read]) for i in (0, 2, 3))
            order = random.permutation(len(pixels))
            for at in range(0, len(order), BATCH):
                rows = order[at : at + BATCH]
                picture, n = pixels[rows], length[rows]
                ends = np.cumsum(n)
                where = np.arange(ends[-1]) + np.repeat(begin[rows] - ends + n, n)
                of_genes, of_counts = genes[where], counts[where]
                if what != "bytes":
                    picture = picture.transpose(0, 3, 1, 2).astype(np.float32)
                    if int(what) != picture.shape[2]:
                        w = weights(picture.shape[2], int(what))
                        picture = w @ (picture @ w.T)
                    picture = (picture * np.float32(1 / 255) - mean) / sd
                sums[number] += int(of_genes.sum()) + int(of_counts.sum()) + picture.size
                cells[number] += len(rows)

    running = [threading.Thread(target=lane, args=(number,)) for number in range(threads)]
    [one.start() for one in running]
    [one.join() for one in running]
    print(json.dumps({"cells": sum(cells), "seconds": time.perf_counter() - started, "sum": sum(sums)}))


def run(command, threads):
    env = os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    pinned = PRIORITY + ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))]
    done = subprocess.run(pinned + [str(word) for word in command], check=True, capture_output=True, text=True, env=env)
    found = json.loads(done.stdout)
    return found["cells"] / found["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loader", type=os.path.abspath)
    parser.add_argument("shards", type=os.path.abspath)
    parser.add_argument("--threads", nargs="*", type=int, default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--what", nargs="*", default=["bytes", "64", "128"])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for threads in args.threads:
        for what in args.what:
            rates = []
            for number in range(args.rounds + 1):  # the first fills the page cache
                ours = run([args.loader, args.shards, threads, what], threads)
                other = run([sys.executable, __file__, "--pyarrow", args.shards, threads, what], threads)
                if number:
                    rates.append((ours, other))
            ratio = statistics.median(a / b for a, b in rates)
            ours, other = (statistics.median(r[i] for r in rates) for i in (0, 1))
            print(f"{threads} threads  {what:<6} ours {ours / 1e3:7.1f}  pyarrow {other / 1e3:7.1f} thousand cells/s  ratio {ratio:.2f}"
                  f"  ({min(a / b for a, b in rates):.2f} – {max(a / b for a, b in rates):.2f}, load {os.getloadavg()[0]:.1f})", flush=True)


if sys.argv[1:2] == ["--pyarrow"]:
    theirs(sys.argv[2], int(sys.argv[3]), sys.argv[4])
else:
    main()
