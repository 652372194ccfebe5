"""Tables of any size with lists in their rows: written by several workers at constant memory, read through memory maps.
An existing file is complete: an interrupted run loses only the file that it was writing.

A table NAME is a series of files NAME-00000.arrow, NAME-00001.arrow, … of `FILE_ROWS` rows each, in record batches of
`ROWS` rows; only the last file and the last batch may be shorter. A row is therefore found by division, and opening a
table reads only the batch offsets of two files.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from milco.errors import MilcoError
from milco.files import finished_file

ROWS = 10_000
FILE_ROWS = 10 * ROWS

Convert = Callable[[pa.RecordBatch], pa.RecordBatch]
Make = Callable[[int, int], Convert]
Batches = Iterable[pa.RecordBatch]
_convert: Convert


def write_shards(
    sources: Mapping[str, Path], folder: Path, make: Make, workers: int, rank: int = 0, processes: int = 1
) -> None:
    """Turn the rows of each Parquet file into a table in `folder`, except for the files that lie there already.

    Args:
        sources: by the name of the table.
        make: called once per worker with (its number, number of workers); returns a function that turns a batch of rows
            of any of the files into a batch of the same length.
        workers: processes, at most as many as the largest file has batches; a single one works in this process.
        rank, processes: number of this caller, and how many callers there are; each writes its share of the files.

    Raises:
        MilcoError: a worker was killed.
    """
    most = max(pq.read_metadata(source).num_rows for source in sources.values())
    # A worker without a batch would be started for nothing, and a single worker may use all threads (tokens.py).
    with _conversion(make, min(workers, -(-most // ROWS))) as convert:
        for name, source in sources.items():
            with pq.ParquetFile(source, pre_buffer=False) as file:  # else all of it stays in memory until its end
                rows = file.metadata.num_rows
                paths = [folder / f"{name}-{number:05}.arrow" for number in range(-(-rows // FILE_ROWS))]
                missing = {n: paths[n] for n in range(rank, len(paths), processes) if not paths[n].exists()}
                if taken := len(range(rank, len(paths), processes)) - len(missing):
                    print(f"{name}: {taken} of {taken + len(missing)} files are there already", flush=True)
                batches = (b for n, b in enumerate(file.iter_batches(ROWS)) if n * ROWS // FILE_ROWS in missing)
                total = sum(min(FILE_ROWS, rows - n * FILE_ROWS) for n in missing)
                with tqdm(total=total, desc=name, unit="text", mininterval=2) as bar:
                    _write_files(convert(batches), missing.values(), bar)


@contextmanager
def _conversion(make: Make, workers: int) -> Iterator[Callable[[Batches], Iterator[pa.RecordBatch]]]:
    """Context with a function that converts batches in order; its workers end with the context."""
    if workers <= 1:
        yield partial(map, make(0, 1))
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks, but not the threads
    numbers = context.Queue()
    for number in range(workers):
        numbers.put(number)
    pool = ProcessPoolExecutor(workers, context, _start, (make, numbers, workers))
    try:
        yield partial(_in_order, pool, 2 * workers)
    except BrokenProcessPool as error:
        raise MilcoError("a worker died, probably for lack of memory: take fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, ahead: int, batches: Batches) -> Iterator[pa.RecordBatch]:
    waiting: deque[Future] = deque()
    for batch in batches:
        waiting.append(pool.submit(_work, batch))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start(make: Make, numbers, workers: int) -> None:
    global _convert
    _convert = make(numbers.get(), workers)


def _work(batch: pa.RecordBatch) -> pa.RecordBatch:
    return _convert(batch)


def _write_files(batches: Iterator[pa.RecordBatch], paths: Iterable[Path], bar: tqdm) -> None:
    for path in paths:
        first = next(batches)
        with (
            finished_file(path) as draft,
            pa.OSFile(str(draft), "wb") as sink,
            pa.ipc.new_file(sink, first.schema) as writer,
        ):
            for batch in chain([first], islice(batches, FILE_ROWS // ROWS - 1)):
                writer.write_batch(batch)
                bar.update(len(batch))


class Shards:
    """Read access to a table; rows may be asked for in any order and more than once."""

    def __init__(self, folder: Path, name: str):
        self.paths = sorted(folder.glob(f"{name}-*.arrow"))
        for number, path in enumerate(self.paths):
            if path.name != (expected := f"{name}-{number:05}.arrow"):
                raise MilcoError(f"{folder / expected} is missing; delete {folder} and start again")
        self._files: dict[int, list[pa.RecordBatch]] = {}
        self._rows = 0
        if self.paths:
            last = self._file(len(self.paths) - 1)
            self._batches_per_file = len(self._file(0))
            self._rows = ((len(self.paths) - 1) * self._batches_per_file + len(last) - 1) * ROWS + len(last[-1])

    def __len__(self) -> int:
        return self._rows

    def __getstate__(self) -> dict:
        """Drop the memory maps before pickling, which would copy all rows; the other process opens the files itself."""
        return {**self.__dict__, "_files": {}}

    def numbers(self, column: str, rows: np.ndarray) -> np.ndarray:
        """Values of a column of numbers."""
        return self._gather(rows, lambda batch, at: batch.column(column).to_numpy()[at])

    def lengths(self, column: str, rows: np.ndarray) -> np.ndarray:
        """How many values the lists of a column have."""
        return self._gather(rows, lambda batch, at: np.diff(batch.column(column).offsets.to_numpy())[at])

    def lists(self, column: str, rows: np.ndarray) -> list[np.ndarray]:
        """The lists of a column."""
        found = []
        for row in rows.tolist():
            values = self._batch(row // ROWS).column(column)
            start, end = values.offsets[row % ROWS].as_py(), values.offsets[row % ROWS + 1].as_py()
            found.append(values.values[start:end].to_numpy())
        return found

    def _gather(self, rows: np.ndarray, look: Callable[[pa.RecordBatch, np.ndarray], np.ndarray]) -> np.ndarray:
        found = np.zeros(len(rows), np.int64)
        order = np.argsort(rows, kind="stable")
        edges = np.flatnonzero(np.diff(rows[order] // ROWS)) + 1
        for places in np.split(order, edges):
            if len(places):
                found[places] = look(self._batch(int(rows[places[0]]) // ROWS), rows[places] % ROWS)
        return found

    def _batch(self, number: int) -> pa.RecordBatch:
        file, batch = divmod(number, self._batches_per_file)
        return self._file(file)[batch]

    def _file(self, number: int) -> list[pa.RecordBatch]:
        if number not in self._files:
            # The batches keep the map; the file is closed, since many open files would take too many descriptors.
            with pa.memory_map(str(self.paths[number])) as source, pa.ipc.open_file(source) as file:
                self._files[number] = [file.get_batch(batch) for batch in range(file.num_record_batches)]
        return self._files[number]
