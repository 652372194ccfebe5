"""Sparse vectors on disk: CSR as three arrays in safetensors, with ids in a text file beside them."""

from pathlib import Path

import numpy as np
import scipy.sparse
from safetensors import safe_open
from safetensors.numpy import save_file

from milco.errors import MilcoError


def save_vectors(path: Path, rows: scipy.sparse.csr_array, ids: list[str], pivot_columns: int | None = None) -> None:
    """Write N rows to `path` (indptr int64, indices uint32, values float32) and their ids, one a line, to the same
    name with `.ids.txt`. The metadata holds the number of columns and how many of them are the pivot view's."""
    arrays = {
        "indptr": rows.indptr.astype(np.int64),
        "indices": rows.indices.astype(np.uint32),
        "values": rows.data.astype(np.float32),
    }
    pivot = rows.shape[1] if pivot_columns is None else pivot_columns
    metadata = {"columns": str(rows.shape[1]), "pivot_columns": str(pivot)}
    save_file(arrays, path, metadata=metadata)
    path.with_suffix(".ids.txt").write_text("".join(f"{identifier}\n" for identifier in ids), encoding="utf-8")


def load_vectors(path: Path) -> tuple[scipy.sparse.csr_array, list[str]]:
    """Read what `save_vectors` wrote."""
    ids = path.with_suffix(".ids.txt").read_text(encoding="utf-8").split("\n")[:-1]
    with safe_open(path, "np") as file:
        columns = int(file.metadata()["columns"])
        indptr, indices, values = (file.get_tensor(name) for name in ("indptr", "indices", "values"))
    if len(indptr) != len(ids) + 1:
        raise MilcoError(f"{path}: {len(indptr) - 1} rows but {len(ids)} ids beside it; delete both and encode again")
    return scipy.sparse.csr_array((values, indices.astype(np.int64), indptr), shape=(len(ids), columns)), ids


def pivot_columns(path: Path) -> int:
    """How many of the columns belong to the pivot view; the source view's come behind them."""
    with safe_open(path, "np") as file:
        return int(file.metadata()["pivot_columns"])
