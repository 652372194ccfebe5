"""Tables with a list in each row, of any size: written by several workers at constant memory, read through memory maps.

A table NAME is a row of files NAME-00000.arrow, NAME-00001.arrow, … of `FILE_ROWS` rows each, in record batches of
`ROWS` rows; only the last of each may be shorter. So a row's place is a division, and opening a table reads nothing.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from milco.errors import MilcoError

ROWS = 10_000
FILE_ROWS = 20 * ROWS  # also the rows of a row group of the Parquet file that a table is made from

Convert = Callable[[pa.RecordBatch], pa.RecordBatch]
Make = Callable[[int, int], Convert]
_convert: Convert


def write_parquet(rows: pa.Table | pa.RecordBatchReader, path: Path) -> None:
    """Write rows in row groups that `write_shards` can deal out to its workers."""
    batches = rows.to_batches() if isinstance(rows, pa.Table) else rows
    waiting = rows.schema.empty_table()
    with pq.ParquetWriter(path, rows.schema) as writer:
        for batch in batches:
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
            whole = len(waiting) // FILE_ROWS * FILE_ROWS
            if whole:
                writer.write_table(waiting[:whole], FILE_ROWS)
                waiting = waiting[whole:]
        if len(waiting):
            writer.write_table(waiting, FILE_ROWS)


def write_shards(source: Path, folder: Path, name: str, make: Make, workers: int) -> None:
    """Turn the rows of a Parquet file into the table `name` in `folder`.

    Args:
        source: what `write_parquet` wrote.
        make: called once in each worker, (its number, how many there are) → what turns a batch of rows into as many
            others.
        workers: processes, no more of them than there are row groups; a single one works in this process.

    Raises:
        MilcoError: the row groups are of other sizes, or a worker was killed.
    """
    meta = pq.ParquetFile(source).metadata
    sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
    if any(size != FILE_ROWS for size in sizes[:-1]) or (sizes and sizes[-1] > FILE_ROWS):
        raise MilcoError(f"{source}: its row groups do not have {FILE_ROWS:,} rows each; make it anew")
    jobs = [(source, group, folder / f"{name}-{group:05}.arrow") for group in range(len(sizes))]
    workers = min(workers, len(jobs))  # who has nothing to do would keep its share of the threads from the others
    with tqdm(total=meta.num_rows, desc=name, unit="text", mininterval=2) as bar:
        if workers <= 1:
            convert = make(0, 1)
            for job, size in zip(jobs, sizes, strict=True):
                _write_file(convert, *job)
                bar.update(size)
            return
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks, but not the threads
        numbers = context.Queue()
        for number in range(workers):
            numbers.put(number)
        try:
            with ProcessPoolExecutor(workers, context, _start, (make, numbers, workers)) as pool:
                for size, _ in zip(sizes, pool.map(_work, jobs), strict=True):
                    bar.update(size)
        except BrokenProcessPool as error:
            raise MilcoError(f"{name}: a worker died, mostly of lack of memory: take fewer workers") from error


def _start(make: Make, numbers, workers: int) -> None:
    global _convert
    _convert = make(numbers.get(), workers)


def _work(job: tuple[Path, int, Path]) -> None:
    _write_file(_convert, *job)


def _write_file(convert: Convert, source: Path, group: int, path: Path) -> None:
    with pq.ParquetFile(source) as file, pa.OSFile(str(path), "wb") as sink:
        writer = None
        for batch in file.iter_batches(ROWS, [group]):
            made = convert(batch)
            writer = writer or pa.ipc.new_file(sink, made.schema)
            writer.write_batch(made)
        if writer:
            writer.close()


class Shards:
    """Read access to a table; rows may be asked for in any order and more than once."""

    def __init__(self, folder: Path, name: str):
        self.paths = sorted(folder.glob(f"{name}-*.arrow"))
        self._files: dict[int, pa.ipc.RecordBatchFileReader] = {}
        self._batches: dict[int, pa.RecordBatch] = {}
        self._rows = 0
        if self.paths:
            last = self._file(len(self.paths) - 1)
            whole = (len(self.paths) - 1) * FILE_ROWS + (last.num_record_batches - 1) * ROWS
            self._rows = whole + last.get_batch(last.num_record_batches - 1).num_rows

    def __len__(self) -> int:
        return self._rows

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
        if number not in self._batches:
            file, batch = divmod(number, FILE_ROWS // ROWS)
            self._batches[number] = self._file(file).get_batch(batch)
        return self._batches[number]

    def _file(self, number: int) -> pa.ipc.RecordBatchFileReader:
        if number not in self._files:
            self._files[number] = pa.ipc.open_file(pa.memory_map(str(self.paths[number])))
        return self._files[number]
