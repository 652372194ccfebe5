"""Token cache and teacher targets of synthetic parallel text: memory and speed as the corpus grows, and what the full
experiment would need. It wants the demo's checkpoints: run `make demo` first. Not part of `make bench`.

python benchmarks/scale.py                 1 and 4 million pairs, 13 languages for each English text
python benchmarks/scale.py --pairs 100000 400000 --workers 4
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from experiment import Experiment
from measure import MIB, save

from milco import teacher, tokens
from milco.shards import FILE_ROWS

LANGUAGES = 13  # translations of an English text, as in mMARCO
WHOLE = 594_000_000  # pairs of the paper's Stage 1


def write_corpora(folder: Path, words: list[str], pairs: int) -> None:
    """Random texts of 5 to 30 words, row group by row group, in the form of rule `corpora`."""
    english = pairs // LANGUAGES
    random = np.random.default_rng(0)

    def texts(count: int) -> list[str]:
        chosen = random.integers(0, len(words), (count, 30))
        lengths = random.integers(5, 31, count)
        return [" ".join(words[word] for word in row[:length]) for row, length in zip(chosen, lengths, strict=True)]

    schemas = {
        "english": pa.schema([("english", pa.string())]),
        "parallel": pa.schema([("english_id", pa.uint32()), ("non_english", pa.string())]),
    }
    for name, rows in (("english", english), ("parallel", english * LANGUAGES)):
        with pq.ParquetWriter(folder / f"{name}.parquet", schemas[name]) as writer:
            for start in range(0, rows, FILE_ROWS):
                count = min(FILE_ROWS, rows - start)
                columns = [pa.array(texts(count))]
                if name == "parallel":
                    columns.insert(0, pa.array(np.arange(start, start + count) // LANGUAGES, pa.uint32()))
                writer.write_table(pa.table(columns, schemas[name]), row_group_size=FILE_ROWS)
    (folder / "statistics.json").write_text(json.dumps({"families": [[LANGUAGES, english]]}))


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
    """A row for each of the two tables."""
    english, output, rows = pairs // LANGUAGES, folder / "out", []
    works = {
        "token cache": (pairs + english, lambda: tokens.build(folder, encoder, 64, workers, output)),
        "teacher targets": (english, lambda: teacher.write_targets(folder, lsr, 64, 64, workers, output)),
    }
    for name, (texts, work) in works.items():
        seconds, peak = watched(work)
        size = sum(path.stat().st_size for path in output.iterdir())
        whole = WHOLE * texts / pairs
        row = {"benchmark": "scale", "case": f"{name}, {pairs:,} pairs", "workers": workers, "texts": texts}
        row |= {"seconds": round(seconds, 1), "texts_per_second": round(texts / seconds), "peak_mb": round(peak)}
        row |= {"disk_mb": round(size / MIB, 1), "bytes_per_text": round(size / texts, 1)}
        row |= {"whole_disk_gb": round(size / texts * whole / 1e9, 1)}
        rows.append(row | {"whole_worker_hours": round(whole * seconds / texts * workers / 3600, 1)})
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
            write_corpora(Path(name), sorted(words), pairs)
            rows += measure(Path(name), encoder, lsr, pairs, options.workers)
        save("scale", rows)


if __name__ == "__main__":
    main()
