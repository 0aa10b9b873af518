"""Other people's readers open what `syncytia shard` wrote: pyarrow, polars and DuckDB see the types and the values.

SYNCYTIA_TEST_SHARDS names a finished shard folder. Needs pyarrow and polars; duckdb where it is installed.
"""

import importlib.util
import json
import os
import pathlib

import pytest

FOLDER = os.environ.get("SYNCYTIA_TEST_SHARDS")
REQUIRED = os.environ.get("SYNCYTIA_REQUIRE_ALL") == "1"


def need(condition, what):
    """Skips loudly, or fails where everything is required."""
    if not condition:
        if REQUIRED:
            pytest.fail(f"{what}, and SYNCYTIA_REQUIRE_ALL=1")
        pytest.skip(f"SKIPPED: {what}")


@pytest.fixture(scope="module")
def folder():
    need(FOLDER, "SYNCYTIA_TEST_SHARDS does not name a shard folder")
    return pathlib.Path(FOLDER)


@pytest.fixture(scope="module")
def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def table(manifest):
    (obs,) = [t for t in manifest["tables"] if t["kind"] == "obs"]
    return obs


def read_groups(folder, manifest):
    """Yields (manifest entry, pyarrow table) of every row group."""
    pq = pytest.importorskip("pyarrow.parquet")
    obs = table(manifest)
    for entry in obs["row_groups"]:
        file = pq.ParquetFile(folder / obs["files"][entry["file"]]["name"])
        yield entry, file.read_row_group(entry["index"])


def test_columns_have_the_documented_types(folder, manifest):
    pa = pytest.importorskip("pyarrow")
    genes, neighbours = len(manifest["panel"]["selected"]), manifest["n_neighbours"]
    expected = {
        "record_id": pa.uint64(), "section": pa.uint32(), "library_id": pa.string(), "donor_id": pa.string(),
        "split": pa.string(), "halo": pa.bool_(), "obs_id": pa.string(),
        "x": pa.float64(), "y": pa.float64(), "x_um": pa.float64(), "y_um": pa.float64(),
        "gene_idx": pa.list_(pa.field("element", pa.uint32(), nullable=False)),
        "count": pa.list_(pa.field("element", pa.float32(), nullable=False)),
        "measured": pa.list_(pa.field("element", pa.bool_(), nullable=False), genes),
        "neighbours": pa.list_(pa.field("element", pa.int32(), nullable=False), neighbours),
    }
    if covariates := manifest.get("covariates"):
        expected["covariates"] = pa.list_(pa.field("element", pa.float32(), nullable=False), len(covariates))
    for layer in manifest["layers"]:
        expected[f"layer.{layer}"] = pa.list_(pa.field("element", pa.float32(), nullable=False), genes)
    for label in manifest["labels"]:
        expected[f"label.{label}"] = pa.string()
    for _, group in read_groups(folder, manifest):
        assert {f.name: f.type for f in group.schema} == expected


def test_row_groups_are_what_the_manifest_says(folder, manifest):
    seen, halos = {}, []
    for entry, group in read_groups(folder, manifest):
        n_own, n_rows = entry["n_own"], entry["n_own"] + entry["n_halo"]
        ids = group["record_id"].to_pylist()
        assert len(ids) == n_rows
        assert group["halo"].to_pylist() == [False] * n_own + [True] * entry["n_halo"]
        assert ids[:n_own] == sorted(set(ids[:n_own])) and ids[n_own:] == sorted(set(ids[n_own:]))
        assert {i >> 32 for i in ids} == {entry["section"]} == set(group["section"].to_pylist())
        assert set(group["split"].to_pylist()) == {entry["split"]}
        library = manifest["sections"][entry["section"]]["library_id"]
        assert set(group["library_id"].to_pylist()) == {library}
        neighbours = group["neighbours"].to_pylist()
        assert all(0 <= row < n_rows for rows in neighbours[:n_own] for row in rows)
        assert all(row == -1 for rows in neighbours[n_own:] for row in rows)
        assert all(r not in rows for r, rows in enumerate(neighbours[:n_own]))
        for record in ids[:n_own]:
            assert record not in seen, "a record is own once"
            seen[record] = entry["split"]
        halos += [(record, entry["split"]) for record in ids[n_own:]]
    assert all(seen[record] == split for record, split in halos)
    for split in manifest["splits"]:
        assert sum(s == split["split"] for s in seen.values()) == split["n_records"]


def test_measured_says_where_counts_are(folder, manifest):
    selected = manifest["panel"]["selected"]
    n_genes = len(manifest["panel"]["genes"])
    for _, group in read_groups(folder, manifest):
        rows = zip(group["gene_idx"].to_pylist(), group["count"].to_pylist(), group["measured"].to_pylist())
        for genes, counts, measured in rows:
            assert len(genes) == len(counts) and all(c > 0 for c in counts)
            assert genes == sorted(set(genes)) and all(g < n_genes for g in genes)
            assert measured == [gene in set(genes) for gene in selected]


def test_places_in_um_follow_the_scale(folder, manifest):
    for entry, group in read_groups(folder, manifest):
        scale = manifest["sections"][entry["section"]]["um_per_unit"]
        for axis in "xy":
            native, um = group[axis].to_pylist(), group[f"{axis}_um"].to_pylist()
            # one unit in the last place: the manifest keeps the scale as a decimal
            expected = [None] * len(native) if scale is None else [pytest.approx(v * scale, rel=1e-15) for v in native]
            assert um == expected


def test_polars_reads_the_same_values(folder, manifest):
    need(importlib.util.find_spec("polars"), "polars is not installed")
    import polars
    import pyarrow.parquet

    for file in table(manifest)["files"]:
        path = folder / file["name"]
        frame = polars.read_parquet(path)
        assert frame.schema["record_id"] == polars.UInt64
        assert frame.schema["gene_idx"] == polars.List(polars.UInt32)
        assert frame.schema["measured"] == polars.Array(polars.Boolean, len(manifest["panel"]["selected"]))
        assert frame.schema["neighbours"] == polars.Array(polars.Int32, manifest["n_neighbours"])
        expected = pyarrow.parquet.read_table(path)
        for name in expected.column_names:
            found = frame[name].to_list()
            assert [v.to_list() if isinstance(v, polars.Series) else v for v in found] == expected[name].to_pylist()


def test_duckdb_reads_the_same_values(folder, manifest):
    need(importlib.util.find_spec("duckdb"), "duckdb is not installed")
    import duckdb
    import pyarrow.parquet

    for file in table(manifest)["files"]:
        path = folder / file["name"]
        expected = pyarrow.parquet.read_table(path)
        columns = ", ".join(f'"{name}"' for name in expected.column_names)
        rows = duckdb.execute(f"select {columns} from read_parquet(?)", [str(path)]).fetchall()
        for name, values in zip(expected.column_names, zip(*rows)):
            found = [list(v) if isinstance(v, tuple) else v for v in values]
            assert found == expected[name].to_pylist(), name
