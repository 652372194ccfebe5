"""Corpora, token cache and teacher targets of synthetic text: memory and speed as the corpus grows, and what the full
experiment would need. It wants the demo's checkpoints: run `make demo` first. Not part of `make bench`.

python benchmarks/scale.py                 1 and 4 million pairs, 13 languages for each English text, and test texts
python benchmarks/scale.py --texts 100000 400000 --workers 4
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from experiment import Experiment
from measure import MIB, save

from milco.data.beir import write_layout
from milco.data.shards import ROWS

LANGUAGES = 13  # translations of an English text, as in mMARCO
WHOLE = 594_000_000  # pairs of the paper's Stage 1
WHOLE_TESTS = 161_000_000  # texts of its test collections
FEW = 1300  # of what a case is not about
SAMPLE = 4  # one English text of so many goes to the teacher, who takes longest
MEMORY = "500MB"  # of DuckDB: so little that a million pairs go to disk, as hundreds of millions do


def random_texts(words: list[str], side: int, count: int) -> Iterator[list[str]]:
    """Random texts of 5 to 30 words, `ROWS` at a time."""
    for start in range(0, count, ROWS):
        random, some = np.random.default_rng([side, start]), min(ROWS, count - start)
        chosen, lengths = random.integers(0, len(words), (some, 30)), random.integers(5, 31, some)
        yield [" ".join(words[word] for word in row[:length]) for row, length in zip(chosen, lengths, strict=True)]


def write_pairs(path: Path, words: list[str], english: int) -> None:
    """Pairs as a publisher has them: one language after the other, the English side again in each."""
    schema = pa.schema([("english", pa.string()), ("non_english", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for language in range(LANGUAGES):
            for sides in zip(random_texts(words, 0, english), random_texts(words, 1 + language, english), strict=True):
                writer.write_table(pa.table(list(sides), schema))


def write_tests(folder: Path, words: list[str], documents: int) -> None:
    """A test collection, with a query for every thousandth document."""
    found = enumerate(chain.from_iterable(random_texts(words, 1 + LANGUAGES, documents)))
    rows = ({"_id": str(number), "title": "", "text": text} for number, text in found)
    queries = ({"_id": str(number), "text": f"query {number}"} for number in range(0, documents, 1000))
    write_layout(folder, "test", rows, queries, {str(n): {str(n): 1} for n in range(0, documents, 1000)}, {})


def build_corpora(output: Path) -> None:
    """What rule `corpora` does, with the inputs beside its output."""
    from milco.config import parse
    from milco.data import corpora, pairs

    pairs.MEMORY = MEMORY
    sources = {"pairs": output.with_name("source.parquet"), "tests": output.with_name("tests")}
    about = {
        "pairs": {"format": "pairs", "language": "de"},
        "tests": {"format": "beir", "language": "de", "document_language": "en"},
        "triples": {"format": "triples"},
        "encoder": {"format": "transformers"},
        "lsr": {"format": "transformers"},
    }
    values = {
        "experiment": "scale",
        "languages": ["de"],
        "sources": {name: {"uri": f"file:{sources.get(name, name)}", **said} for name, said in about.items()},
        "model": {"multilingual_encoder_checkpoint": "encoder", "lsr_encoder_checkpoint": "lsr"},
        "align": {"train_datasets": ["pairs"]},
        "distill": {"train_datasets": ["triples"]},
        "evaluate": {"test_collections": ["tests"]},
    }
    corpora.build(parse(values), sources, output)


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


def measure(folder: Path, encoder: Path, lsr: Path, words: list[str], texts: int, workers: int) -> list[dict]:
    """A row for each stage."""
    from milco.data import tokens  # here, since each worker reads this file first
    from milco.training import teacher

    english, output, rows = texts // LANGUAGES, folder / "out", []
    taught = english // SAMPLE

    def corpora(name: str, pairs: int, tests: int) -> Path:
        """Inputs and output of a build in which little but pairs, or little but test texts, is there."""
        (folder / name).mkdir()
        write_pairs(folder / name / "source.parquet", words, pairs // LANGUAGES)
        write_tests(folder / name / "tests", words, tests)
        return folder / name / "corpora"

    paired, tested = corpora("pairs", texts, FEW), corpora("tests", FEW, texts)
    works = {
        "corpora, {} test texts": (texts, 1, WHOLE_TESTS, tested, lambda: build_corpora(tested)),
        "corpora, {} pairs": (texts, 1, WHOLE, paired, lambda: build_corpora(paired)),
        "token cache, {} pairs": (
            texts + english, workers, WHOLE * (texts + english) / texts, output,
            lambda: tokens.build(paired, encoder, 64, workers, output),
        ),
        f"teacher targets, {taught:,} texts of {{}} pairs": (
            taught, 1, WHOLE * english / texts, output,
            lambda: teacher.write_targets(first(paired, taught), lsr, 64, 64, output),
        ),
    }  # fmt: skip
    for name, (count, processes, whole, made, work) in works.items():
        seconds, peak = watched(work)
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        row = {"benchmark": "scale", "case": name.format(f"{texts:,}"), "workers": processes, "texts": count}
        row |= {"seconds": round(seconds, 1), "texts_per_second": round(count / seconds), "peak_mb": round(peak)}
        row |= {"disk_mb": round(size / MIB, 1), "bytes_per_text": round(size / count, 1)}
        row |= {"whole_disk_gb": round(size / count * whole / 1e9, 1)}
        rows.append(row | {"whole_worker_hours": round(whole * seconds / count * processes / 3600, 1)})
    return rows


def first(corpora: Path, count: int) -> Path:
    """The first English texts alone."""
    folder = corpora.with_name("first")
    folder.mkdir()
    with (
        pq.ParquetFile(corpora / "english.parquet") as file,
        pq.ParquetWriter(folder / "english.parquet", file.schema_arrow) as writer,
    ):
        for batch in islice(file.iter_batches(ROWS), -(-count // ROWS)):
            writer.write_batch(batch.slice(0, count))
            count -= len(batch)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    experiment = Experiment()
    encoder, lsr = experiment.at(experiment.encoder), experiment.at(experiment.lsr)
    from transformers import AutoTokenizer

    words = [word for word in AutoTokenizer.from_pretrained(lsr).get_vocab() if word.isalpha() and len(word) > 2]
    rows = []
    for texts in options.texts:
        with tempfile.TemporaryDirectory() as name:
            rows += measure(Path(name), encoder, lsr, sorted(words), texts, options.workers)
        save("scale", rows)


if __name__ == "__main__":
    main()
