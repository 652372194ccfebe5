"""What Stage 2 gains by pieces without a word, punctuation above all, in its source view: development queries across
and within languages, with all pieces and without these. It trains nothing:

snakemake --profile profiles/local --configfile config/demo.yaml config/demo-recipes.yaml -- trainings
python benchmarks/punctuation.py config/demo.yaml config/demo-recipes.yaml
"""

import argparse
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiment import ROOT
from scipy.sparse import csr_array, diags_array

from milco.config import parse_all, read_yaml
from milco.config.reading import merge
from milco.data import home_assistant
from milco.data.beir import Collection
from milco.evaluation.evaluate import DEPTH, measure, run_of
from milco.evaluation.report import markdown_table
from milco.evaluation.search import rank_exactly
from milco.evaluation.significance import interval, paired_difference
from milco.experiments import Experiment
from milco.modeling.model import MilcoModel
from milco.modeling.texts import wordless_pieces


def development(experiment: Experiment) -> Iterator[Collection]:
    """The held-out development titles across and within languages."""
    config = experiment.config
    (name,) = config.evaluate.development_collections
    wheel = ROOT / experiment.sources([name])[name]
    table = home_assistant.items(wheel, config.languages_of_items(), config.corpora, config.seed)
    table = table[table.split == "dev"].assign(split="test")  # the test split has collections within a language
    found = home_assistant.collections(table, "test", config.eval_languages, config.corpora)
    yield from (collection for collection in found if collection.name != "en-en")


def values(collection: Collection, queries: csr_array, documents: csr_array) -> pd.Series:
    """The measure by collection and query."""
    ranked = rank_exactly(queries, documents, collection.texts_to_find(DEPTH))
    found = measure(collection.qrels, run_of(collection, ranked, list(collection.documents), DEPTH))
    return found.assign(collection=collection.name).set_index(["collection", "query"]).value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration", type=Path, nargs="+")
    configs = parse_all(reduce(merge, map(read_yaml, parser.parse_args().configuration)))
    experiment = next(Experiment(config) for config in configs if config.model.echo_wordless_pieces)
    model = MilcoModel.from_pretrained(ROOT / experiment.trainings["distill"].path).eval()
    words = np.ones(model.width, np.float32)
    words[model.config.pivot_vocab_size + np.array(wordless_pieces(model.tokenizer))] = 0
    mask, whole, part = diags_array(words, format="csr"), [], []
    with torch.autocast("cpu", torch.bfloat16):
        for collection in development(experiment):
            queries = model.encode_query(list(collection.queries.values()))
            documents = model.encode_document(list(collection.documents.values()))
            whole.append(values(collection, queries, documents))
            part.append(values(collection, queries @ mask, documents @ mask))
    all_pieces, without = pd.concat(whole), pd.concat(part)
    rows = [["", "all pieces", "without those", "difference"]]
    across = all_pieces.index.get_level_values("collection").str.endswith("-en")
    for name, some in (("across languages", across), ("within a language", ~across)):
        means = [series[some].groupby("collection").mean().mean() for series in (all_pieces, without)]
        gap = paired_difference(without[some], all_pieces[some])
        said = f"{gap['difference']:+.4f} ({interval(gap['low'], gap['high'], '+.4f')})"
        rows.append([name, *(f"{mean:.4f}" for mean in means), said])
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
