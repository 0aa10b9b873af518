"""An export as a Python user opens it: numpy and safetensors, nothing of ours.

SYNCYTIA_TEST_EXPORT names a folder with the exports `plain` and `spared`, as
`SYNCYTIA_TEST_EXPORT=FOLDER cargo test --release -p syncytia --lib exports_for_python` writes them.
"""

import json
import os
import pathlib

import numpy
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

FOLDER = os.environ.get("SYNCYTIA_TEST_EXPORT")
REQUIRED = os.environ.get("SYNCYTIA_REQUIRE_ALL") == "1"
ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/spackle_names.json").read_text())


@pytest.fixture(scope="module")
def folder():
    if not FOLDER:
        what = "SYNCYTIA_TEST_EXPORT does not name a folder of exports"
        if REQUIRED:
            pytest.fail(f"{what}, and SYNCYTIA_REQUIRE_ALL=1")
        pytest.skip(f"SKIPPED: {what}")
    return pathlib.Path(FOLDER)


def load_strictly(folder, expected):
    """All expected tensors with their shapes, and no other; float32 and finite."""
    weights = load_file(folder / "model.safetensors")
    missing, unexpected = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    assert not missing and not unexpected, f"missing {sorted(missing)}, unexpected {sorted(unexpected)}"
    for name, shape in expected.items():
        assert list(weights[name].shape) == shape, f"{name}: {weights[name].shape}, expected {shape}"
        assert weights[name].dtype == numpy.float32, name
        assert numpy.isfinite(weights[name]).all(), name
    return weights


def forward(weights, x, heads):
    """The paper's network in numpy, dropout off, attention over spots: x is [batch, spots, genes]."""
    w = {name.removeprefix("model."): value.astype(numpy.float64) for name, value in weights.items()}

    def norm(x, weight, bias):
        centred = x - x.mean(-1, keepdims=True)
        return centred / numpy.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias

    h = x @ w["linear.weight"].T + w["linear.bias"]
    batch, spots, d = h.shape
    for i in (0, 1):
        part = {n.removeprefix(f"transformer_encoder.layers.{i}."): v for n, v in w.items()}
        q, k, v = numpy.split(h @ part["self_attn.in_proj_weight"].T + part["self_attn.in_proj_bias"], 3, axis=-1)
        q, k, v = (t.reshape(batch, spots, heads, d // heads).swapaxes(1, 2) for t in (q, k, v))
        scores = q @ k.swapaxes(-1, -2) / numpy.sqrt(d / heads)
        scores = numpy.exp(scores - scores.max(-1, keepdims=True))
        mixed = ((scores / scores.sum(-1, keepdims=True)) @ v).swapaxes(1, 2).reshape(batch, spots, d)
        h = norm(h + mixed @ part["self_attn.out_proj.weight"].T + part["self_attn.out_proj.bias"], part["norm1.weight"], part["norm1.bias"])
        hidden = numpy.maximum(h @ part["linear1.weight"].T + part["linear1.bias"], 0)
        h = norm(h + hidden @ part["linear2.weight"].T + part["linear2.bias"], part["norm2.weight"], part["norm2.bias"])
    return h @ w["out_linear.weight"].T + w["out_linear.bias"]


def test_a_plain_export_loads_strictly_and_computes(folder):
    weights = load_strictly(folder / "plain", GOLDEN["used"])
    with safe_open(folder / "plain/model.safetensors", framework="numpy") as file:
        assert file.metadata()["format"] == "pt", file.metadata()
    config = json.loads((folder / "plain/config.json").read_text())
    panel = (folder / "plain/panel.tsv").read_text().splitlines()
    assert panel[0].startswith("index\tgene_id\tsymbol\t") and len(panel) == 1 + config["n_genes"]
    x = numpy.random.default_rng(0).normal(size=(2, config["n_spots"], config["n_genes"]))
    y = forward(weights, x, config["model"]["heads"])
    assert y.shape == x.shape and numpy.isfinite(y).all()
    layers = [weights[f"model.transformer_encoder.layers.{i}.linear1.weight"] for i in (0, 1)]
    assert layers[0].std() > 0 and (layers[0] == layers[1]).all(), 'init = "copied": both layers start alike'


def test_the_spared_layout_has_the_template_too(folder):
    weights = load_strictly(folder / "spared", GOLDEN["used"] | GOLDEN["template"])
    for name in GOLDEN["template"]:
        used = weights[name.replace("encoder_layer", "transformer_encoder.layers.0")]
        assert (weights[name] == used).all(), name
    provenance = json.loads((folder / "spared/provenance.json").read_text())
    assert provenance["layout"] == "spared" and len(provenance["checkpoint"]["blake3"]) == 64


def test_the_strict_loader_refuses_a_missing_and_an_unexpected_name(folder):
    fewer = {name: shape for name, shape in GOLDEN["used"].items() if "norm1" not in name}
    for wrong in (GOLDEN["used"] | {"model.extra": [1]}, fewer, GOLDEN["used"] | {"model.linear.bias": [1]}):
        with pytest.raises(AssertionError):
            load_strictly(folder / "plain", wrong)
