"""Top-k and mass pruning of sparse rows. milco/evaluation/budgets.py measures the budgets."""

import numpy as np
import scipy.sparse

from .errors import MilcoError

IN_CONFIG = {"documents": "document_budgets", "queries": "query_budgets"}  # of MilcoConfig
ALL = "all"  # the budget of texts whose language has none of its own, or is not said


def prune(rows: scipy.sparse.csr_array, budget: str) -> scipy.sparse.csr_array:
    """Prune each row to a budget: `none`, `top-k 100` or `mass 0.9`.

    Raises:
        MilcoError: it is none of these.
    """
    method, _, number = budget.partition(" ")
    try:
        if method == "top-k":
            return prune_top_k(rows, int(number))
        if method == "mass":
            return prune_mass(rows, float(number))
    except ValueError:
        pass
    if budget != "none":
        raise MilcoError(f"budget {budget!r}: expected none, top-k NUMBER or mass SHARE, such as `top-k 100`")
    return rows


def budget_of(budgets: dict[str, str], language: str | None = None) -> str:
    """Look up the budget of a language in the budgets of a model's config.json."""
    return budgets.get(language or ALL, budgets.get(ALL, "none"))


def prune_top_k(rows: scipy.sparse.csr_array, k: int) -> scipy.sparse.csr_array:
    """Keep the k largest weights of each row; of equal weights those with the smaller column."""
    return _keep(rows, _rank_in_row(rows) < k)


def prune_mass(rows: scipy.sparse.csr_array, share: float) -> scipy.sparse.csr_array:
    """Keep the shortest prefix of each row, in order of weight, whose sum reaches `share` of the row's total."""
    order = _heaviest_first(rows)
    weights = rows.data[order].astype(np.float64)
    before = np.cumsum(weights) - weights
    starts = np.repeat(rows.indptr[:-1], np.diff(rows.indptr))
    before -= before[starts]
    totals = np.add.reduceat(np.r_[weights, 0.0], rows.indptr[:-1]) if len(weights) else np.zeros(rows.shape[0])
    wanted = share * np.repeat(totals, np.diff(rows.indptr))
    kept = np.empty(len(order), bool)
    kept[order] = before < wanted * (1 - 1e-9)  # rounding of the sums must not cost or add a term
    return _keep(rows, kept)


def _heaviest_first(rows: scipy.sparse.csr_array) -> np.ndarray:
    """Places of all entries, row by row, each row by falling weight and then by column."""
    row_of = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    return np.lexsort((rows.indices, -rows.data, row_of))


def _rank_in_row(rows: scipy.sparse.csr_array) -> np.ndarray:
    order = _heaviest_first(rows)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(rows.indptr[:-1], np.diff(rows.indptr))
    return rank


def _keep(rows: scipy.sparse.csr_array, kept: np.ndarray) -> scipy.sparse.csr_array:
    indptr = np.r_[0, np.cumsum(kept)][rows.indptr]
    return scipy.sparse.csr_array((rows.data[kept], rows.indices[kept], indptr), shape=rows.shape)
