"""Other people's readers open what `syncytia shard` hid: hidden bits, the tables `held` and `reference`.

SYNCYTIA_TEST_HIDDEN names a finished shard folder with a reference, data.holdout = "entries". Needs pyarrow.
"""

import json
import os
import pathlib

import pytest

FOLDER = os.environ.get("SYNCYTIA_TEST_HIDDEN")
REQUIRED = os.environ.get("SYNCYTIA_REQUIRE_ALL") == "1"


@pytest.fixture(scope="module")
def folder():
    if not FOLDER:
        if REQUIRED:
            pytest.fail("SYNCYTIA_TEST_HIDDEN does not name a shard folder, and SYNCYTIA_REQUIRE_ALL=1")
        pytest.skip("SKIPPED: SYNCYTIA_TEST_HIDDEN does not name a shard folder")
    return pathlib.Path(FOLDER)


@pytest.fixture(scope="module")
def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def read(folder, manifest, kind):
    pq = pytest.importorskip("pyarrow.parquet")
    (table,) = [t for t in manifest["tables"] if t["kind"] == kind]
    return [row for file in table["files"] for row in pq.read_table(folder / file["name"]).to_pylist()]


def test_columns_have_the_documented_types(folder, manifest):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    element = lambda kind: pa.field("element", kind, nullable=False)
    lists = {"gene_idx": pa.list_(element(pa.uint32())), "count": pa.list_(element(pa.float32()))}
    expected = {
        "held": {"record_id": pa.uint64(), **lists},
        "reference": {
            "cell_id": pa.uint64(), "obs_id": pa.string(), "label": pa.string(), "total": pa.float64(), **lists
        },
    }
    for table in manifest["tables"]:
        for file in table["files"]:
            schema = pq.read_schema(folder / file["name"])
            if table["kind"] == "obs":
                hidden = pa.list_(element(pa.bool_()), len(manifest["panel"]["genes"]))
                assert schema.field("hidden").type == hidden
                has_z = any(section.get("has_z") for section in manifest["sections"])
                assert ("z" in schema.names) == ("z_um" in schema.names) == has_z
            else:
                assert {f.name: f.type for f in schema} == expected[table["kind"]]


def test_an_entry_is_visible_or_held_and_as_many_are_hidden_as_the_manifest_says(folder, manifest):
    held = {row["record_id"]: row for row in read(folder, manifest, "held")}
    n_hidden = 0
    for row in read(folder, manifest, "obs"):
        hidden = {gene for gene, bit in enumerate(row["hidden"]) if bit}
        n_hidden += len(hidden)
        assert not hidden & set(row["gene_idx"])
        assert set(held[row["record_id"]]["gene_idx"]) <= hidden
    assert n_hidden == manifest["holdout"]["n_hidden"]
    assert manifest["holdout"]["protocol"] == "entries"


def test_cells_have_the_panel_s_genes(folder, manifest):
    cells = read(folder, manifest, "reference")
    n_genes = len(manifest["panel"]["genes"])
    ids = [cell["cell_id"] for cell in cells]
    assert ids == sorted(set(ids)) and ids[-1] < manifest["holdout"]["reference"]["n_cells_ingested"]
    for cell in cells:
        genes = cell["gene_idx"]
        assert genes == sorted(set(genes)) and 0 < len(genes) <= n_genes and genes[-1] < n_genes
        assert cell["total"] >= sum(cell["count"]) * (1 - 1e-12)
