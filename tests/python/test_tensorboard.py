"""Event files as TensorBoard's own reader sees them.

Usage: test_tensorboard.py EVENTS_FOLDER [RUN_FOLDER]
EVENTS_FOLDER: written by the test `files_for_the_python_reader` (SYNCYTIA_TEST_EVENTS names it).
RUN_FOLDER: a finished and evaluated run; its points must be those of metrics.jsonl, each once.
"""

import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

checks = []


def check(what: str, holds: bool) -> None:
    if not holds:
        sys.exit(f"FAILED: {what}")
    checks.append(what)


def read(folder: str) -> EventAccumulator:
    events = EventAccumulator(folder, size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    events.Reload()
    return events


def close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 * max(1.0, abs(b))  # events hold f32


events = read(sys.argv[1])
loss = events.Scalars("train/loss")
check("a resumed run leaves no double points and no gap", [p.step for p in loss] == list(range(1, 81)))
check("points before the resume are the first session's", close(loss[39].value, 1 / 40))
check("points after it are the second's", close(loss[40].value, 2 / 41))
check("several scalars share a step", len(events.Scalars("train/lr")) == 40)
histogram = events.Histograms("weights")[0].histogram_value
check("histogram moments", (histogram.min, histogram.max, histogram.num, histogram.sum, histogram.sum_squares) == (-1.0, 2.0, 4.0, 1.5, 5.25))
check("histogram buckets", sum(histogram.bucket) == 4 and histogram.bucket_limit[-1] == 2.0)
image = events.Images("map")[0]
check("image: width and height are not swapped", (image.width, image.height) == (4, 2))
check("image: PNG bytes", image.encoded_image_string.startswith(b"\x89PNG"))

if len(sys.argv) > 2:
    run = read(sys.argv[2])
    lines = [json.loads(line) for line in (Path(sys.argv[2]) / "metrics.jsonl").read_text().splitlines()]
    for kind, key, tag in [("train", "loss", "train/loss"), ("val", "mse", "val/mse")]:
        expected = [(line["global_step"], line[key]) for line in lines if line["kind"] == kind]
        points = [(p.step, p.value) for p in run.Scalars(tag)]
        check(f"{tag}: the steps of metrics.jsonl", [p[0] for p in points] == [e[0] for e in expected] and points)
        check(f"{tag}: its values", all(close(p[1], e[1]) for p, e in zip(points, expected)))
    check("parameters have histograms", len(run.Tags()["histograms"]) > 0)
    check("an evaluated run has maps", len(run.Tags()["images"]) > 0)
print(f"{len(checks)} of {len(checks)} checks of event files passed")
