"""Runs and measures of every system on the test collections.

`runs/{collection}.trec` holds the 100 best documents of each query, `measures.parquet` nDCG@10, RR@10 and R@100 per
query, `statistics.json` the mean number of active dimensions. A collection that fails stops the rule: there is no
average over those that happened to work.

Run by rule `evaluate`:
    python -m milco evaluate --config FILE --system NAME --corpora FOLDER --encoder FOLDER [--vectors FOLDER]
        --output FOLDER
"""

from collections.abc import Callable
from pathlib import Path

import bm25s
import ir_measures
import numpy as np
import pandas as pd
import scipy.sparse
from ir_measures import RR, R, nDCG
from tqdm import tqdm
from transformers import AutoTokenizer

from milco.beir import Collection
from milco.config import Config
from milco.encode import Vectors, collections_of, languages_of
from milco.errors import MilcoError
from milco.files import finished_folder, write_json
from milco.search import Ranking, rank_exactly

MEASURES = [nDCG @ 10, RR @ 10, R @ 100]
DEPTH = 100  # documents of a run; the deepest measure needs no more
Search = Callable[[Collection], tuple[list[Ranking], dict[str, float]]]


def measure(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Measures per query: columns query, measure, value. A judged query that found nothing counts as 0.

    Raises:
        MilcoError: the run has no entry for one of the judged queries.
    """
    forgotten = sorted(qrels.keys() - run.keys())
    if forgotten:
        raise MilcoError(f"the run has no entry for {len(forgotten)} judged queries, the first is {forgotten[0]!r}")
    metrics = ir_measures.iter_calc(MEASURES, qrels, run)
    return pd.DataFrame([(m.query_id, str(m.measure), m.value) for m in metrics], columns=["query", "measure", "value"])


def as_run(rankings: list[Ranking], queries: list[str], documents: list[str]) -> dict[str, dict[str, float]]:
    """Rankings of rows → {query id: {document id: score}}. A query that found nothing has an empty entry."""
    return {
        query: {documents[place]: score for place, score in ranking}
        for query, ranking in zip(queries, rankings, strict=True)
    }


def evaluate(config: Config, system: str, collections: Path, vectors: Path | None, encoder: Path, output: Path) -> None:
    """Search every test collection with a system and write runs and measures to the folder `output`.

    Args:
        system: `bm25`, or a system that `encode` knows, or `distill-pivot`.
        vectors: what `encode` wrote; None for bm25.
        encoder: checkpoint of the multilingual encoder, whose tokenizer BM25 uses.
    """
    search = _bm25(encoder) if vectors is None else _vector_search(Vectors(vectors), system)
    with finished_folder(output) as folder:
        (folder / "runs").mkdir()
        measures, statistics = [], []
        for collection in tqdm(collections_of(config, system, collections), desc=f"evaluate {system}"):
            try:
                rankings, found = search(collection)
                statistics.append({"collection": collection.name, **found})
                run = as_run(rankings, list(collection.queries), list(collection.documents))
                rows = measure(collection.qrels, run)
            except Exception as error:
                raise MilcoError(f"{system} on collection {collection.name}: {error}") from error
            query_language, document_language = languages_of(config, collection.name)
            measures.append(
                rows.assign(
                    collection=collection.name, query_language=query_language, document_language=document_language
                )
            )
            _write_run(run, system, folder / "runs" / f"{collection.name}.trec")
        pd.concat(measures, ignore_index=True).to_parquet(folder / "measures.parquet", index=False)
        write_json(folder / "statistics.json", statistics)


def matrices(vectors: Vectors, collection: Collection, system: str):
    """Rows of a collection's queries and documents; for `distill-pivot` without the source view's columns."""
    queries = vectors.of("queries", collection.queries.values())
    documents = vectors.of("documents", collection.documents.values())
    if system == "distill-pivot":
        return queries[:, : vectors.pivot_columns], documents[:, : vectors.pivot_columns]
    return queries, documents


def _vector_search(vectors: Vectors, system: str) -> Search:
    """Exact search over vectors; beside the rankings the mean active dimensions and the share of empty texts."""

    def search(collection: Collection) -> tuple[list[Ranking], dict[str, float]]:
        queries, documents = matrices(vectors, collection, system)
        found: dict[str, float] = {}
        for side, rows in (("query", queries), ("document", documents)):
            if scipy.sparse.issparse(rows):
                active = np.diff(rows.indptr)
                found |= {f"active_{side}": float(active.mean()), f"empty_{side}": float((active == 0).mean())}
        return rank_exactly(queries, documents, DEPTH), found

    return search


def _bm25(encoder: Path) -> Search:
    """BM25 over the pieces of the multilingual tokenizer, which cuts every script into words of a kind."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)

    def pieces(texts: list[str]) -> list[list[str]]:
        ids = tokenizer([text.lower() for text in texts], add_special_tokens=False)["input_ids"]
        return [[str(piece) for piece in text] for text in ids]

    def search(collection: Collection) -> tuple[list[Ranking], dict[str, float]]:
        retriever = bm25s.BM25()
        retriever.index(pieces(list(collection.documents.values())), show_progress=False)
        depth = min(DEPTH, len(collection.documents))
        found, scores = retriever.retrieve(pieces(list(collection.queries.values())), k=depth, show_progress=False)
        rankings = [
            [(int(place), float(score)) for place, score in zip(*row, strict=True) if score > 0]
            for row in zip(found, scores, strict=True)
        ]
        return rankings, {}

    return search


def _write_run(run: dict[str, dict[str, float]], system: str, path: Path) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for query, documents in run.items():
            for rank, (document, score) in enumerate(documents.items(), 1):
                lines.write(f"{query} Q0 {document} {rank} {score:.6f} {system}\n")
