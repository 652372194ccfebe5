"""How many of the encoder's slots are pads in Stage 1: random batches against the planned ones.

*Plain* means batches of random pairs, each side padded to the longest text of its batch. Pads are counted, nothing is
timed. By default it reads the demo's pairs; run `make demo` first.

python benchmarks/padding.py
python benchmarks/padding.py --tsv FOLDER    any files of English, tab, other language, .tsv or .tsv.gz, anywhere in it
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from experiment import Experiment
from measure import save

from milco.data import tokens
from milco.data.pairs import write_pairs
from milco.data.tokens import TokenCache
from milco.training.align import Pairs
from milco.training.batching import Steps

STEPS = 300


class NoTargets:
    """In the place of the teacher's targets, which counting does not need."""

    def cells(self, english: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.zeros(0, int),) * 3


def measure(case: str, cache: TokenCache, experiment: Experiment) -> dict:
    """Share of pads in both ways, over some random steps."""
    settings, seed = experiment.config.align, experiment.config.training_seed
    size = settings.global_batch_size
    steps = Steps(cache.lengths, cache.families, size, 1, seed, together=settings.pairs_per_text)
    random = np.random.default_rng(0)
    collate, slots, texts = Pairs(cache, NoTargets(), 0, experiment.config), 0, 0
    for step in random.choice(len(steps), min(STEPS, len(steps)), replace=False):
        batch = collate(steps[step], step)
        slots += sum(len(rows) * length for rows, length in batch["passes"])
        texts += int(batch["attention_mask"].sum())
    plain_slots, plain_texts = 0, 0
    for batch in random.permutation(len(cache))[: STEPS * size].reshape(-1, size):
        english = cache.english.lengths("input_ids", cache.english_ids(batch))
        for lengths in (cache.pairs.lengths("input_ids", batch), english):
            plain_slots += size * int(lengths.max())
            plain_texts += int(lengths.sum())
    row = {"benchmark": "padding", "case": f"{case}, {len(cache):,} pairs, batches of {size}"}
    return row | {"plain": f"{1 - plain_texts / plain_slots:.1%}", "milco": f"{1 - texts / slots:.1%}"}


def cache_of(folder: Path, experiment: Experiment, output: Path) -> TokenCache:
    """The token cache of a user's files."""
    files = sorted(path for path in folder.rglob("*") if path.name.endswith((".tsv", ".tsv.gz")))
    names = ["english", "non_english"]
    tables = [pd.read_csv(file, sep="\t", quoting=3, names=names, usecols=[0, 1], dtype=str).assign(language=file.name)
              for file in files]  # fmt: skip
    found = pd.concat(tables).dropna().itertuples(index=False, name=None)
    statistics = write_pairs({"own": found}, {}, [], 0, output)
    (output / "statistics.json").write_text(json.dumps(statistics), encoding="utf-8")
    config = experiment.config
    encoder = experiment.at(experiment.encoder)
    tokens.build(output, encoder, config.align.max_length, 1, output / "tokens")
    return TokenCache(output / "tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tsv", type=Path, help="measure the files of this folder too")
    options = parser.parse_args()
    experiment = Experiment()
    rows = [measure("demo", TokenCache(experiment.at(experiment.tokens.path)), experiment)]
    if options.tsv:
        with tempfile.TemporaryDirectory() as name:
            rows.append(measure(options.tsv.name, cache_of(options.tsv, experiment, Path(name)), experiment))
    save("padding", rows)


if __name__ == "__main__":
    main()
