"""Vectors on disk: CSR as three arrays, or one dense array, in safetensors, with ids in a text file beside them."""

from pathlib import Path

import numpy as np
import scipy.sparse
from safetensors import safe_open
from safetensors.numpy import save_file

from milco.errors import MilcoError
from milco.files import finished_file

LARGEST = float(np.finfo(np.float32).max)


def save_vectors(path: Path, rows: scipy.sparse.csr_array, ids: list[str], pivot_columns: int | None = None) -> None:
    """Write N rows to `path` (indptr int64, indices uint32, values float32) and their ids, one a line, to the same name
    with `.ids.txt`. The metadata `columns` has the number of columns and the number of pivot columns."""
    arrays = {
        "indptr": rows.indptr.astype(np.int64),
        "indices": rows.indices.astype(np.uint32),
        "values": rows.data.astype(np.float32),
    }
    pivot = rows.shape[1] if pivot_columns is None else pivot_columns
    # A single entry: the library writes several in any order, but equal vectors must be equal bytes, so that publishing
    # them again changes nothing.
    _write(path, arrays, ids, {"columns": f"{rows.shape[1]} {pivot}"})


def save_dense(path: Path, vectors: np.ndarray, ids: list[str]) -> None:
    """Write N×d dense vectors to `path` and their ids beside it, as `save_vectors` does."""
    _write(path, {"vectors": vectors}, ids)


def _write(path: Path, arrays: dict[str, np.ndarray], ids: list[str], metadata: dict[str, str] | None = None) -> None:
    """Write the ids first: wherever a file of vectors exists, its ids do."""
    with finished_file(path.with_suffix(".ids.txt")) as draft:
        draft.write_text("".join(f"{identifier}\n" for identifier in ids), encoding="utf-8")
    with finished_file(path) as draft:
        save_file(arrays, draft, metadata=metadata)


def load_vectors(path: Path) -> tuple[scipy.sparse.csr_array | np.ndarray, list[str]]:
    """Read what `save_vectors` or `save_dense` wrote: rows (CSR or N×d) and their ids."""
    ids = load_ids(path)
    with safe_open(path, "np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        columns = _columns(file)
    rows = len(found["vectors"]) if "vectors" in found else len(found["indptr"]) - 1
    if rows != len(ids):
        raise MilcoError(f"{path}: {rows} rows but {len(ids)} ids beside it; delete both and encode again")
    if "vectors" in found:
        return found["vectors"], ids
    small = max(columns[0], len(found["values"])) <= np.iinfo(np.int32).max  # half the memory, and quicker
    indices = found["indices"].view(np.int32) if small else found["indices"].astype(np.int64)
    cells = (found["values"], indices, found["indptr"].astype(indices.dtype))
    return scipy.sparse.csr_array(cells, shape=(rows, columns[0])), ids


def load_ids(path: Path) -> list[str]:
    """The ids of the rows of `path` alone."""
    return path.with_suffix(".ids.txt").read_text(encoding="utf-8").split("\n")[:-1]


def terms_and_rows(path: Path) -> tuple[int, int]:
    """How many weights and rows a file of sparse vectors has."""
    with safe_open(path, "np") as file:
        terms, edges = (file.get_slice(name).get_shape()[0] for name in ("values", "indptr"))
    return terms, edges - 1


def pivot_columns(path: Path) -> int | None:
    """How many columns belong to the pivot view; those of the source view follow them. None: dense vectors."""
    with safe_open(path, "np") as file:
        columns = _columns(file)
    return columns[1] if columns else None


def _columns(file) -> list[int]:
    """Columns, and those of the pivot view; empty for dense vectors."""
    return [int(number) for number in (file.metadata() or {}).get("columns", "").split()]
