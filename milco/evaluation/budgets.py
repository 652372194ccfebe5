"""Measure pruning budgets (quality, index size, latency), and choose the smallest one that loses less than 1 %.

Run by rule `prune` on the test collections, and by rule `tune`, where a budget is chosen, on those for development;
with `--shard` by `prune_shard` where several jobs share the documents:
    python -m milco.stages prune --config FILE [--shard 2-of-8] --corpora FOLDER --vectors FOLDER
        [--found FOLDER --found FOLDER …] --output FILE
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import ir_measures
import numpy as np
import pandas as pd
from tqdm import tqdm

from milco.config import Config
from milco.content import sample_of
from milco.evaluation.comparison import Comparison
from milco.evaluation.evaluate import depth_of, measure, run_of
from milco.evaluation.index import PASSES, Index, median, parts
from milco.evaluation.lookup import StoredCollection, Vectors, read_stored
from milco.evaluation.search import Search, scorer
from milco.evaluation.sharding import ALL, Found, Shard, put_together
from milco.experiments import Experiment
from milco.files import finished_file, finished_folder
from milco.modeling.pruning import prune

LOSS = 0.01  # share of the measure that a budget may cost
LANGUAGES = {"documents": "document_language", "queries": "query_language"}
FIGURES = ["active", "value", "bytes", "milliseconds"]
COLUMNS = ["side", "budget", "collection", *LANGUAGES.values(), "measure", *FIGURES, "milliseconds_spread"]


def sweep(
    config: Config, collections: Path, vectors: Path, output: Path, split: str = "test", found: Sequence[Path] = ()
) -> None:
    """Prune documents, and then queries, of the compared collections to every budget.

    Writes a Parquet file, a row for each side, budget and collection: side (documents or queries: what is pruned),
    budget (as `pruning.prune` reads it), collection, query_language, document_language, measure (that of the
    comparison), active (mean terms of a text of that side), value (of the measure, by exact search), bytes (Seismic
    index on disk, per document), milliseconds and milliseconds_spread (of a query in it, as `index.median` has them).
    It has no row if nothing is compared.

    Args:
        vectors: what `encode` wrote.
        split: of the collections, `test` or `dev`.
        found: what `sweep_shard` wrote of every shard of the documents, if several jobs searched.
    """
    trials, stored = Trials(config, collections, split), Vectors(vectors)
    rows: list[dict] = []
    for group in trials.groups:
        if found:
            answer = put_together([path / group[0].name for path in found], trials.depths(group))
        else:
            answer = trials.run(group, stored)
        rows += trials.rows(group, answer)
    with finished_file(output) as draft:
        pd.DataFrame(rows, columns=COLUMNS).to_parquet(draft, index=False)


def sweep_shard(config: Config, collections: Path, vectors: Path, shard: Shard, output: Path) -> None:
    """Prune and search a shard of the documents of the compared collections, for `sweep`. Collections that an earlier
    identical run finished are reused."""
    trials, stored = Trials(config, collections), Vectors(vectors)
    made_by = [Experiment(config).pruning.key, shard, sample_of(collections), sample_of(vectors)]
    with finished_folder(output, made_by) as folder:
        for group in trials.groups:
            if not (folder / f"{group[0].name}.parquet").exists():
                trials.run(group, stored, shard).save(folder / group[0].name)


class Trials:
    """Searches with every budget of documents and of queries, over the compared collections.

    A trial has a side and a budget; trials of queries search unpruned documents. `groups` are collections over the same
    documents, which are read once for exact search and once for the indexes.
    """

    def __init__(self, config: Config, collections: Path, split: str = "test"):
        settings, comparison = config.evaluate, Comparison.of(config, collections, split)
        self.size, self.measure = settings.documents_at_a_time, ir_measures.parse_measure(comparison.measure)
        shared = defaultdict(list)
        for collection in read_stored((collections / name for name in comparison.collections), split):
            shared[collection.places.fingerprint].append(collection)
        self.groups = list(shared.values())
        self.budgets = [("documents", budget) for budget in _named(settings.top_k, settings.mass)]
        self.budgets += [("queries", budget) for budget in _named(settings.query_top_k, settings.query_mass)]

    def all_of(self, group: list[StoredCollection]) -> Iterator[tuple[str, str, str, StoredCollection]]:
        """The trials of a group: a name, the side, the budget and the collection of each."""
        for side, budget in self.budgets:
            for collection in group:
                yield f"{side} {budget} {collection.name}", side, budget, collection

    def depths(self, group: list[StoredCollection]) -> dict[str, int]:
        """Trial → how many texts to find for each query."""
        depth = depth_of(self.measure)
        return {name: collection.texts_to_find(depth) for name, _, _, collection in self.all_of(group)}

    def run(self, group: list[StoredCollection], vectors: Vectors, shard: Shard = ALL) -> Found:
        """Exact search results of all trials in a shard of the documents. The sums hold query times in an index (by
        trial), terms after pruning (by trial for queries, by budget for documents), and index bytes (by budget)."""
        depths = self.depths(group)
        searches: dict[str, dict[str, Search]] = defaultdict(dict)  # by budget of the documents, by trial
        queries = {c.name: vectors.of("queries", c.queries.values()) for c in group}
        sums: dict = {}
        for name, side, budget, collection in self.all_of(group):
            asked = queries[collection.name]
            sums |= {f"times {name}": np.zeros(PASSES), f"terms {budget}": 0, f"bytes {budget}": 0}
            if side == "queries":
                asked = prune(asked, budget)
                sums[f"terms {name}"] = asked.nnz if shard.number == 0 else 0  # only the first shard counts them
            searches[_pruned(side, budget)][name] = Search(asked, depths[name])
        for places, rows in vectors.blocks("documents", group[0].places, self.size, shard):
            for budget, asking in searches.items():
                kept = prune(rows, budget)
                score = scorer(kept)
                sums[f"terms {budget}"] += kept.nnz
                for search in asking.values():
                    search.add(places, score)
        for places, rows in parts(vectors, group[0].places, shard):
            for budget, asking in tqdm(searches.items(), desc=f"prune {group[0].name}"):
                index = Index.build(prune(rows, budget), places)
                with tempfile.TemporaryDirectory() as folder:
                    sums[f"bytes {budget}"] += index.save(Path(folder) / "pruned")
                for name, search in asking.items():
                    sums[f"times {name}"] += index.times(search.queries, depths[name])
                del index
            del places, rows  # before the next part is read
        rankings = {name: search.rankings() for asking in searches.values() for name, search in asking.items()}
        return Found(rankings, {name: np.asarray(value).tolist() for name, value in sums.items()})

    def rows(self, group: list[StoredCollection], found: Found) -> Iterator[dict]:
        """What `sweep` writes of a group."""
        documents = len(group[0].places)
        for name, side, budget, collection in self.all_of(group):
            rankings, pruned = found.rankings[name], _pruned(side, budget)
            run = run_of(collection, rankings, collection.judged_ids(rankings), depth_of(self.measure))
            asked = side == "queries"
            terms = found.sums[f"terms {name if asked else budget}"]
            yield {
                "side": side,
                "budget": budget,
                "collection": collection.name,
                **{language: collection.about[language] for language in LANGUAGES.values()},
                "measure": str(self.measure),
                "active": terms / (len(collection.queries) if asked else documents),
                "value": float(measure(collection.qrels, run, [self.measure]).value.mean()),
                "bytes": found.sums[f"bytes {pruned}"] / documents,
                **median(np.array(found.sums[f"times {name}"])),
            }


def _pruned(side: str, budget: str) -> str:
    """The budget of the documents in a trial."""
    return budget if side == "documents" else "none"


def _named(top_k: list[int], mass: list[float]) -> list[str]:
    return ["none", *(f"top-k {k}" for k in top_k), *(f"mass {share:g}" for share in mass)]


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over collections: a row for each side and budget, in the order in which they were measured."""
    return rows.groupby(["side", "budget"], sort=False)[FIGURES].mean().reset_index()


def smallest(rows: pd.DataFrame) -> pd.Series:
    """The budget of one side with the fewest terms that loses less than `LOSS` of the measure (mean over the
    collections of `rows`); `none` if all lose more. Returned with its figures and, as `full …`, those of `none`."""
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
