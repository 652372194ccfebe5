"""Measure what tokens without a word (mostly punctuation) add to Stage 2's source view, on development queries across
and within languages. It trains nothing:

snakemake --profile profiles/local --configfile config/demo.yaml config/demo-recipes.yaml -- trainings
python benchmarks/punctuation.py config/demo.yaml config/demo-recipes.yaml
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from experiment import ROOT
from recipes import options, values
from scipy.sparse import diags_array

from milco.data import home_assistant
from milco.data.beir import Collection
from milco.evaluation.report import markdown_table
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


def main() -> None:
    experiment = next(found for found in options().experiments if found.config.model.echo_wordless_pieces)
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
