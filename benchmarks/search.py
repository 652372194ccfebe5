"""Seismic against exact search over the demo's vectors: recall and time of each setting and pruning level, beside BM25.

The documents of the English collection are mixed with training texts of the demo, encoded the same way, so that there
is something to search in; recall is the share of the exact 10 best that Seismic finds. Plain is exact search (a sparse
product, one query at a time, on one thread); memory is the size of its matrix, and that of the index on disk. Run by
`make bench`, after `make demo`.

python benchmarks/search.py
"""

import argparse
import tempfile
import time
from pathlib import Path

import bm25s
import numpy as np
import pandas as pd
import scipy.sparse
import torch
from experiment import Experiment
from measure import MIB, save

from milco.data.beir import read_collection
from milco.evaluation.evaluate import DEPTH, as_run, mean_ndcg
from milco.evaluation.index import Index, recall
from milco.evaluation.lookup import Vectors
from milco.evaluation.search import Ranking, top_k
from milco.modeling.model import MilcoModel
from milco.modeling.pruning import prune_mass

TEXTS, REPEATS = 8000, 5
SETTINGS = [(cut, factor) for cut in (8, 16, 64) for factor in (0.9, 0.7)]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    experiment = Experiment()
    collection = read_collection(experiment.at(experiment.collections.path) / "collections" / "test" / "de-en")
    vectors = Vectors(experiment.at(experiment.vectors["distill"].path))
    queries = vectors.of("queries", collection.queries.values())
    model = MilcoModel.from_pretrained(experiment.at(experiment.distill.path)).eval()
    more = (
        pd.read_parquet(experiment.at(experiment.corpora.path) / "english.parquet")
        .english.sample(TEXTS, random_state=0)
        .tolist()
    )
    with torch.autocast("cpu", torch.bfloat16):
        others = model.encode_document(more)
    documents = scipy.sparse.vstack([vectors.of("documents", collection.documents.values()), others], format="csr")
    names = [*collection.documents, *(f"training text {number}" for number in range(len(more)))]
    rows = []
    exact, baseline = exactly(queries, documents)
    unpruned = exact

    def ndcg(rankings: list[Ranking]) -> float:
        return round(mean_ndcg(collection.qrels, as_run(rankings, list(collection.queries), names)), 4)

    for share in (1.0, 0.9, 0.7, 0.5):
        pruned = prune_mass(documents, share) if share < 1 else documents
        if share < 1:
            exact, baseline = exactly(queries, pruned)
        started = time.perf_counter()
        index = Index.build(pruned)
        built = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            size = index.save(Path(folder) / "index")
        for cut, factor in SETTINGS if share == 1 else [(64, 0.7)]:
            found = [index.search(queries, DEPTH, cut, factor) for _ in range(REPEATS)]
            milliseconds = [milliseconds for _, milliseconds in found]
            ratios = [1000 * plain / mine for plain, mine in zip(baseline, milliseconds, strict=True)]
            rows.append(
                {
                    "benchmark": "search",
                    "case": f"{share:.0%} of the mass, query_cut {cut}, heap_factor {factor}",
                    "baseline_s": round(float(np.median(baseline)), 6),
                    "milco_s": round(float(np.median(milliseconds)) / 1000, 6),
                    "speedup": round(float(np.median(ratios)), 2),
                    "spread": [round(min(ratios), 2), round(max(ratios), 2)],
                    "baseline_mb": round((pruned.data.nbytes + pruned.indices.nbytes + pruned.indptr.nbytes) / MIB, 1),
                    "milco_mb": round(size / MIB, 1),
                    "recall": round(recall(found[0][0], unpruned), 4),
                    "nDCG@10": ndcg(found[0][0]),
                    "exact nDCG@10": ndcg(exact),
                    "active": round(float(np.diff(pruned.indptr).mean()), 1),
                    "build_s": round(built, 2),
                }
            )
    rows.append(bm25(model, list(collection.queries.values()), [*collection.documents.values(), *more], baseline, ndcg))
    save("search", rows)


def exactly(queries, documents) -> tuple[list[Ranking], list[float]]:
    """Exact rankings, and the seconds of a query in each of some runs."""
    transposed = documents.T.tocsr()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        rankings = [top_k((queries[[row]] @ transposed).toarray()[0], DEPTH) for row in range(queries.shape[0])]
        seconds.append((time.perf_counter() - started) / queries.shape[0])
    return rankings, seconds


def bm25(model: MilcoModel, queries: list[str], documents: list[str], baseline: list[float], ndcg) -> dict:
    """BM25 over the pieces of the multilingual tokenizer, as the demo's baseline has it."""

    def pieces(texts: list[str]) -> list[list[str]]:
        return [list(map(str, ids)) for ids in model.tokenizer([t.lower() for t in texts], add_special_tokens=False)["input_ids"]]  # fmt: skip # noqa: E501

    retriever = bm25s.BM25()
    asked = pieces(queries)
    cut = pieces(documents)
    started = time.perf_counter()
    retriever.index(cut, show_progress=False)
    built = time.perf_counter() - started
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        found, scores = retriever.retrieve(asked, k=DEPTH, show_progress=False)
        seconds.append((time.perf_counter() - started) / len(queries))
    rankings = [
        [(int(place), float(score)) for place, score in zip(*row, strict=True)]
        for row in zip(found, scores, strict=True)
    ]
    ratios = [plain / mine for plain, mine in zip(baseline, seconds, strict=True)]
    size = sum(array.nbytes for array in retriever.scores.values() if isinstance(array, np.ndarray)) / MIB
    return {
        "benchmark": "search", "case": "BM25", "baseline_s": round(float(np.median(baseline)), 6),
        "milco_s": round(float(np.median(seconds)), 6), "speedup": round(float(np.median(ratios)), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)], "baseline_mb": 0.0, "milco_mb": round(size, 1),
        "nDCG@10": ndcg(rankings), "build_s": round(built, 2),
    }  # fmt: skip


if __name__ == "__main__":
    main()
