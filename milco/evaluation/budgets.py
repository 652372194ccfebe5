"""What fewer terms per text cost and save, and the smallest budget that costs next to nothing.

Run by rule `prune` on the test collections, and by rule `tune`, where a budget is chosen, on those for development:
    python -m milco.stages prune --config FILE --corpora FOLDER --vectors FOLDER --output FILE
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import ir_measures
import numpy as np
import pandas as pd
import scipy.sparse
from tqdm import tqdm

from milco.config import Config
from milco.evaluation.comparison import Comparison
from milco.evaluation.evaluate import depth_of, measure, run_of
from milco.evaluation.index import PASSES, Index, median, parts
from milco.evaluation.lookup import StoredCollection, Vectors, read_stored
from milco.evaluation.search import Search, scorer
from milco.files import finished_file
from milco.modeling.pruning import prune

LOSS = 0.01  # share of the measure that a budget may cost
LANGUAGES = {"documents": "document_language", "queries": "query_language"}
FIGURES = ["active", "value", "bytes", "milliseconds"]
COLUMNS = ["side", "budget", "collection", *LANGUAGES.values(), "measure", *FIGURES, "milliseconds_spread"]


def sweep(config: Config, collections: Path, vectors: Path, output: Path, split: str = "test") -> None:
    """Prune documents, and then queries, of the compared collections to every budget.

    Writes a Parquet file, a row for each side, budget and collection: side (documents or queries: what is pruned),
    budget (as `pruning.prune` reads it), collection, query_language, document_language, measure (that of the
    comparison), active (mean terms of a text of that side), value (of the measure, by exact search), bytes (Seismic
    index on disk, per document), milliseconds and milliseconds_spread (of a query in it, as `index.median` has them).
    It has no row if nothing is compared.

    Args:
        split: of the collections, `test` or `dev`.
    """
    found, settings, comparison = Vectors(vectors), config.evaluate, Comparison.of(config, collections, split)
    shared = defaultdict(list)  # collections over the same documents share an index
    for collection in read_stored((collections / name for name in comparison.collections), split):
        shared[collection.places.fingerprint].append(collection)
    budgets = [("documents", budget) for budget in _named(settings.top_k, settings.mass)]
    budgets += [("queries", budget) for budget in _named(settings.query_top_k, settings.query_mass)]
    rows: list[dict] = []
    for group in shared.values():
        rows += _sweep(group, found, budgets, comparison.measure, settings.documents_at_a_time)
    with finished_file(output) as draft:
        pd.DataFrame(rows, columns=COLUMNS).to_parquet(draft, index=False)


class Trial:
    """Queries of a collection, pruned or not, and what they find in documents that are pruned or not."""

    def __init__(self, collection: StoredCollection, queries: scipy.sparse.csr_array, depth: int):
        self.collection, self.depth = collection, depth
        self.exact, self.times = Search(queries, depth), np.zeros(PASSES)


def _sweep(
    group: list[StoredCollection], vectors: Vectors, budgets: list[tuple[str, str]], name: str, size: int
) -> Iterator[dict]:
    """Rows of collections over the same documents, which are read once for exact search and once for the indexes."""
    wanted = ir_measures.parse_measure(name)
    # by budget of the documents, then by side and budget of the row: all rows of queries ask the documents as they are
    trials: dict[str, dict[tuple[str, str], list[Trial]]] = defaultdict(lambda: defaultdict(list))
    for collection in group:
        queries, depth = vectors.of("queries", collection.queries.values()), collection.texts_to_find(depth_of(wanted))
        for side, budget in budgets:
            asked = prune(queries, budget) if side == "queries" else queries
            trials[budget if side == "documents" else "none"][side, budget].append(Trial(collection, asked, depth))
    terms: Counter[str] = Counter()
    for places, rows in vectors.blocks("documents", group[0].places, size):
        for budget, asking in trials.items():
            kept = prune(rows, budget)
            score = scorer(kept)
            terms[budget] += kept.nnz
            for trial in chain(*asking.values()):
                trial.exact.add(places, score)
    sizes = _ask_indexes(vectors, group[0], trials)
    for side, budget in budgets:
        pruned = budget if side == "documents" else "none"
        for trial in trials[pruned][side, budget]:
            collection, queries = trial.collection, trial.exact.queries
            rankings = trial.exact.rankings()
            run = run_of(collection, rankings, collection.judged_ids(rankings), depth_of(wanted))
            documents = len(collection.places)
            yield {
                "side": side,
                "budget": budget,
                "collection": collection.name,
                **{language: collection.about[language] for language in LANGUAGES.values()},
                "measure": name,
                "active": queries.nnz / queries.shape[0] if side == "queries" else terms[pruned] / documents,
                "value": float(measure(collection.qrels, run, [wanted]).value.mean()),
                "bytes": sizes[pruned] / documents,
                **median(trial.times),
            }


def _ask_indexes(
    vectors: Vectors, collection: StoredCollection, trials: dict[str, dict[tuple[str, str], list[Trial]]]
) -> dict[str, int]:
    """Ask an index of the documents for each budget of theirs; its parts are asked one after the other, and their times
    added. Returns the bytes on disk."""
    sizes: Counter[str] = Counter()
    for places, rows in parts(vectors, collection.places):
        for budget, asking in tqdm(trials.items(), desc=f"prune {collection.name}"):
            index = Index.build(prune(rows, budget), places)
            with tempfile.TemporaryDirectory() as folder:
                sizes[budget] += index.save(Path(folder) / "pruned")
            for trial in chain(*asking.values()):
                trial.times += index.times(trial.exact.queries, trial.depth)
    return sizes


def _named(top_k: list[int], mass: list[float]) -> list[str]:
    return ["none", *(f"top-k {k}" for k in top_k), *(f"mass {share:g}" for share in mass)]


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over collections: a row for each side and budget, in the order in which they were measured."""
    return rows.groupby(["side", "budget"], sort=False)[FIGURES].mean().reset_index()


def smallest(rows: pd.DataFrame) -> pd.Series:
    """Of the budgets of one side the one with the fewest terms that loses less than `LOSS` of the measure, mean over
    the collections of `rows`; `none` if all lose more. With the figures of `none` as `full …`."""
    table = means(rows)
    full = table[table.budget == "none"].iloc[0]
    good = table[(table.value > (1 - LOSS) * full.value) | (table.budget == "none")]
    return pd.concat([good.sort_values("active", kind="stable").iloc[0], full[FIGURES].add_prefix("full ")])


def choices(tuned: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """The smallest budget of each side on the development collections, and its figures on the test collections: a row
    for each side.

    Args:
        tuned, measured: what `sweep` wrote of development and of test collections; without rows nothing is chosen.
    """
    table = means(measured).set_index(["side", "budget"])
    found = {}
    for side in tuned.side.unique() if len(tuned) and len(measured) else []:
        rows = tuned[tuned.side == side]
        budget = smallest(rows).budget
        figures, full = table.loc[(side, budget)], table.loc[(side, "none")]
        found[side] = pd.concat([pd.Series({"budget": budget}), figures, full.add_prefix("full ")])
    columns = ["budget", *FIGURES, *(f"full {name}" for name in FIGURES)]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns)
