"""Fewer terms per document: top-k and mass pruning, and what each budget costs and saves.

Run by rule `prune`:  python -m milco prune --config FILE --corpora FOLDER --vectors FOLDER --output FILE
"""

import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
from tqdm import tqdm

from milco import index
from milco.beir import read_collection
from milco.config import Config
from milco.encode import Vectors, cross_lingual, folders_of
from milco.evaluation import DEPTH, matrices, mean_ndcg, run_of
from milco.files import finished_file
from milco.search import rank_exactly


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


def sweep(config: Config, collections: Path, vectors: Path, output: Path) -> None:
    """Prune the documents of the cross-lingual collections, or of all if none is so, to every budget.

    Writes a Parquet file: method, budget, active (mean terms per document), nDCG@10 (exact search, mean over
    collections), bytes (Seismic index on disk, per document), milliseconds (mean of a query in that index).
    """
    found = Vectors(vectors)
    shared = defaultdict(list)  # collections over the same documents share an index
    for collection in map(read_collection, cross_lingual(folders_of("distill", collections))):
        shared[tuple(collection.documents.values())].append(collection)
    budgets = [("none", 0.0)]
    budgets += [("top-k", k) for k in config.evaluate.top_k] + [("mass", share) for share in config.evaluate.mass]
    rows = []
    for method, budget in tqdm(budgets, desc="prune"):
        results = []
        for group in shared.values():
            results += _measure(found, group, method, budget)
        means = pd.DataFrame(results).mean()
        rows.append({"method": method, "budget": budget, **means})
    with finished_file(output) as draft:
        pd.DataFrame(rows).to_parquet(draft, index=False)


def _measure(vectors: Vectors, collections: list, method: str, budget: float) -> list[dict]:
    """One row per collection, all over the same documents."""
    _, documents = matrices(vectors, collections[0])
    if method == "top-k":
        documents = prune_top_k(documents, int(budget))
    elif method == "mass":
        documents = prune_mass(documents, budget)
    built = index.Index.build(documents)
    with tempfile.TemporaryDirectory() as folder:
        size = built.save(Path(folder) / "pruned") / documents.shape[0]
    rows = []
    for collection in collections:
        queries, _ = matrices(vectors, collection)
        depth = collection.texts_to_find(DEPTH)
        run = run_of(collection, rank_exactly(queries, documents, depth), DEPTH)
        _, milliseconds = built.search(queries, depth)
        rows.append(
            {
                "active": float(np.diff(documents.indptr).mean()),
                "nDCG@10": mean_ndcg(collection.qrels, run),
                "bytes": size,
                "milliseconds": milliseconds,
            }
        )
    return rows
