"""Count the queries of each test collection that occur in the training text. Output: JSON, collection → queries, met.

Rules `corpora` and `mine` have taken the queries of some collections out of text and triples
(`corpora.decontaminate_for`). If there are no other collections, no training text is read.

Run by rule `overlap`:
    python -m milco.stages overlap --config FILE --corpora FOLDER --triples FILE --collections FOLDER --workers N
        --output FILE
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from milco.config import Config
from milco.data import held_out
from milco.data.beir import read_about, read_queries
from milco.files import write_json

COLUMNS = {
    "english.parquet": ["english"],
    "parallel.parquet": ["non_english"],
    "items.parquet": ["title", "description"],
}
_asked: set[bytes]


def write(config: Config, corpora: Path, triples: Path, collections: Path, output: Path, workers: int = 1) -> None:
    """Write the file. A query counts as the same however it is written, see milco/data/held_out.py."""
    queries, clean = {}, config.taken_out("test")
    asked: set[bytes] = set()
    for folder in sorted((collections / "collections" / "test").iterdir()):
        queries[folder.name] = [held_out.digest(text) for text in read_queries(folder)[0].values()]
        if read_about(folder)["source"] not in clean:
            asked.update(queries[folder.name])
    files = {**{corpora / name: columns for name, columns in COLUMNS.items()}, triples: ["query", "pos"]}
    met = _met(files, asked, workers) if asked else set()
    counts = {name: {"queries": len(found), "met": sum(one in met for one in found)} for name, found in queries.items()}
    write_json(output, counts)


def _met(files: dict[Path, list[str]], asked: set[bytes], workers: int) -> set[bytes]:
    parts = [(path, group, columns) for path, columns in files.items() for group in range(_groups(path))]
    if workers <= 1:
        _start(asked)
        return set().union(*map(_look, parts))
    context = multiprocessing.get_context("spawn")  # as in shards.py
    with ProcessPoolExecutor(workers, context, _start, (asked,)) as pool:
        return set().union(*pool.map(_look, parts))


def _groups(path: Path) -> int:
    return pq.read_metadata(path).num_row_groups


def _start(asked: set[bytes]) -> None:
    global _asked
    _asked = asked


def _look(part: tuple[Path, int, list[str]]) -> set[bytes]:
    """Digests of the queries found in a part of a file."""
    return {digest for text in _strings(*part) if (digest := held_out.digest(text)) in _asked}


def _strings(path: Path, group: int, columns: list[str]) -> Iterator[str]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(row_groups=[group], columns=columns):
            for column in batch.columns:
                flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column
                yield from filter(None, flat.to_pylist())
