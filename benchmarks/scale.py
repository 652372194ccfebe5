"""Memory and speed of the rules on synthetic text of growing size, extrapolated to the full experiment. It needs the
demo's checkpoints: run `make demo` first. Not part of `make bench`.

python benchmarks/scale.py                 1 and 4 million pairs, 13 languages for each English text, and test texts
python benchmarks/scale.py --texts 100000 400000 --workers 4
python benchmarks/scale.py --only BM25 mine     cases with one of these words in their names, beside the other rows as
                                           they are; token cache and teacher need `pairs`
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from exact import PART, draw
from experiment import Experiment
from measure import MIB, RESULTS, save
from start import DOCUMENTS, write_triples

from milco.config import Config, parse
from milco.data.beir import write_layout
from milco.data.shards import ROWS

LANGUAGES = 13  # translations of an English text, as in mMARCO
WHOLE = 594_000_000  # pairs of the paper's Stage 1
WHOLE_TESTS = 161_000_000  # texts of its test collections
WHOLE_STRINGS = 750_000_000  # of both sides of those pairs, each once
WHOLE_TRIPLES = 1_390_000 * (1 + DOCUMENTS)  # texts of its distillation queries, with more negatives than ours
FEW = 1300  # texts of the kind that a case is not about
SAMPLE = 8  # the teacher, which takes longest, gets one of so many English texts
SHARDS, QUERIES = 64, 100  # jobs that would share encoding, of which one is measured; queries that BM25 is asked
TERMS, QUERY_TERMS = 25, 30  # of vectors
BUDGETS = 4  # none and 10 terms, of documents and of queries
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


def write_text(folder: Path, words: list[str], count: int) -> None:
    """Texts in the form of rule `corpora`, one half of them English; no known items."""
    folder.mkdir()
    for side, (name, column) in enumerate({"english": "english", "parallel": "non_english"}.items()):
        schema = pa.schema([(column, pa.string())])
        with pq.ParquetWriter(folder / f"{name}.parquet", schema) as writer:
            for texts in random_texts(words, side, count // 2):
                writer.write_table(pa.table([texts], schema))
    items = pa.schema([("title", pa.string()), ("description", pa.string())])
    pq.write_table(items.empty_table(), folder / "items.parquet")


def write_tests(folder: Path, words: list[str], documents: int, every: int = 1000) -> None:
    """A test collection, with a query for one of so many documents."""
    found = enumerate(chain.from_iterable(random_texts(words, 1 + LANGUAGES, documents)))
    rows = ({"_id": str(number), "title": "", "text": text} for number, text in found)
    queries = ({"_id": str(number), "text": f"query {number}"} for number in range(0, documents, every))
    about = {"query_language": "de", "document_language": "en", "source": "tests"}
    write_layout(folder, "test", rows, queries, {str(n): {str(n): 1} for n in range(0, documents, every)}, about)


def write_vectors(folder: Path, collection: Path) -> None:
    """Random vectors of a collection, as rule `merge` has them."""
    from milco.data.vectors import save_vectors
    from milco.evaluation.lookup import StoredCollection, text_id

    folder.mkdir()
    stored = StoredCollection(collection)
    for side, texts, terms in (
        ("queries", iter(stored.queries.values()), QUERY_TERMS),
        ("documents", stored.texts(), TERMS),
    ):
        for number, part in enumerate(iter(lambda texts=texts: list(islice(texts, PART)), [])):
            rows = draw(np.random.default_rng([terms, number]), len(part), terms)
            save_vectors(folder / f"{side}-{number:05}.safetensors", rows, list(map(text_id, part)))


def build_corpora(output: Path) -> None:
    """What rule `corpora` does, with the inputs beside its output."""
    from milco.data import corpora, pairs

    pairs.MEMORY = MEMORY
    corpora.build(*inputs_of(output), output)


def build_collections(output: Path) -> None:
    """What rule `collections` does with the same inputs."""
    from milco.data import corpora

    config, sources = inputs_of(output)
    corpora.build_collections(config, {"tests": sources["tests"]}, "test", output)


def inputs_of(output: Path) -> tuple[Config, dict[str, Path]]:
    """Settings and sources, which lie beside an output."""
    sources = {"pairs": output.with_name("source.parquet"), "tests": output.with_name("tests")}
    sources |= {"triples": output.with_name("triples.parquet")}
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
        "corpora": {"decontaminate": "all", "decontaminate_for": "all"},
        "sources": {name: {"uri": f"file:{sources.get(name, name)}", **said} for name, said in about.items()},
        "model": {"multilingual_encoder_checkpoint": "encoder", "lsr_encoder_checkpoint": "lsr"},
        "align": {"train_datasets": ["pairs"]},
        "distill": {"train_datasets": ["triples"]},
        # the fewest budgets that there can be: none, and one for each side
        "evaluate": {"test_collections": ["tests"], "top_k": [10], "mass": [], "query_top_k": [10], "query_mass": []},
    }
    return parse(values), sources


def watched(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of a piece of work in a process of its own, and the most MiB that it and its children held meanwhile."""
    process = multiprocessing.get_context("fork").Process(target=work)
    peak, started = 0.0, time.perf_counter()
    process.start()
    while process.is_alive():
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        peak = max(peak, sum(map(held, family)) / MIB)
        process.join(0.2)
    assert process.exitcode == 0, "it failed"
    return time.perf_counter() - started, peak


def held(process: psutil.Process) -> int:
    """Resident bytes without those of mapped files, which the system takes back when it wants them."""
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return memory.rss - memory.shared


def ask_bm25(tests: Path, encoder: Path, scratch: Path) -> None:
    """What rule `evaluate` does for BM25, without the measures."""
    from milco.evaluation.bm25 import Bm25
    from milco.evaluation.lookup import StoredCollection
    from milco.evaluation.sharding import ALL

    collection = StoredCollection(tests)
    collection.queries = dict(islice(collection.queries.items(), QUERIES))
    scratch.mkdir()
    Bm25(encoder, False, 65_536, scratch).search(collection, 100, ALL)


def measure(
    config: Config, folder: Path, encoder: Path, lsr: Path, words: list[str], texts: int, workers: int, only: list[str]
) -> list[dict]:
    """A row for each case whose name has one of the words in `only`, or for all."""
    from milco.data import overlap, tokens, triples  # here, since each worker imports this file first
    from milco.data.held_out import HeldOut
    from milco.evaluation import budgets, index
    from milco.evaluation.encode import encode
    from milco.training import mine, teacher

    english, output, rows = texts // LANGUAGES, folder / "out", []
    taught = english // SAMPLE

    def corpora(name: str, pairs: int, tests: int) -> Path:
        """Inputs and output of a build that has mostly pairs, or mostly test texts."""
        (folder / name).mkdir()
        write_pairs(folder / name / "source.parquet", words, pairs // LANGUAGES)
        write_tests(folder / name / "tests", words, tests)
        return folder / name / "corpora"

    paired, tested = corpora("pairs", texts, FEW), corpora("tests", FEW, texts)
    collections, packed = folder / "collections", folder / "packed"
    collections.mkdir()
    (collections / "tests").symlink_to(tested.with_name("tests"))
    write_triples(folder / "triples.parquet", words, texts // (1 + DOCUMENTS))
    text, searched, mined = folder / "text", folder / "searched", folder / "mined"
    write_text(text, words, texts)
    HeldOut(["nothing"]).write(text)
    write_tests(text / "collections" / "test" / "tests", words, FEW)
    write_tests(searched / "collections" / "tests", words, texts, texts // QUERIES)
    write_vectors(searched / "vectors", searched / "collections" / "tests")
    few = text / "few"
    for made in (mined, few, text / "out", searched / "pruned"):
        made.mkdir()
    write_triples(few / "triples.parquet", words, 10)
    settings, _ = inputs_of(mined)
    trained = settings.model_copy(update={"corpora": settings.corpora.model_copy(update={"decontaminate_for": "none"})})
    vectors = searched / "collections", searched / "vectors"
    works = {
        "collections, {} documents": (texts, 1, WHOLE_TESTS, folder / "tests" / "collections",
            lambda: build_collections(folder / "tests" / "collections"),
        ),
        "corpora, {} documents held out": (texts, 1, WHOLE_TESTS, tested, lambda: build_corpora(tested)),
        "corpora, {} pairs": (texts, 1, WHOLE, paired, lambda: build_corpora(paired)),
        "token cache, {} pairs": (
            texts + english, workers, WHOLE * (texts + english) / texts, output,
            lambda: tokens.build(paired, encoder, 64, workers, output),
        ),
        f"teacher targets, {taught:,} texts of {{}} pairs": (
            taught, 1, WHOLE * english / texts, output,
            lambda: teacher.write_targets(first(paired, taught), lsr, 64, 64, output),
        ),
        "packed triples of {} texts": (
            texts, workers, WHOLE_TRIPLES, packed,
            lambda: triples.pack(config, folder / "triples.parquet", encoder, workers, packed),
        ),
        f"vectors, 1 of {SHARDS} shards of {{}} documents": (
            texts // SHARDS, 1, WHOLE_TESTS, folder / "vectors",
            lambda: encode(config, "teacher", lsr, collections, folder / "vectors", 0, SHARDS),
        ),
        f"BM25, {QUERIES} queries in {{}} documents": (
            texts, 1, WHOLE_TESTS, folder / "bm25",
            lambda: ask_bm25(collections / "tests", encoder, folder / "bm25"),
        ),
        "overlap, {} strings": (texts, workers, WHOLE_STRINGS, text / "out",
            lambda: overlap.write(trained, text, few / "triples.parquet", text, text / "out" / "met.json", workers),
        ),
        "triples of {} texts, checked": (texts, 1, WHOLE_TRIPLES, mined,
            lambda: mine.mine(settings, text, None, {"triples": folder / "triples.parquet"}, mined / "triples.parquet"),
        ),
        f"index of {{}} documents, {QUERIES} queries": (texts, 1, WHOLE_TESTS, searched / "index",
            lambda: index.build_all(settings, *vectors, searched / "index"),
        ),
        f"pruning to {BUDGETS} budgets, {QUERIES} queries in {{}} documents": (
            texts, 1, WHOLE_TESTS, searched / "pruned",
            lambda: budgets.sweep(settings, *vectors, searched / "pruned" / "pruned.parquet"),
        ),
    }  # fmt: skip
    for name, (count, processes, whole, made, work) in works.items():
        if only and not any(word in name for word in only):
            continue
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
    parser.add_argument("--only", nargs="+", default=[])
    options = parser.parse_args()
    experiment = Experiment()
    encoder, lsr = experiment.at(experiment.encoder), experiment.at(experiment.lsr)
    from transformers import AutoTokenizer

    words = [word for word in AutoTokenizer.from_pretrained(lsr).get_vocab() if word.isalpha() and len(word) > 2]
    stored = RESULTS / "scale.json"
    rows = {row["case"]: row for row in json.loads(stored.read_text(encoding="utf-8"))} if options.only else {}
    for texts in options.texts:
        with tempfile.TemporaryDirectory() as name:
            found = measure(
                experiment.config, Path(name), encoder, lsr, sorted(words), texts, options.workers, options.only
            )
        rows |= {row["case"]: row for row in found}
        save("scale", [*rows.values()])


if __name__ == "__main__":
    main()
