"""Search and measure every system on the test collections.

`runs/{collection}.trec` holds the best documents of each query, as many as the deepest measure of the source uses,
`measures.parquet` the measures per query, `statistics.json` the mean number of active dimensions, `cut.json` what
`encode` counted. A collection that fails stops the rule: no average is taken over the remaining ones.

Run by rule `evaluate`, with `--shard` by `evaluate_shard` where several jobs share the documents:
    python -m milco.stages evaluate --config FILE --system NAME [--shard 2-of-8] --corpora FOLDER --encoder FOLDER
        [--vectors FOLDER] [--found FOLDER --found FOLDER …] --output FOLDER
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import ir_measures
import numpy as np
import pandas as pd
import scipy.sparse
from ir_measures import nDCG
from tqdm import tqdm

from milco.config import Config
from milco.content import sample_of
from milco.data.beir import Collection
from milco.data.cuts import CUT
from milco.data.trec import Run, write_run
from milco.errors import MilcoError
from milco.evaluation.bm25 import Bm25
from milco.evaluation.lookup import StoredCollection, Vectors, collections_of
from milco.evaluation.search import Block, Ranking, rank_blocks
from milco.evaluation.sharding import ALL, Found, Shard, put_together
from milco.experiments import Experiment
from milco.files import finished_folder, write_json

MAIN, DEPTH = nDCG @ 10, 10  # the measure of development evaluations and indexes, and the documents that it uses
TERM = 8  # bytes of its id and its weight
WHOLE_RANKING = 1000  # documents that a measure without a cutoff uses, as in TREC
Search = Callable[[StoredCollection, int, Shard], Found]  # the ranking has the collection's name
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
    """Cutoff of a measure: number of documents that it uses."""
    return measure.params.get("cutoff", WHOLE_RANKING)


def mean_ndcg(qrels: dict[str, dict[str, int]], run: Run) -> float:
    """Mean nDCG@10 over the judged queries."""
    return float(measure(qrels, run).value.mean())


def as_run(rankings: list[Ranking], queries: Iterable[str], documents: Names) -> Run:
    """Rankings of rows, best first → {query id: {document id: score}}. Of several rows with the same id, the best
    counts. A query that found nothing has an empty entry."""
    run: Run = {}
    for query, ranking in zip(queries, rankings, strict=True):
        run[query] = {}
        for place, score in ranking:
            run[query].setdefault(documents[place], score)
    return run


def run_of(collection: Collection | StoredCollection, rankings: list[Ranking], judged_ids: Names, depth: int) -> Run:
    """Run with the `depth` best documents of each query, from rankings of `collection.texts_to_find(depth)` texts."""
    run = as_run(rankings, collection.queries, judged_ids)
    if collection.about.get("ignore_identical_ids"):
        for query, found in run.items():
            found.pop(query, None)
    return {query: dict(islice(found.items(), depth)) for query, found in run.items()}


def evaluate(
    config: Config,
    system: str,
    collections: Path,
    vectors: Path | None,
    encoder: Path,
    output: Path,
    found: Sequence[Path] = (),
) -> None:
    """Search every test collection with a system and write runs and measures to the folder `output`.

    Args:
        system: `bm25`, or a system that `encode` knows, or one of `Config.mixes`.
        vectors: what `encode` wrote; None for bm25.
        encoder: checkpoint of the multilingual encoder, whose tokenizer BM25 uses.
        found: what `search_shard` wrote of every shard of the documents, if several jobs searched.
    """
    with finished_folder(output) as folder:
        search = _put_together(found) if found else _search(config, system, vectors, encoder, folder)
        (folder / "runs").mkdir()
        measures, statistics = [], []
        for collection in tqdm(collections_of(system, collections), desc=f"evaluate {system}"):
            wanted = measures_of(config, collection)
            depth = max(map(depth_of, wanted))
            with _named(system, collection):
                answer = search(collection, collection.texts_to_find(depth), ALL)
                rankings = answer.rankings[collection.name]
                statistics.append({"collection": collection.name, **figures(answer.sums)})
                run = run_of(collection, rankings, collection.judged_ids(rankings), depth)
                rows = measure(collection.qrels, run, wanted)
            languages = {key: collection.about[key] for key in ("query_language", "document_language")}
            measures.append(rows.assign(collection=collection.name, **languages))
            with (folder / "runs" / f"{collection.name}.trec").open("w", encoding="utf-8") as lines:
                write_run(run, system, lines)
        pd.concat(measures, ignore_index=True).to_parquet(folder / "measures.parquet", index=False)
        write_json(folder / "statistics.json", statistics)
        if vectors and (vectors / CUT).exists():  # not beside vectors of an earlier version
            shutil.copyfile(vectors / CUT, folder / CUT)


def search_shard(
    config: Config, system: str, collections: Path, vectors: Path | None, encoder: Path, shard: Shard, output: Path
) -> None:
    """Search a shard of the documents of every test collection for `evaluate`, with the same arguments. Collections
    that an earlier identical run finished are reused."""
    made_of = [sample_of(path) for path in (collections, vectors) if path]
    made_by = [Experiment(config).runs[system].key, shard, *made_of]
    with finished_folder(output, made_by) as folder, TemporaryDirectory() as scratch:
        search = _search(config, system, vectors, encoder, Path(scratch))
        for collection in tqdm(collections_of(system, collections), desc=f"search {system}"):
            if not (folder / f"{collection.name}.parquet").exists():
                depth = max(map(depth_of, measures_of(config, collection)))
                with _named(system, collection):
                    found = search(collection, collection.texts_to_find(depth), shard)
                    found.save(folder / collection.name)


def measures_of(config: Config, collection: StoredCollection) -> list[ir_measures.Measure]:
    """What is measured on a collection, as its source says."""
    return [ir_measures.parse_measure(name) for name in config.sources[collection.about["source"]].measures]


@contextmanager
def _named(system: str, collection: StoredCollection) -> Iterator[None]:
    """Add system and collection to the message of an error."""
    try:
        yield
    except Exception as error:
        raise MilcoError(f"{system} on collection {collection.name}: {error}") from error


def _search(config: Config, system: str, vectors: Path | None, encoder: Path, scratch: Path) -> Search:
    size = config.evaluate.documents_at_a_time
    if vectors is None:
        return Bm25(encoder, config.trusts("dense"), size, scratch).search
    return _vector_search(Vectors(vectors), config.mixes().get(system, 1.0), size)


def _put_together(found: Sequence[Path]) -> Search:
    def search(collection: StoredCollection, depth: int, shard: Shard) -> Found:
        return put_together([path / collection.name for path in found], {collection.name: depth})

    return search


def _vector_search(vectors: Vectors, source_weight: float, size: int) -> Search:
    """Exact search over vectors: rankings, and the sums from which `figures` computes.

    Args:
        source_weight: weight of the source view in a score, beside 1 for the pivot view; with 0 its columns are left
            out.
        size: documents in memory at a time.
    """

    def search(collection: StoredCollection, depth: int, shard: Shard) -> Found:
        queries = vectors.of("queries", collection.queries.values())
        blocks = vectors.blocks("documents", collection.places, size, shard)
        if source_weight == 0:
            queries = queries[:, : vectors.pivot_columns]
            blocks = ((places, rows[:, : vectors.pivot_columns]) for places, rows in blocks)
        elif source_weight != 1:
            queries.data[queries.indices >= vectors.pivot_columns] *= source_weight
        sides = {"query": Active(), "document": Active()}
        first = shard.number == 0  # it alone counts what does not depend on the documents
        if first:
            sides["query"].add(queries)
        start = perf_counter()
        rankings = rank_blocks(queries, sides["document"].watched(blocks), depth)
        sums: dict = {"seconds": perf_counter() - start, "dimensions": queries.shape[1] if first else 0}
        counted = ["texts", "bytes", *(["terms", "empty"] if scipy.sparse.issparse(queries) else [])]
        sums |= {f"{side}_{name}": getattr(seen, name) for side, seen in sides.items() for name in counted}
        return Found({collection.name: rankings}, sums)

    return search


def figures(sums: dict) -> dict[str, float]:
    """Mean active dimensions of either side and the share of texts without any, if the vectors are sparse; and what the
    search takes: `dimensions`, `bytes_document`, and `milliseconds` per query. Empty for BM25."""
    if not sums:
        return {}
    found = {
        f"{figure}_{side}": sums[f"{side}_{counted}"] / sums[f"{side}_texts"]
        for side in ("query", "document")
        for figure, counted in (("active", "terms"), ("empty", "empty"))
        if f"{side}_{counted}" in sums
    }
    found["dimensions"] = sums["dimensions"]
    found["bytes_document"] = sums["document_bytes"] / sums["document_texts"]
    return found | {"milliseconds": 1000 * sums["seconds"] / sums["query_texts"]}


class Active:
    """How many terms some sparse rows have, and the bytes of sparse or dense ones."""

    def __init__(self) -> None:
        self.texts = self.terms = self.empty = self.bytes = 0

    def add(self, rows) -> None:
        self.texts += rows.shape[0]
        if scipy.sparse.issparse(rows):
            terms = np.diff(rows.indptr)
            self.terms += int(terms.sum())
            self.empty += int((terms == 0).sum())
            self.bytes += TERM * rows.nnz
        else:
            self.bytes += rows.nbytes

    def watched(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for places, rows in blocks:
            self.add(rows)
            yield places, rows
