"""Whether a generated cell has the radius that its genes say (`spatia.md` §8, acceptance a).

Usage: python3 benches/radius.py PICTURES...      (folders that `syncytia generate` wrote; needs numpy and pillow)

A cell's radius is measured in its picture, made or real: red, the mean of 3 x 3 pixels, above .4 of the way from its 5th to its
98th percentile, and connected to the centre; r = sqrt(area / pi). The rule was chosen on real pictures, where it finds the
label `truth_radius` of the synthetic cohort best.
"""

import base64
import io
import json
import re
import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def tensors(path):
    """Tensors of a .safetensors file of f32."""
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    head, body = json.loads(data[8 : 8 + n]), data[8 + n :]
    head.pop("__metadata__", None)
    of = lambda t: np.frombuffer(body[slice(*t["data_offsets"])], "<f4").reshape(t["shape"])
    return {name: of(t) for name, t in head.items()}


def radius(picture):
    """Of one picture, [h, w, 3] in 0..1; in pixels."""
    h, w = picture.shape[:2]
    red = np.pad(picture[..., 0], 1, mode="edge")
    red = sum(red[i : i + h, j : j + w] for i in range(3) for j in range(3)) / 9  # stripes would cut the body
    low, high = np.percentile(red, 5), np.percentile(red, 98)
    body = red > low + 0.4 * (high - low)
    todo = [(y, x) for y in range(h // 2 - 3, h // 2 + 3) for x in range(w // 2 - 3, w // 2 + 3) if body[y, x]]
    seen = set(todo)
    while todo:
        y, x = todo.pop()
        for at in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if 0 <= at[0] < h and 0 <= at[1] < w and body[at] and at not in seen:
                seen.add(at)
                todo.append(at)
    return np.sqrt(len(seen) / np.pi)


def real(folder):
    """The real pictures on the contact sheet."""
    page = (folder / "sheet.html").read_text()
    found = re.findall(r'base64,([^"]+)"></div><figcaption>real<', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(f))).convert("RGB")) / 255.0 for f in found]


def main():
    print("| pictures | cells | real r | made r | made r, other cell | mean radius px | after − before px | cells that shrink |")
    print("|---|---|---|---|---|---|---|---|")
    for folder in map(Path, sys.argv[1:]):
        said = json.loads((folder / "generated.json").read_text())
        truth = np.array([float(r["labels"]["truth_radius"]) for r in said["records"]])
        made = tensors(folder / "images.safetensors")
        of = lambda name: np.array([radius(np.clip(p * 0.5 + 0.5, 0, 1)) for p in made[name]])
        before = of("before" if "before" in made else "generated")
        r = lambda a, b: np.corrcoef(a, b)[0, 1]
        known = np.array([radius(p) for p in real(folder)])
        cells = [f"{folder.name}", f"{len(truth)}", f"{r(known, truth):.3f}", f"{r(before, truth):.3f}"]
        cells += [f"{r(before, np.roll(truth, 7)):.3f}", f"{before.mean():.2f} (truth {truth.mean():.2f})"]
        if "after" in made:
            moved = of("after") - before
            error = moved.std(ddof=1) / np.sqrt(len(moved))
            cells += [f"{moved.mean():+.2f} ± {error:.2f}", f"{100 * (moved < 0).mean():.0f} %"]
        else:
            cells += ["", ""]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
