"""Runs and measures of every system on the test collections.

`runs/{collection}.trec` holds the best documents of each query, as many as the deepest measure of the source looks at,
`measures.parquet` the measures per query, `statistics.json` the mean number of active dimensions, `cut.json` what
`encode` counted. A collection that fails stops the rule: there is no average over those that happened to work.

Run by rule `evaluate`:
    python -m milco.stages evaluate --config FILE --system NAME --corpora FOLDER --encoder FOLDER [--vectors FOLDER]
        --output FOLDER
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from time import perf_counter

import ir_measures
import numpy as np
import pandas as pd
import scipy.sparse
from ir_measures import nDCG
from tqdm import tqdm

from milco.config import Config
from milco.data.beir import Collection
from milco.data.cuts import CUT
from milco.data.trec import Run, write_run
from milco.errors import MilcoError
from milco.evaluation.bm25 import Bm25
from milco.evaluation.lookup import StoredCollection, Vectors, collections_of
from milco.evaluation.search import Block, Ranking, rank_blocks
from milco.files import finished_folder, write_json

MAIN, DEPTH = nDCG @ 10, 10  # the measure that all collections share, and the documents that it looks at
TERM = 8  # bytes of its id and its weight
WHOLE_RANKING = 1000  # documents that a measure without a cutoff looks at, as in TREC
Search = Callable[[StoredCollection, int], tuple[list[Ranking], dict[str, float]]]
Names = Sequence[str] | Mapping[int, str]  # ids of documents by their places


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


def as_run(rankings: list[Ranking], queries: Iterable[str], documents: Names) -> Run:
    """Rankings of rows, best first → {query id: {document id: score}}. Of rows with the same id the best counts. A
    query that found nothing has an empty entry."""
    run: Run = {}
    for query, ranking in zip(queries, rankings, strict=True):
        run[query] = {}
        for place, score in ranking:
            run[query].setdefault(documents[place], score)
    return run


def run_of(collection: Collection | StoredCollection, rankings: list[Ranking], judged_ids: Names, depth: int) -> Run:
    """The `depth` best documents of each query, from rankings of `collection.texts_to_find(depth)` texts."""
    run = as_run(rankings, collection.queries, judged_ids)
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
    with finished_folder(output) as folder:
        size = config.evaluate.documents_at_a_time
        search: Search
        if vectors is None:
            search = Bm25(encoder, config.trusts("dense"), size, folder).search
        else:
            search = _vector_search(Vectors(vectors), config.mixes().get(system, 1.0), size)
        (folder / "runs").mkdir()
        measures, statistics = [], []
        for collection in tqdm(collections_of(system, collections), desc=f"evaluate {system}"):
            wanted = [ir_measures.parse_measure(name) for name in config.sources[collection.about["source"]].measures]
            depth = max(map(depth_of, wanted))
            try:
                rankings, found = search(collection, collection.texts_to_find(depth))
                statistics.append({"collection": collection.name, **found})
                run = run_of(collection, rankings, collection.judged_ids(rankings), depth)
                rows = measure(collection.qrels, run, wanted)
            except Exception as error:
                raise MilcoError(f"{system} on collection {collection.name}: {error}") from error
            languages = {key: collection.about[key] for key in ("query_language", "document_language")}
            measures.append(rows.assign(collection=collection.name, **languages))
            with (folder / "runs" / f"{collection.name}.trec").open("w", encoding="utf-8") as lines:
                write_run(run, system, lines)
        pd.concat(measures, ignore_index=True).to_parquet(folder / "measures.parquet", index=False)
        write_json(folder / "statistics.json", statistics)
        if vectors and (vectors / CUT).exists():  # not beside vectors of an earlier version
            shutil.copyfile(vectors / CUT, folder / CUT)


def _vector_search(vectors: Vectors, source_weight: float, size: int) -> Search:
    """Exact search over vectors; beside the rankings the mean active dimensions, the share of empty texts, and what
    the search takes: `dimensions`, `bytes_document`, and `milliseconds` a query.

    Args:
        source_weight: what the source view counts in a score beside the pivot view; with 0 its columns are left out.
        size: documents in memory at a time.
    """

    def search(collection: StoredCollection, depth: int) -> tuple[list[Ranking], dict[str, float]]:
        queries = vectors.of("queries", collection.queries.values())
        blocks = vectors.blocks("documents", collection.places, size)
        if source_weight == 0:
            queries = queries[:, : vectors.pivot_columns]
            blocks = ((places, rows[:, : vectors.pivot_columns]) for places, rows in blocks)
        elif source_weight != 1:
            queries.data[queries.indices >= vectors.pivot_columns] *= source_weight
        active = {"query": Active(), "document": Active()}
        active["query"].add(queries)
        start = perf_counter()
        found = rank_blocks(queries, active["document"].watched(blocks), depth)
        seconds = perf_counter() - start
        figures = {name: value for side, seen in active.items() for name, value in seen.figures(side).items()}
        figures["dimensions"] = queries.shape[1]
        figures["bytes_document"] = active["document"].bytes / len(collection.places)
        figures["milliseconds"] = 1000 * seconds / queries.shape[0]
        return found, figures

    return search


class Active:
    """How many terms some sparse rows have; dense ones have none that count. And the bytes of either."""

    def __init__(self) -> None:
        self.texts = self.terms = self.empty = self.bytes = 0

    def add(self, rows) -> None:
        sparse = scipy.sparse.issparse(rows)
        self.bytes += TERM * rows.nnz if sparse else rows.nbytes
        if sparse:
            terms = np.diff(rows.indptr)
            self.texts += len(terms)
            self.terms += int(terms.sum())
            self.empty += int((terms == 0).sum())

    def watched(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for places, rows in blocks:
            self.add(rows)
            yield places, rows

    def figures(self, side: str) -> dict[str, float]:
        """Mean active dimensions and the share of texts without any; nothing of dense vectors."""
        if not self.texts:
            return {}
        return {f"active_{side}": self.terms / self.texts, f"empty_{side}": self.empty / self.texts}
