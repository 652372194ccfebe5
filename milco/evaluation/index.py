"""The Seismic inverted index: built from sparse rows, saved, loaded, searched, and held against exact search.

Seismic's classes for large vocabularies (LV) are used: a representation has more than 65,536 columns.

Run by rule `index`:  python -m milco.stages index --corpora FOLDER --vectors FOLDER --output FOLDER
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import seismic
from tqdm import tqdm

from milco.evaluation.evaluate import DEPTH, matrices, mean_ndcg, run_of
from milco.evaluation.lookup import Vectors, collections_of
from milco.evaluation.search import Ranking, rank_exactly
from milco.files import finished_folder

QUERY_CUT = 64
HEAP_FACTORS = {20: 0.7, 200: 0.3}  # of searches up to so deep, 0 of deeper ones; docs/index.md says what they find


class Index:
    """A Seismic index over the columns that its documents use.

    Seismic keeps lists for every column up to the largest, so the few thousand columns in use are numbered anew.

    Args:
        seismic_index: documents named by their row.
        columns: the columns in use, ascending.
    """

    def __init__(self, seismic_index: seismic.SeismicIndexLV, columns: np.ndarray):
        self.seismic, self.columns = seismic_index, columns

    @classmethod
    def build(cls, documents: scipy.sparse.csr_array) -> "Index":
        """Index documents; those without any term can never be found and are left out."""
        rows = documents.sorted_indices()
        columns, places = np.unique(rows.indices, return_inverse=True)
        dataset = seismic.SeismicDatasetLV()
        names = [str(row) for row in range(rows.shape[0])]
        dataset.add_documents_by_id(
            names, places.astype(np.int64), rows.data.astype(np.float32), rows.indptr.astype(np.int64)
        )
        return cls(seismic.SeismicIndexLV.build_from_dataset(dataset, num_threads=1), columns.astype(np.int64))

    def search(
        self, queries: scipy.sparse.csr_array, k: int, query_cut: int = QUERY_CUT, heap_factor: float | None = None
    ) -> tuple[list[Ranking], float]:
        """Best documents of each query, and the mean milliseconds of a query, one at a time on one thread.

        Args:
            query_cut: heaviest terms of a query that are looked up.
            heap_factor: below 1, blocks that may just miss the result are visited too; smaller finds more. By default
                the smaller the deeper the search.
        """
        if heap_factor is None:
            heap_factor = next((factor for depth, factor in HEAP_FACTORS.items() if k <= depth), 0.0)
        text = seismic.get_seismic_string()
        known = scipy.sparse.csr_array(queries[:, self.columns])
        bounds = zip(known.indptr[:-1], known.indptr[1:], strict=True)
        asked = [
            (known.indices[start:end].astype(text), known.data[start:end].astype(np.float32)) for start, end in bounds
        ]
        started = time.perf_counter()
        found = [
            self.seismic.search("", terms, weights, k=k, query_cut=query_cut, heap_factor=heap_factor)
            if len(terms)
            else []
            for terms, weights in asked
        ]
        milliseconds = (time.perf_counter() - started) * 1000 / max(1, len(asked))
        return [[(int(row), float(score)) for _, score, row in hits] for hits in found], milliseconds

    def save(self, path: Path) -> int:
        """Write `path`.index.seismic and `path`.columns.npy; returns the size of the index in bytes."""
        self.seismic.save(str(path))
        np.save(f"{path}.columns.npy", self.columns)
        return Path(f"{path}.index.seismic").stat().st_size

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Read what `save` wrote."""
        return cls(seismic.SeismicIndexLV.load(f"{path}.index.seismic"), np.load(f"{path}.columns.npy"))


def build_all(collections: Path, vectors: Path, output: Path) -> None:
    """Index every test collection and measure each index, read back from disk, beside exact search.

    Collections over the same documents share an index. Writes `{index}.index.seismic` and seismic.parquet:
    collection, index, documents, bytes, build_seconds, milliseconds (per query), recall (share of the exact 10 best
    that the index finds; of chunks as many as hold the 10 best documents), nDCG@10 of both.
    """
    found = Vectors(vectors)
    rows = []
    made: dict[tuple[str, ...], dict] = {}
    with finished_folder(output) as folder:
        for collection in tqdm(collections_of("distill", collections), desc="index"):
            queries, documents = matrices(found, collection)
            texts = tuple(collection.documents.values())
            if texts not in made:
                made[texts] = _build(documents, folder / collection.name)
            depth = collection.texts_to_find(DEPTH)
            rankings, milliseconds = Index.load(folder / made[texts]["index"]).search(queries, depth)
            exact = rank_exactly(queries, documents, depth)
            rows.append(
                {
                    "collection": collection.name,
                    "documents": len(collection.documents),
                    **made[texts],
                    "milliseconds": milliseconds,
                    "recall": recall(rankings, exact),
                    "nDCG@10": mean_ndcg(collection.qrels, run_of(collection, rankings, DEPTH)),
                    "exact nDCG@10": mean_ndcg(collection.qrels, run_of(collection, exact, DEPTH)),
                }
            )
        pd.DataFrame(rows).to_parquet(folder / "seismic.parquet", index=False)


def _build(documents: scipy.sparse.csr_array, path: Path) -> dict:
    """Build and save an index: its name, its size and the time that building took."""
    started = time.perf_counter()
    index = Index.build(documents)
    seconds = time.perf_counter() - started
    return {"index": path.name, "build_seconds": seconds, "bytes": index.save(path)}


def recall(found: list[Ranking], exact: list[Ranking]) -> float:
    """Share of the exact results that were found, mean over the queries that have any."""
    shares = [
        len({place for place, _ in hits} & {place for place, _ in wanted}) / len(wanted)
        for hits, wanted in zip(found, exact, strict=True)
        if wanted
    ]
    return float(np.mean(shares)) if shares else 1.0
