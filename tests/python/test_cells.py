"""Other people's readers open shards of cells: pyarrow sees pictures, niches and tissues with the documented types.

SYNCYTIA_TEST_CELLS names a finished shard folder of cells with pictures and grid niches. Needs pyarrow and numpy.
"""

import json
import os
import pathlib

import pytest

FOLDER = os.environ.get("SYNCYTIA_TEST_CELLS")
REQUIRED = os.environ.get("SYNCYTIA_REQUIRE_ALL") == "1"


@pytest.fixture(scope="module")
def folder():
    if not FOLDER:
        (pytest.fail if REQUIRED else pytest.skip)("SYNCYTIA_TEST_CELLS does not name a shard folder")
    return pathlib.Path(FOLDER)


@pytest.fixture(scope="module")
def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def groups(folder, manifest, kind):
    pq = pytest.importorskip("pyarrow.parquet")
    (table,) = [t for t in manifest["tables"] if t["kind"] == kind]
    for entry in table["row_groups"]:
        file = pq.ParquetFile(folder / table["files"][entry["file"]]["name"])
        yield entry, file.read_row_group(entry["index"])


def test_counts_only_has_no_column_of_layers(folder, manifest):
    for _, group in groups(folder, manifest, "obs"):
        assert not {"measured", "neighbours", "covariates"} & set(group.column_names)
        assert manifest["layers"] == [] and manifest["panel"]["selected"] == []


def test_pictures_have_the_documented_type_and_size(folder, manifest):
    pa = pytest.importorskip("pyarrow")
    np = pytest.importorskip("numpy")
    channels = len(manifest["crops"]["channels"])
    parts = [("bytes", pa.binary()), ("channels", pa.uint8()), ("height", pa.uint32()), ("width", pa.uint32())]
    for entry, group in groups(folder, manifest, "obs"):
        kind = group.schema.field("image").type
        assert [(f.name, f.type) for f in kind][:4] == parts and kind.field("um_per_pixel").type == pa.float64()
        for picture in group["image"].to_pylist()[: entry["n_own"]]:
            shape = picture["height"], picture["width"], picture["channels"]
            assert shape[2] == channels
            assert np.frombuffer(picture["bytes"], np.uint8).reshape(shape).size > 0


def test_niches_are_made_of_records_of_one_row_group(folder, manifest):
    place, niche_of, counts = {}, {}, {}
    for k, (entry, group) in enumerate(groups(folder, manifest, "obs")):
        for i, record in enumerate(group["record_id"].to_pylist()):
            place[record] = (k, entry["split"])
            niche_of[record] = group["niche"][i].as_py()
            counts[record] = sum(group["count"][i].as_py())
    niches = {}
    for entry, group in groups(folder, manifest, "niche"):
        for row in group.to_pylist():
            assert {place[m] for m in row["members"]} == {(place[row["members"][0]][0], entry["split"])}
            assert all(niche_of[m] == row["niche_id"] for m in row["members"])
            assert len(row["members"]) == len(row["dx_um"]) == len(row["dy_um"])
            assert sum(row["count"]) == pytest.approx(sum(counts[m] for m in row["members"]))
            niches[row["niche_id"]] = row
    named = [n for _, group in groups(folder, manifest, "tissue") for row in group.to_pylist() for n in row["niches"]]
    assert sorted(named) == sorted(niches)
