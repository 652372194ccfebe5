"""Sparse vectors on disk."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.sparse import csr_array, random_array

from milco.data.vectors import load_vectors, pivot_columns, save_vectors
from milco.errors import MilcoError

IDS = ["q1", "a b", "ü/7", "0", "#x"]


def draw(columns=300_000):
    """Five rows, the first and the last of them empty."""
    rows = random_array((5, columns), density=20 / columns, rng=np.random.default_rng(0), format="lil", dtype="float32")
    rows[[0, 4]] = 0
    return csr_array(rows)


def test_rows_and_ids_come_back_as_they_were(tmp_path):
    rows = draw()
    save_vectors(tmp_path / "vectors.safetensors", rows, IDS, pivot_columns=30_522)
    found, ids = load_vectors(tmp_path / "vectors.safetensors")
    assert ids == IDS
    assert found.shape == rows.shape and found.dtype == np.float32
    assert rows.nnz > 10 and (found != rows).nnz == 0
    assert pivot_columns(tmp_path / "vectors.safetensors") == 30_522


def test_the_files_are_those_that_the_documentation_names(tmp_path):
    save_vectors(tmp_path / "queries.safetensors", draw(), IDS)
    assert {path.name for path in tmp_path.iterdir()} == {"queries.safetensors", "queries.ids.txt"}
    types = {name: str(values.dtype) for name, values in load_file(tmp_path / "queries.safetensors").items()}
    assert types == {"indptr": "int64", "indices": "uint32", "values": "float32"}
    assert (tmp_path / "queries.ids.txt").read_text(encoding="utf-8").splitlines() == IDS


@pytest.mark.parametrize(("given", "wanted"), [(None, 300_000), (7, 7), (300_000, 300_000), (0, 0)])
def test_all_columns_are_the_pivot_view_s_unless_told(tmp_path, given, wanted):
    save_vectors(tmp_path / "vectors.safetensors", draw(), IDS, given)
    assert pivot_columns(tmp_path / "vectors.safetensors") == wanted


def test_loaded_rows_can_be_picked_and_multiplied(tmp_path):
    rows = draw()
    save_vectors(tmp_path / "vectors.safetensors", rows, IDS)
    found, _ = load_vectors(tmp_path / "vectors.safetensors")
    order = [3, 0, 3, 1]
    np.testing.assert_array_equal(found[order].toarray(), rows.toarray()[order])
    np.testing.assert_allclose((found @ found.T).toarray(), rows.toarray() @ rows.toarray().T, rtol=1e-6)


@pytest.mark.parametrize("rows", [0, 3])
def test_rows_without_weights_come_back(tmp_path, rows):
    save_vectors(tmp_path / "vectors.safetensors", csr_array((rows, 9), dtype=np.float32), [*"abc"][:rows])
    found, ids = load_vectors(tmp_path / "vectors.safetensors")
    assert found.shape == (rows, 9) and found.nnz == 0
    assert ids == [*"abc"][:rows]


@pytest.mark.parametrize("others", [IDS[:-1], [*IDS, "q2"], []])
def test_ids_that_do_not_fit_the_rows_are_an_error(tmp_path, others):
    path = tmp_path / "vectors.safetensors"
    save_vectors(path, draw(), IDS)
    path.with_suffix(".ids.txt").write_text("".join(f"{identifier}\n" for identifier in others), encoding="utf-8")
    with pytest.raises(MilcoError, match=f"5 rows but {len(others)} ids"):
        load_vectors(path)


def test_the_same_vectors_are_the_same_bytes(tmp_path):
    rows = csr_array(np.eye(3, dtype=np.float32))
    for number in range(20):
        save_vectors(tmp_path / f"{number}.safetensors", rows, ["a", "b", "c"], 2)
    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 1
