"""The Seismic inverted index: built from sparse rows, saved, loaded, searched, and compared with exact search.

Seismic's classes for large vocabularies (LV) are used: a representation has more than 65,536 columns.

Run by rule `index`, with `--shard` by `index_shard` where several jobs share the documents:
    python -m milco.stages index --config FILE [--shard 2-of-8] --corpora FOLDER --vectors FOLDER
        [--found FOLDER --found FOLDER …] --output FOLDER
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import seismic
from tqdm import tqdm

from milco.config import Config
from milco.content import sample_of
from milco.evaluation.evaluate import DEPTH, mean_ndcg, run_of
from milco.evaluation.lookup import Places, StoredCollection, Vectors, collections_of, link_or_copy
from milco.evaluation.search import Ranking, rank_blocks
from milco.evaluation.sharding import ALL, Found, Shard, put_together
from milco.experiments import Experiment
from milco.files import finished_folder

QUERY_CUT = 64
BUILT = ("parts", "bytes", "build_seconds")  # what is said of an index
TIMED, PASSES = 80, 5  # queries that are timed, and how often
HEAP_FACTORS = {20: 0.7, 200: 0.3}  # of searches up to this depth, 0 of deeper ones; docs/index.md says what they find
DOCUMENTS, POSTINGS = 1_000_000, 100_000_000  # of one part of an index, at most; docs/scale.md has its memory


class Index:
    """A Seismic index over the columns that its documents use.

    Seismic keeps lists for every column up to the largest, so the few thousand columns in use get new numbers.

    Args:
        seismic_index: documents named by their row.
        columns: the columns in use, ascending.
    """

    def __init__(self, seismic_index: seismic.SeismicIndexLV, columns: np.ndarray):
        self.seismic, self.columns = seismic_index, columns

    @classmethod
    def build(cls, documents: scipy.sparse.csr_array, places: Iterable[int] | None = None) -> "Index":
        """Index documents; those without any term can never be found and are left out.

        Args:
            places: numbers by which the documents are found; by default those of their rows.
        """
        rows = documents.sorted_indices()
        columns, numbers = np.unique(rows.indices, return_inverse=True)
        dataset = seismic.SeismicDatasetLV()
        names = [str(place) for place in (range(rows.shape[0]) if places is None else places)]
        dataset.add_documents_by_id(
            names, numbers.astype(np.int64), rows.data.astype(np.float32), rows.indptr.astype(np.int64)
        )
        return cls(seismic.SeismicIndexLV.build_from_dataset(dataset, num_threads=1), columns.astype(np.int64))

    def search(
        self, queries: scipy.sparse.csr_array, k: int, query_cut: int = QUERY_CUT, heap_factor: float | None = None
    ) -> tuple[list[Ranking], float]:
        """Best documents of each query, and the mean milliseconds of a query, one at a time on one thread.

        Args:
            query_cut: number of heaviest query terms that are looked up.
            heap_factor: below 1, blocks whose estimated score is slightly too low are visited as well; smaller values
                find more. By default, the deeper the search, the smaller it is.
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

    def times(self, queries: scipy.sparse.csr_array, k: int) -> np.ndarray:
        """Mean milliseconds of a query in each of `PASSES` passes over the first `TIMED` queries. A pass before them
        warms up."""
        passes = [self.search(queries[:TIMED], k)[1] for _ in range(PASSES + 1)]
        return np.array(passes[1:])

    def save(self, path: Path) -> int:
        """Write `path`.index.seismic and `path`.columns.npy; returns the size of the index in bytes."""
        self.seismic.save(str(path))
        np.save(f"{path}.columns.npy", self.columns)
        return Path(f"{path}.index.seismic").stat().st_size

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Read what `save` wrote."""
        return cls(seismic.SeismicIndexLV.load(f"{path}.index.seismic"), np.load(f"{path}.columns.npy"))


def parts(vectors: Vectors, places: Places, shard: Shard = ALL) -> Iterator[tuple[np.ndarray, scipy.sparse.csr_array]]:
    """Yield the parts of an index, each small enough for one machine: their positions, ascending, and rows."""
    size = max(1, min(DOCUMENTS, int(POSTINGS / max(1, vectors.mean_terms("documents")))))
    for found, rows in vectors.blocks("documents", places, size, shard):
        order = np.argsort(found)
        found, rows = found[order], rows[order]
        yield found, rows
        del found, rows  # before the next part is read


def best_of(found: list[list[Ranking]], k: int) -> list[Ranking]:
    """The k best documents of each query in all parts of an index, from the rankings of each part."""
    return [sorted(chain(*hits), key=lambda hit: (-hit[1], hit[0]))[:k] for hits in zip(*found, strict=True)]


def build_all(config: Config, collections: Path, vectors: Path, output: Path, found: Sequence[Path] = ()) -> None:
    """Index every test collection and measure each index, read back from disk, beside exact search.

    Collections over the same documents share an index, and one of more than `DOCUMENTS` has several parts, which are
    searched one after the other. Writes `{index}-{part}.index.seismic` and seismic.parquet: collection, index,
    documents, parts, bytes, build_seconds, milliseconds and milliseconds_spread (of a query, as `median` has them),
    recall (share of the exact 10 best that the index finds; of chunks as many as hold the 10 best documents), nDCG@10
    of both.

    Args:
        vectors: what `encode` wrote.
        found: what `build_shard` wrote of every shard of the documents, if several jobs built.
    """
    rows = []
    names: dict[str, str] = {}
    with finished_folder(output) as folder:
        if found:
            answers = _put_together(config, collections, found, folder)
        else:
            answers = _build(config, collections, vectors, folder)
        for collection, answer in answers:
            rankings, exact = answer.rankings["index"], answer.rankings["exact"]
            judged = collection.judged_ids([*rankings, *exact])
            rows.append(
                {
                    "collection": collection.name,
                    "documents": len(collection.places),
                    "index": names.setdefault(collection.places.fingerprint, collection.name),
                    **{name: answer.sums[name] for name in BUILT},
                    **median(np.array(answer.sums["times"])),
                    "recall": recall(rankings, exact),
                    "nDCG@10": mean_ndcg(collection.qrels, run_of(collection, rankings, judged, DEPTH)),
                    "exact nDCG@10": mean_ndcg(collection.qrels, run_of(collection, exact, judged, DEPTH)),
                }
            )
        pd.DataFrame(rows).to_parquet(folder / "seismic.parquet", index=False)


def build_shard(config: Config, collections: Path, vectors: Path, shard: Shard, output: Path) -> None:
    """Build and search the indexes of a shard of the documents of every test collection, for `build_all`. Collections
    that an earlier identical run finished are reused."""
    made_by = [Experiment(config).index.key, shard, sample_of(collections), sample_of(vectors)]
    with finished_folder(output, made_by) as folder:
        for collection, answer in _build(config, collections, vectors, folder, shard):
            answer.save(folder / collection.name)


def _build(
    config: Config, collections: Path, vectors: Path, folder: Path, shard: Shard = ALL
) -> Iterator[tuple[StoredCollection, Found]]:
    """For each collection the results of its index (built in `folder`) and of exact search. The sums hold the number of
    index parts, bytes, build seconds and query times. Collections whose results are in `folder` are left out."""
    stored = Vectors(vectors)
    made: dict[str, tuple[list[Path], dict]] = {}
    for collection in tqdm(collections_of(config.main, collections), desc="index"):
        texts, path = collection.places.fingerprint, folder / collection.name
        if path.with_name(f"{path.name}.parquet").exists():
            said = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
            paths = [_part(path, number) for number in range(said["parts"])]
            made.setdefault(texts, (paths, {name: said[name] for name in BUILT}))
            continue
        if texts not in made:
            made[texts] = _write_parts(parts(stored, collection.places, shard), path)
        paths, sums = made[texts]
        queries, depth = stored.of("queries", collection.queries.values()), collection.texts_to_find(DEPTH)
        answers: list[list[Ranking]] = [[[]] * queries.shape[0]]  # a shard may have no documents
        times = np.zeros(PASSES)
        for path in paths:
            index = Index.load(path)
            answers.append(index.search(queries, depth)[0])
            times += index.times(queries, depth)
            del index
        blocks = stored.blocks("documents", collection.places, config.evaluate.documents_at_a_time, shard)
        rankings = {"index": best_of(answers, depth), "exact": rank_blocks(queries, blocks, depth)}
        yield collection, Found(rankings, {**sums, "times": times.tolist()})


def _put_together(
    config: Config, collections: Path, found: Sequence[Path], folder: Path
) -> Iterator[tuple[StoredCollection, Found]]:
    """The same, put together from all shards, whose indexes become the parts of one."""
    count: Counter[str] = Counter()
    for path in [path for shard in found for path in sorted(shard.glob("*.columns.npy"))]:
        part = path.name.removesuffix(".columns.npy")
        name = part.rpartition("-")[0]
        for suffix in (".columns.npy", ".index.seismic"):
            link_or_copy(path.with_name(f"{part}{suffix}"), folder / f"{name}-{count[name]:03}{suffix}")
        count[name] += 1
    for collection in collections_of(config.main, collections):
        depths = dict.fromkeys(("index", "exact"), collection.texts_to_find(DEPTH))
        yield collection, put_together([shard / collection.name for shard in found], depths)


def _write_parts(documents: Iterable[tuple[np.ndarray, scipy.sparse.csr_array]], path: Path) -> tuple[list[Path], dict]:
    """Build and save an index: its parts, how many they are, their size and the time that building took."""
    paths: list[Path] = []
    size, seconds = 0, 0.0
    for places, rows in documents:
        started = time.perf_counter()
        index = Index.build(rows, places)
        seconds += time.perf_counter() - started
        paths.append(_part(path, len(paths)))
        size += index.save(paths[-1])
        del places, rows, index  # before the next part is read
    return paths, dict(zip(BUILT, (len(paths), size, seconds), strict=True))


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}-{number:03}")


def median(times: np.ndarray) -> dict[str, float]:
    """Median of the pass times, and the slowest minus the fastest pass."""
    return {"milliseconds": float(np.median(times)), "milliseconds_spread": float(np.ptp(times))}


def recall(found: list[Ranking], exact: list[Ranking]) -> float:
    """Share of the exact results that were found, mean over the queries that have any."""
    shares = [
        len({place for place, _ in hits} & {place for place, _ in wanted}) / len(wanted)
        for hits, wanted in zip(found, exact, strict=True)
        if wanted
    ]
    return float(np.mean(shares)) if shares else 1.0
