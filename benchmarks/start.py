"""How long a process of Stage 2 takes from its files to its first batch, as the triples grow. It needs the demo's
tokenizer: run `make demo` first. Not part of `make bench`.

python benchmarks/start.py                 1, 10 and 100 thousand queries with 8 documents each
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from experiment import Experiment
from measure import MIB, save, seconds

from milco.config import Config
from milco.data.shards import ROWS
from milco.data.triples import Triples, pack
from milco.training.batching import Steps
from milco.training.distill import Groups
from milco.training.mine import SCHEMA

DOCUMENTS = 8  # of a query


def write_triples(path: Path, words: list[str], queries: int) -> None:
    """Random queries of 3 to 8 words; random documents of 10 to 30, each the negative of others, too."""
    random = np.random.default_rng(0)

    def texts(count: int, least: int, most: int) -> list[str]:
        chosen, lengths = random.integers(0, len(words), (count, most)), random.integers(least, most + 1, count)
        return [" ".join(words[word] for word in row[:length]) for row, length in zip(chosen, lengths, strict=True)]

    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, queries, ROWS):
            count = min(ROWS, queries - start)
            documents = np.array(texts(count, 10, 30), object)
            negatives = documents[random.integers(0, count, (count, DOCUMENTS - 1))].tolist()
            columns = [texts(count, 3, 8), [[text] for text in documents], negatives]
            scores = [[[1.0]] * count, [[0.5] * (DOCUMENTS - 1)] * count]
            writer.write_table(pa.table([*columns, *scores], SCHEMA))


def start(config: Config, packed: Path) -> None:
    """What a process does before its first forward pass, apart from the model."""
    triples = Triples(packed)
    groups = Groups(triples, 1, config)
    settings = config.distill
    steps = Steps(triples.longest, [(1, len(triples))], settings.global_batch_size, 1, config.training_seed)
    groups(steps[0], 0)


def measure(experiment: Experiment, triples: Path, tokenizer: Path) -> dict:
    """How long packing and starting take."""
    config, packed = experiment.config, triples.with_name("packed")
    made = seconds(lambda: pack(config, triples, tokenizer, 1, packed))
    begun = [seconds(lambda: start(config, packed)) for _ in range(5)]
    size = sum(path.stat().st_size for path in packed.iterdir())
    return {"pack_s": round(made, 1), "disk_mb": round(size / MIB, 1), "start_ms": round(1000 * sorted(begun)[2], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    experiment, rows = Experiment(), []
    tokenizer = experiment.at(experiment.start_tokenizer)
    from transformers import AutoTokenizer

    words = [word[1:] for word in AutoTokenizer.from_pretrained(tokenizer).get_vocab() if word[1:].isalpha()]
    for queries in options.queries:
        with tempfile.TemporaryDirectory() as name:
            triples = Path(name, "triples.parquet")
            write_triples(triples, sorted(words), queries)
            rows.append(
                {"benchmark": "start", "case": f"{queries:,} queries", **measure(experiment, triples, tokenizer)}
            )
    save("start", rows)


if __name__ == "__main__":
    main()
