"""Runs and measures of every system on the test collections.

`runs/{collection}.trec` holds the best documents of each query, as many as the deepest measure of the source looks at,
`measures.parquet` the measures per query, `statistics.json` the mean number of active dimensions. A collection that
fails stops the rule: there is no average over those that happened to work.

Run by rule `evaluate`:
    python -m milco.stages evaluate --config FILE --system NAME --corpora FOLDER --encoder FOLDER [--vectors FOLDER]
        --output FOLDER
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import bm25s
import ir_measures
import numpy as np
import pandas as pd
import scipy.sparse
from ir_measures import nDCG
from tqdm import tqdm

from milco.config import Config
from milco.data.beir import Collection
from milco.data.trec import Run, write_run
from milco.errors import MilcoError
from milco.evaluation.lookup import Vectors, collections_of
from milco.evaluation.search import Ranking, rank_exactly
from milco.files import finished_folder, write_json
from milco.modeling.checkpoints import load

MAIN, DEPTH = nDCG @ 10, 10  # the measure that all collections share, and the documents that it looks at
WHOLE_RANKING = 1000  # documents that a measure without a cutoff looks at, as in TREC
Search = Callable[[Collection, int], tuple[list[Ranking], dict[str, float]]]


def measure(qrels: dict[str, dict[str, int]], run: Run, measures: Sequence = (MAIN,)) -> pd.DataFrame:
    """Measures per query: columns query, measure, value. A judged query that found nothing counts as 0.

    Raises:
        MilcoError: the run has no entry for one of the judged queries.
    """
    forgotten = sorted(qrels.keys() - run.keys())
    if forgotten:
        raise MilcoError(f"the run has no entry for {len(forgotten)} judged queries, the first is {forgotten[0]!r}")
    metrics = ir_measures.iter_calc(measures, qrels, run)
    return pd.DataFrame([(m.query_id, str(m.measure), m.value) for m in metrics], columns=["query", "measure", "value"])


def depth_of(measure: ir_measures.Measure) -> int:
    """Documents that a measure looks at."""
    return measure.params.get("cutoff", WHOLE_RANKING)


def mean_ndcg(qrels: dict[str, dict[str, int]], run: Run) -> float:
    """Mean nDCG@10 over the judged queries."""
    return float(measure(qrels, run).value.mean())


def as_run(rankings: list[Ranking], queries: Iterable[str], documents: list[str]) -> Run:
    """Rankings of rows, best first → {query id: {document id: score}}. Of rows with the same id the best counts. A
    query that found nothing has an empty entry."""
    run: Run = {}
    for query, ranking in zip(queries, rankings, strict=True):
        run[query] = {}
        for place, score in ranking:
            run[query].setdefault(documents[place], score)
    return run


def run_of(collection: Collection, rankings: list[Ranking], depth: int) -> Run:
    """The `depth` best documents of each query, from rankings of `collection.texts_to_find(depth)` texts."""
    run = as_run(rankings, collection.queries, collection.judged_ids())
    if collection.about.get("ignore_identical_ids"):
        for query, found in run.items():
            found.pop(query, None)
    return {query: dict(islice(found.items(), depth)) for query, found in run.items()}


def evaluate(config: Config, system: str, collections: Path, vectors: Path | None, encoder: Path, output: Path) -> None:
    """Search every test collection with a system and write runs and measures to the folder `output`.

    Args:
        system: `bm25`, or a system that `encode` knows, or one of `Config.mixes`.
        vectors: what `encode` wrote; None for bm25.
        encoder: checkpoint of the multilingual encoder, whose tokenizer BM25 uses.
    """
    weight = config.mixes().get(system, 1.0)
    search = _bm25(encoder, config.trusts("dense")) if vectors is None else _vector_search(Vectors(vectors), weight)
    with finished_folder(output) as folder:
        (folder / "runs").mkdir()
        measures, statistics = [], []
        for collection in tqdm(collections_of(system, collections), desc=f"evaluate {system}"):
            wanted = [ir_measures.parse_measure(name) for name in config.sources[collection.about["source"]].measures]
            depth = max(map(depth_of, wanted))
            try:
                rankings, found = search(collection, collection.texts_to_find(depth))
                statistics.append({"collection": collection.name, **found})
                run = run_of(collection, rankings, depth)
                rows = measure(collection.qrels, run, wanted)
            except Exception as error:
                raise MilcoError(f"{system} on collection {collection.name}: {error}") from error
            languages = {key: collection.about[key] for key in ("query_language", "document_language")}
            measures.append(rows.assign(collection=collection.name, **languages))
            with (folder / "runs" / f"{collection.name}.trec").open("w", encoding="utf-8") as lines:
                write_run(run, system, lines)
        pd.concat(measures, ignore_index=True).to_parquet(folder / "measures.parquet", index=False)
        write_json(folder / "statistics.json", statistics)


def matrices(vectors: Vectors, collection: Collection, source_weight: float = 1.0):
    """Rows of a collection's queries and documents.

    Args:
        source_weight: what the source view counts in a score beside the pivot view; with 0 its columns are left out.
    """
    queries = vectors.of("queries", collection.queries.values())
    documents = vectors.of("documents", collection.documents.values())
    if source_weight == 0:
        return queries[:, : vectors.pivot_columns], documents[:, : vectors.pivot_columns]
    if source_weight != 1:
        queries.data[queries.indices >= vectors.pivot_columns] *= source_weight
    return queries, documents


def _vector_search(vectors: Vectors, source_weight: float) -> Search:
    """Exact search over vectors; beside the rankings the mean active dimensions and the share of empty texts."""

    def search(collection: Collection, depth: int) -> tuple[list[Ranking], dict[str, float]]:
        queries, documents = matrices(vectors, collection, source_weight)
        found: dict[str, float] = {}
        for side, rows in (("query", queries), ("document", documents)):
            if scipy.sparse.issparse(rows):
                active = np.diff(rows.indptr)
                found |= {f"active_{side}": float(active.mean()), f"empty_{side}": float((active == 0).mean())}
        return rank_exactly(queries, documents, depth), found

    return search


def _bm25(encoder: Path, trust: bool) -> Search:
    """BM25 over the pieces of the multilingual tokenizer, which cuts every script into words of a kind."""
    from transformers import AutoTokenizer  # the one system for which a model's package is loaded

    tokenizer = load(AutoTokenizer, encoder, trust)

    def pieces(texts: list[str]) -> list[list[str]]:
        ids = tokenizer([text.lower() for text in texts], add_special_tokens=False)["input_ids"]
        return [[str(piece) for piece in text] for text in ids]

    def search(collection: Collection, depth: int) -> tuple[list[Ranking], dict[str, float]]:
        retriever = bm25s.BM25()
        retriever.index(pieces(list(collection.documents.values())), show_progress=False)
        queries, depth = pieces(list(collection.queries.values())), min(depth, len(collection.documents))
        found, scores = retriever.retrieve(queries, k=depth, show_progress=False)
        rankings = [
            [(int(place), float(score)) for place, score in zip(*row, strict=True) if score > 0]
            for row in zip(found, scores, strict=True)
        ]
        return rankings, {}

    return search
