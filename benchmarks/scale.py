"""Corpora, token cache and teacher targets of synthetic parallel text: memory and speed as the corpus grows, and what
the full experiment would need. It wants the demo's checkpoints: run `make demo` first. Not part of `make bench`.

python benchmarks/scale.py                 1 and 4 million pairs, 13 languages for each English text
python benchmarks/scale.py --pairs 100000 400000 --workers 4
"""

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from experiment import Experiment
from measure import MIB, save

from milco.data.shards import ROWS

LANGUAGES = 13  # translations of an English text, as in mMARCO
WHOLE = 594_000_000  # pairs of the paper's Stage 1
MEMORY = "500MB"  # of DuckDB: so little that a million pairs go to disk, as hundreds of millions do


def write_source(path: Path, words: list[str], english: int) -> None:
    """Random texts of 5 to 30 words as a publisher has them: one language after the other, the English side again in
    each."""

    def texts(side: int, start: int) -> list[str]:
        random = np.random.default_rng([side, start])
        count = min(ROWS, english - start)
        chosen, lengths = random.integers(0, len(words), (count, 30)), random.integers(5, 31, count)
        return [" ".join(words[word] for word in row[:length]) for row, length in zip(chosen, lengths, strict=True)]

    schema = pa.schema([("english", pa.string()), ("non_english", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for language in range(LANGUAGES):
            for start in range(0, english, ROWS):
                writer.write_table(pa.table([texts(0, start), texts(1 + language, start)], schema))


def build_corpora(source: Path, output: Path) -> None:
    """What rule `corpora` does with parallel text."""
    from milco.config import Source
    from milco.data import pairs as parallel
    from milco.data.corpora import PAIR_COLUMNS, parallel_pairs, read_batches

    parallel.MEMORY = MEMORY
    output.mkdir()
    batches = read_batches(source, Source(uri=f"file:{source}", format="pairs", language="de"), "made", PAIR_COLUMNS)
    candidates = (row for batch in batches for row in batch.itertuples(index=False, name=None))
    pairs = parallel_pairs(candidates, {"de"}, set(), Counter(), "sentences")
    statistics = parallel.write_pairs({"made": pairs}, {}, [], 0, output)
    (output / "statistics.json").write_text(json.dumps(statistics))


def watched(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of a piece of work, and the most MiB that this process and its children held of their own meanwhile."""
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            peak = max(peak, sum(map(held, processes)) / MIB)

    thread = threading.Thread(target=watch)
    thread.start()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    done.set()
    thread.join()
    return seconds, peak


def held(process: psutil.Process) -> int:
    """Resident bytes without those of mapped files, which the system takes back when it wants them."""
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return memory.rss - memory.shared


def measure(folder: Path, encoder: Path, lsr: Path, pairs: int, workers: int) -> list[dict]:
    """A row for each stage."""
    from milco.data import tokens  # here, since each worker reads this file first
    from milco.training import teacher

    english, corpora, output, rows = pairs // LANGUAGES, folder / "corpora", folder / "out", []
    works = {
        "corpora": (pairs, corpora, lambda: build_corpora(folder / "source.parquet", corpora)),
        "token cache": (pairs + english, output, lambda: tokens.build(corpora, encoder, 64, workers, output)),
        "teacher targets": (english, output, lambda: teacher.write_targets(corpora, lsr, 64, 64, output)),
    }
    for name, (texts, made, work) in works.items():
        processes = workers if name == "token cache" else 1
        seconds, peak = watched(work)
        size = sum(path.stat().st_size for path in made.iterdir())
        whole = WHOLE * texts / pairs
        row = {"benchmark": "scale", "case": f"{name}, {pairs:,} pairs", "workers": processes, "texts": texts}
        row |= {"seconds": round(seconds, 1), "texts_per_second": round(texts / seconds), "peak_mb": round(peak)}
        row |= {"disk_mb": round(size / MIB, 1), "bytes_per_text": round(size / texts, 1)}
        row |= {"whole_disk_gb": round(size / texts * whole / 1e9, 1)}
        rows.append(row | {"whole_worker_hours": round(whole * seconds / texts * processes / 3600, 1)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    experiment = Experiment()
    encoder, lsr = (
        experiment.checkpoint(name)
        for name in (
            experiment.config.model.multilingual_encoder_checkpoint,
            experiment.config.model.lsr_encoder_checkpoint,
        )
    )
    from transformers import AutoTokenizer

    words = [word for word in AutoTokenizer.from_pretrained(lsr).get_vocab() if word.isalpha() and len(word) > 2]
    rows = []
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory() as name:
            write_source(Path(name, "source.parquet"), sorted(words), pairs // LANGUAGES)
            rows += measure(Path(name), encoder, lsr, pairs, options.workers)
        save("scale", rows)


if __name__ == "__main__":
    main()
