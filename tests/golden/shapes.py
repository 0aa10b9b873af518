"""Shape features of small pictures by scikit-image, for `src/evaluate/shape`: writes shapes.json beside this file.

Usage: python3 tests/golden/shapes.py      (needs numpy and scikit-image; written with 0.26.0)
"""

import json
from pathlib import Path

import numpy as np
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops


def shape(picture):
    mask = picture > threshold_otsu(picture)
    labels = label(mask)  # pixels that touch by sides or corners
    if labels.max() == 0:
        return None
    largest = np.argmax(np.bincount(labels.ravel())[1:]) + 1
    (r,) = regionprops((labels == largest).astype(int), intensity_image=picture)
    return [
        r.area,
        r.perimeter,
        r.eccentricity,
        r.solidity,
        r.intensity_mean,
        r.intensity_max,
        r.intensity_min,
        r.intensity_std,
        r.axis_major_length,
        r.axis_minor_length,
    ]


def pictures():
    draw = np.random.default_rng(7)
    y, x = np.mgrid[:24, :20]
    disc = np.hypot(y - 11.5, x - 9) < 7
    bean = ((y - 12) / 9) ** 2 + ((x - 10) / 5) ** 2 < 1
    notch = bean & ~(np.hypot(y - 9, x - 15) < 4)
    two = (np.hypot(y - 5, x - 5) < 4) | (np.hypot(y - 17, x - 13) < 5)
    corners = np.zeros((24, 20), bool)
    corners[[3, 4, 5, 6], [3, 4, 5, 6]] = True  # touch by corners only
    corners[12:14, 10:13] = True
    line = np.zeros((24, 20), bool)
    line[4, 3:15] = True
    dot = np.zeros((24, 20), bool)
    dot[8, 8] = True
    edge = np.hypot(y, x) < 12  # reaches over the border
    ring = (np.hypot(y - 12, x - 10) < 8) & ~(np.hypot(y - 12, x - 10) < 4)
    named = dict(disc=disc, bean=bean, notch=notch, two=two, corners=corners, line=line, dot=dot, edge=edge, ring=ring)
    for name, mask in named.items():
        yield name, np.where(mask, 170, 40).astype(np.uint8)
        noisy = np.where(mask, 150, 60) + draw.normal(0, 12, mask.shape)
        yield name + " with noise", np.clip(np.round(noisy), 0, 255).astype(np.uint8)
    for k in range(6):
        yield f"noise {k}", draw.integers(0, 256, (24, 20)).astype(np.uint8)
    smooth = draw.normal(size=(24, 20, 4)).cumsum(0).cumsum(1)
    for k in range(4):
        s = smooth[..., k]
        yield f"smooth {k}", np.round(255 * (s - s.min()) / (s.max() - s.min())).astype(np.uint8)
    yield "of one value", np.full((24, 20), 9, np.uint8)


said = [{"name": n, "width": p.shape[1], "pixels": p.ravel().tolist(), "shape": shape(p)} for n, p in pictures()]
lines = ",\n".join(json.dumps(entry, default=float) for entry in said)
Path(__file__).with_name("shapes.json").write_text(f"[\n{lines}\n]\n")
