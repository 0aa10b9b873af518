"""Golden vectors of docs/step.md, from its text alone: a second implementation in plain Python (numpy for f32 only).

Usage: python3 tests/golden/step.py > tests/golden/step.json      (needs blake3, numpy; see the story `vectors`)
"""

import json
import math
import struct
import sys

import numpy as np
from blake3 import blake3

VERSION, M32 = 1, 0xFFFFFFFF
PURPOSES = ["Dropout", "TrainMask", "AssayMask", "Init", "Noise", "Timestep", "Crop", "GeneSubset",
            "ShuffleEpoch", "ShuffleWindow", "Mixture", "Synthetic",
            "PatchMask", "Thinning", "MemberMask"]  # fmt: skip
PURPOSE = {name: i + 1 for i, name in enumerate(PURPOSES)} | {"ConditionDrop": 20, "TokenMerge": 21}


def hashed(seed, purpose, tail=b""):
    return blake3(struct.pack("<IQI", VERSION, seed, PURPOSE[purpose]) + tail).digest()


def key_of(seed, purpose, tail=b""):
    return struct.unpack("<II", hashed(seed, purpose, tail)[:8])


def philox(counter, key):
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & M32, (p0 >> 32) ^ c[3] ^ k1, p0 & M32]
        k0, k1 = (k0 + 0x9E3779B9) & M32, (k1 + 0xBB67AE85) & M32
    return c


def word(key, element, stream):
    return philox([element // 4, *stream], key)[element % 4]


class ChaCha8:
    """Words of RFC 8439's block function with 8 rounds, a 64-bit counter and stream 0."""

    def __init__(self, key):
        self.key, self.counter, self.words = struct.unpack("<8I", key), 0, []

    def next(self):
        if not self.words:
            start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *self.key, self.counter & M32, self.counter >> 32, 0, 0]
            x = list(start)

            def quarter(a, b, c, d):
                for i, j, k, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                    x[i] = (x[i] + x[j]) & M32
                    x[k] ^= x[i]
                    x[k] = (x[k] << turn | x[k] >> (32 - turn)) & M32

            for _ in range(4):
                for i in range(4):
                    quarter(i, 4 + i, 8 + i, 12 + i)
                for i in range(4):
                    quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
            self.words = [(a + b) & M32 for a, b in zip(x, start)]
            self.counter += 1
        return self.words.pop(0)


def shuffle_stream(seed, purpose, words):
    """A function below(bound) on the stream of `words`."""
    stream = ChaCha8(hashed(seed, purpose, b"".join(struct.pack("<Q", w) for w in words)))

    def below(bound):
        while True:
            product = stream.next() * bound
            if product & M32 >= ((1 << 32) - bound) % bound:
                return product >> 32

    return below


def permutation(seed, purpose, words, n):
    below = shuffle_stream(seed, purpose, words)
    items = list(range(n))
    for i in range(n - 1, 0, -1):
        j = below(i + 1)
        items[i], items[j] = items[j], items[i]
    return items


def order_whole(seed, groups, lanes, b, steps):
    records = [(g, row) for g, n in enumerate(groups) for row in range(n)]
    per_epoch = len(records) // (lanes * b)
    out = []
    for global_step in range(steps):
        epoch, step = divmod(global_step, per_epoch)
        shuffled = permutation(seed, "ShuffleEpoch", [epoch], len(records))
        first = step * lanes * b
        out.append([records[shuffled[first + slot]] for slot in range(lanes * b)])
    return out


def order_windows(seed, groups, lanes, b, per_window, steps):
    n = sum(groups)
    per_epoch = n // (lanes * b)
    out = []
    for global_step in range(steps):
        epoch, step = divmod(global_step, per_epoch)
        shuffled = permutation(seed, "ShuffleEpoch", [epoch, 1], len(groups))
        records = [(g, row) for g in shuffled for row in range(groups[g])]
        place = [at for at, g in enumerate(shuffled) for _ in range(groups[g])]  # which permuted row group a position is in
        batch = []
        for lane in range(lanes):
            span = list(range(lane * n // lanes, (lane + 1) * n // lanes))
            read = []
            for window in range(len(groups)):
                first = place[span[0]] + window * per_window
                part = [p for p in span if first <= place[p] < first + per_window]
                read += [records[part[i]] for i in permutation(seed, "ShuffleWindow", [epoch, lane, window], len(part))]
            batch += read[step * b : (step + 1) * b]
        out.append(batch)
    return out


def normals(words):
    out = []
    for w0, w1 in zip(words[::2], words[1::2]):
        r = math.sqrt(-2.0 * math.log((w0 + 1) / 2**32))
        angle = 2 * math.pi * (w1 / 2**32)
        out += [np.float32(r * math.cos(angle)), np.float32(r * math.sin(angle))]
    return out


def bits(values):
    return [int(np.float32(v).view(np.uint32)) for v in values]


def dropout(seed, slot, step, site, p, n):
    key, t = key_of(seed, "Dropout"), int(p * 65536)
    kept = np.float32(1.0 / (1.0 - t / 65536))
    out = []
    for element in range(n):
        words = philox([element // 8, slot, step, site], key)
        half = words[element % 8 // 2] >> (16 * (element % 2)) & 0xFFFF
        out.append(np.float32(0) if half < t else kept)
    return out


def exponent(values):
    largest = max(abs(float(v)) for v in values)
    return None if largest == 0 else math.frexp(largest)[1] - 1


def quantised(lanes, exponents, tensors):
    """Σq per value, the lanes that overflow per tensor, and the values that come back."""
    total, overflow, back = [0] * len(lanes[0]), [], [0.0] * len(lanes[0])
    for t, (start, end) in enumerate(tensors):
        e = 62 - math.ceil(math.log2(len(lanes))) - 6 - exponents[t]
        for lane, gradient in enumerate(lanes):
            q = [round(float(g) * 2.0**e) for g in gradient[start:end]]  # Python rounds half to even
            if max(map(abs, q)) * len(lanes) > 2**62:
                overflow.append([lane, t])
                continue
            for i, value in enumerate(q):
                total[start + i] += value
        for i in range(start, end):
            back[i] = np.float32(np.float64(total[i]) * 2.0**-e)
    return total, overflow, back


def adamw(p, m, v, g, t, lr, wd):
    f = np.float32
    b1, b2 = 0.9, 0.999
    c1, c2 = 1 - b1**t, 1 - b2**t
    m = f(b1) * m + f(1 - b1) * g
    v = f(b2) * v + (f(1 - b2) * g) * g
    p = p * f(1 - lr * wd) - f(lr / c1) * (m / (np.sqrt(v) / f(math.sqrt(c2)) + f(1e-8)))
    return p, m, v


def norm(gradient, tensors, order=1):
    total = 0.0
    for start, end in tensors:
        sums = [0.0] * 8
        for i, g in enumerate(gradient[start:end]):
            sums[i % 8] += float(g) * float(g)
        part = 0.0
        for s in sums[::order]:
            part += s
        total += part
    return math.sqrt(total)


SEED = 20_260_101
GROUPS = [5, 9, 4, 7, 3]
rng = np.random.default_rng(5)
TENSORS = [(0, 9), (9, 10), (10, 31)]
LANES = [(rng.standard_normal(31) * 10.0 ** rng.integers(-12, 2, 31)).astype(np.float32) for _ in range(3)]
EXPONENTS = [max(exponent(lane[s:e]) for lane in LANES) for s, e in TENSORS]
LANES[1][2] = np.float32(2.0 ** (EXPONENTS[0] + 7) * 1.5)  # beyond the headroom: this lane and tensor overflow
total, overflow, back = quantised(LANES, EXPONENTS, TENSORS)
p, m, v, g = (rng.standard_normal(40).astype(np.float32) for _ in range(4))
v = np.abs(v)
m[20:], v[20:] = 0, 0  # the first update of a parameter, where no history hides a rounding
g[30:] *= np.float32(1e-9)  # as small as ε
long, PARTS = np.zeros(130, np.float32), [(0, 101), (101, 130)]
while norm(long, PARTS) == norm(long, PARTS, -1):  # until the order in which the accumulators are added shows
    long = (rng.standard_normal(130) * 10.0 ** rng.integers(-3, 3, 130)).astype(np.float32)
updated = adamw(p, m, v, g, 7, 1e-3, 0.05)


def two_terms():
    """Three steps of a loss of two terms, S_k = Σ over a lane of slope_k · p: weights W_k over all lanes, c_k = λ_k / W_k."""
    f, draw = np.float32, np.random.default_rng(6)
    start = draw.normal(size=7).astype(f)
    slopes = draw.normal(size=(3, 4, 2, 7)).astype(f)  # step, lane, term, parameter
    lambdas, weights = [1.0, 0.3], draw.integers(1, 50, size=(3, 2)).astype(float)
    weights[1, 1] = 0  # a step in which the second term has nothing
    p, m, v = start, np.zeros(7, f), np.zeros(7, f)
    for step in range(3):
        c = [f(lam / w) if w else f(0) for lam, w in zip(lambdas, weights[step])]
        lanes = [c[0] * slopes[step, lane, 0] + c[1] * slopes[step, lane, 1] for lane in range(4)]
        e = [max(exponent(lane) for lane in lanes)]
        p, m, v = adamw(p, m, v, np.array(quantised(lanes, e, [(0, 7)])[2], f), step + 1, 1e-2, 0.05)
    flat = [[[bits(term) for term in lane] for lane in step] for step in slopes]
    return {"start": bits(start), "slopes": flat, "lambdas": lambdas, "weights": weights.tolist(), "after": bits(p)}


average = np.float32(0.98) * p + np.float32(1 - 0.98) * updated[0]
json.dump(
    {
        "seed": SEED,
        "draws": {name: [word(key_of(SEED, name), i, [3, 2, 1]) for i in range(16)] for name in PURPOSE},
        "init_uniforms": bits((word(key_of(SEED, "Init", b"a.weight"), i, [0, 0, 0]) >> 8) * 2.0**-24 for i in range(9)),
        "init_normals": bits(normals([word(key_of(SEED, "Init", b"b.weight"), i, [0, 0, 0]) for i in range(10)])),
        "step_mask": [word(key_of(SEED, "TrainMask"), i, [11, 4, 0]) < int([0.3, 0.5, 1.0][i % 3] * 2**32) for i in range(12)],
        "assay_mask": [word(key_of(SEED, "AssayMask"), i, [17, 2, 5]) < int(0.4 * 2**32) for i in range(12)],
        "dropout": bits(dropout(SEED, 11, 4, 2, 0.1, 150)),
        "below": list(map(shuffle_stream(SEED, "ShuffleWindow", [1, 2, 3]), [3 << 30] * 20)),  # a quarter is rejected
        "permutation": permutation(SEED, "ShuffleEpoch", [6], 40),
        "groups": GROUPS,
        "order_whole": order_whole(SEED, GROUPS, 2, 3, 21),
        "order_windows": order_windows(SEED, GROUPS, 2, 3, 2, 21),
        "tensors": TENSORS,
        "lanes": [bits(lane) for lane in LANES],
        "exponents": EXPONENTS,
        "sums": total,
        "overflow": overflow,
        "back": bits(back),
        "adam": {"p": bits(p), "m": bits(m), "v": bits(v), "g": bits(g), "after": [bits(x) for x in updated]},
        "ema": bits(average),
        "two_terms": two_terms(),
        "norm": {"of": bits(long), "is": struct.unpack("<Q", struct.pack("<d", norm(long, PARTS)))[0]},
    },
    sys.stdout,
    indent=None,
)
print()
