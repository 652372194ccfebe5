"""What fewer terms per text cost and save, and the smallest budget that costs next to nothing.

Run by rule `prune`:  python -m milco.stages prune --config FILE --corpora FOLDER --vectors FOLDER --output FILE
"""

import tempfile
from collections import defaultdict
from pathlib import Path

import ir_measures
import pandas as pd
import scipy.sparse
from tqdm import tqdm

from milco.config import Config
from milco.data.beir import Collection, read_collection
from milco.evaluation.comparison import Comparison
from milco.evaluation.evaluate import depth_of, measure, run_of
from milco.evaluation.index import Index
from milco.evaluation.lookup import Vectors
from milco.evaluation.search import rank_exactly
from milco.files import finished_file
from milco.modeling.pruning import ALL, prune

LOSS = 0.01  # share of the measure that a budget may cost
LANGUAGES = {"documents": "document_language", "queries": "query_language"}
FIGURES = ["active", "value", "bytes", "milliseconds"]
COLUMNS = ["side", "budget", "collection", *LANGUAGES.values(), "measure", *FIGURES]


def sweep(config: Config, collections: Path, vectors: Path, output: Path) -> None:
    """Prune documents, and then queries, of the compared collections to every budget.

    Writes a Parquet file, a row for each side, budget and collection: side (documents or queries: what is pruned),
    budget (as `pruning.prune` reads it), collection, query_language, document_language, measure (that of the
    comparison), active (mean terms of a text of that side), value (of the measure, by exact search), bytes (Seismic
    index on disk, per document), milliseconds (mean of a query in that index). It has no row if nothing is compared.
    """
    found, settings, comparison = Vectors(vectors), config.evaluate, Comparison.of(config, collections)
    shared = defaultdict(list)  # collections over the same documents share an index
    for collection in (read_collection(collections / name) for name in comparison.collections):
        shared[tuple(collection.documents.values())].append(collection)
    budgets = [("documents", budget) for budget in _named(settings.top_k, settings.mass)]
    budgets += [("queries", budget) for budget in _named(settings.query_top_k, settings.query_mass)]
    rows: list[dict] = []
    with tqdm(total=len(shared) * len(budgets), desc="prune") as bar:
        for group in shared.values():
            documents = found.of("documents", group[0].documents.values())
            full = documents, *_index(documents)
            for side, budget in budgets:
                kept = full
                if side == "documents" and budget != "none":
                    pruned = prune(documents, budget)
                    kept = pruned, *_index(pruned)
                for collection in group:
                    queries = found.of("queries", collection.queries.values())
                    asked = prune(queries, budget) if side == "queries" else queries
                    cut = asked if side == "queries" else kept[0]
                    about = {"side": side, "budget": budget, "collection": collection.name}
                    about |= {name: collection.about[name] for name in LANGUAGES.values()}
                    about |= {"measure": comparison.measure}
                    figures = _figures(comparison.measure, collection, asked, *kept)
                    rows.append({**about, "active": cut.nnz / cut.shape[0], **figures})
                bar.update()
    with finished_file(output) as draft:
        pd.DataFrame(rows, columns=COLUMNS).to_parquet(draft, index=False)


def _named(top_k: list[int], mass: list[float]) -> list[str]:
    return ["none", *(f"top-k {k}" for k in top_k), *(f"mass {share:g}" for share in mass)]


def _index(documents: scipy.sparse.csr_array) -> tuple[Index, float]:
    """An index and its bytes per document on disk."""
    index = Index.build(documents)
    with tempfile.TemporaryDirectory() as folder:
        return index, index.save(Path(folder) / "pruned") / documents.shape[0]


def _figures(
    name: str,
    collection: Collection,
    queries: scipy.sparse.csr_array,
    documents: scipy.sparse.csr_array,
    index: Index,
    size: float,
) -> dict[str, float]:
    wanted = ir_measures.parse_measure(name)
    depth = collection.texts_to_find(depth_of(wanted))
    run = run_of(collection, rank_exactly(queries, documents, depth), depth_of(wanted))
    _, milliseconds = index.search(queries, depth)
    value = measure(collection.qrels, run, [wanted]).value.mean()
    return {"value": float(value), "bytes": size, "milliseconds": milliseconds}


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


def choices(rows: pd.DataFrame, side: str) -> pd.DataFrame:
    """The smallest budgets of a side: for all collections, and for each language of its texts if there are several.
    None, if nothing was compared."""
    rows = rows[rows.side == side]
    languages = dict(list(rows.groupby(LANGUAGES[side])))
    groups = {ALL: rows, **(languages if len(languages) > 1 else {})}
    found = {name: smallest(group) for name, group in groups.items() if len(group)}
    columns = ["side", "budget", *FIGURES, *(f"full {name}" for name in FIGURES)]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns)
