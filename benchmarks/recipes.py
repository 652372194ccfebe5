"""Recipes side by side on all development queries, on which recipes are chosen.

Trains nothing: it measures Stage 1 and Stage 2 of an experiment and of its variants, as far as they are there.
    snakemake --profile profiles/local --configfile config/demo.yaml config/demo-recipes.yaml -- trainings
    python benchmarks/recipes.py config/demo.yaml config/demo-recipes.yaml
    python benchmarks/recipes.py config/demo.yaml config/demo-finetune.yaml config/demo-finetune-recipes.yaml
        --collections ko-en    (by default all languages)
"""

import argparse
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pandas as pd
import torch
from experiment import ROOT
from scipy.sparse import csr_array

from milco.config import parse_all, read_yaml
from milco.config.reading import merge
from milco.data.beir import Collection, read_collection
from milco.evaluation.evaluate import DEPTH, MAIN, measure, run_of
from milco.evaluation.report import markdown_table
from milco.evaluation.search import rank_exactly
from milco.evaluation.significance import interval, paired_difference
from milco.experiments import Experiment
from milco.modeling.model import MilcoModel


def measured(model: Path, collections: list[Path]) -> tuple[pd.Series, float, float]:
    """The measure by collection and query, and the mean active terms of queries and of the last documents."""
    sparse, found, terms = MilcoModel.from_pretrained(model).eval(), [], []
    texts, documents = None, None
    with torch.autocast("cpu", torch.bfloat16):
        for folder in collections:
            collection = read_collection(folder, "dev")
            if (these := list(collection.documents.values())) != texts:
                texts, documents = these, sparse.encode_document(these)
            queries = sparse.encode_query(list(collection.queries.values()))
            found.append(values(collection, queries, documents))
            terms.append(queries.nnz / queries.shape[0])
    return pd.concat(found), sum(terms) / len(terms), documents.nnz / documents.shape[0]


def values(collection: Collection, queries: csr_array, documents: csr_array) -> pd.Series:
    """The measure by collection and query."""
    ranked = rank_exactly(queries, documents, collection.texts_to_find(DEPTH))
    found = measure(collection.qrels, run_of(collection, ranked, list(collection.documents), DEPTH))
    return found.assign(collection=collection.name).set_index(["collection", "query"]).value


def options() -> argparse.Namespace:
    """What the command line says: the experiment and its variants of the configurations, and names of collections."""
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configuration", type=Path, nargs="+")
    parser.add_argument("--collections", default="*-en")
    said = parser.parse_args()
    said.experiments = list(map(Experiment, parse_all(reduce(merge, map(read_yaml, said.configuration)))))
    return said


def models(experiments: list[Experiment]) -> Iterator[tuple[str, Path]]:
    """Name and model of every training that is there, each once."""
    seen = set()
    for experiment in experiments:
        for stage, node in experiment.trainings.items():
            path = ROOT / node.path
            if path not in seen and path.exists():
                yield f"{experiment.name}, {'Stage 1' if stage == 'align' else 'Stage 2'}", path
            seen.add(path)


def main() -> None:
    said = options()
    experiments = said.experiments
    made = ROOT / experiments[0].development(experiments[0].distill).path / "collections" / "dev"
    collections = sorted(made.glob(said.collections))
    rows, bases = [], {}
    for name, path in models(experiments):
        found, queries, documents = measured(path, collections)
        across = found[found.index.get_level_values("collection") != "en-en"]
        base = bases.setdefault(name.rpartition(", ")[2], across)  # the first of its stage
        gap = paired_difference(across, base)
        difference = ["–", "–"] if base is across else [f"{gap['difference']:+.3f}", interval(gap["low"], gap["high"])]
        inside = found.drop(across.index)
        english = f"{inside.mean():.3f}" if len(inside) else "–"
        worst = across.groupby("collection").mean().min()
        terms = f"{queries:.0f}", f"{documents:.0f}"
        rows.append([name, f"{across.mean():.3f}", *difference, f"{worst:.3f}", english, *terms])
    title = f"{MAIN}, development"
    head = ["training", title, "difference", "95 %", "worst language", "en-en", "terms per query", "per document"]
    print(markdown_table([head, *rows]))


if __name__ == "__main__":
    main()
