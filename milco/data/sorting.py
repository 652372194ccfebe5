"""Sort and join pairs of integers on disk, in constant memory.

DuckDB could do this, but it uses all memory up to its limit and fails if the limit is low.
"""

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from itertools import count, pairwise, takewhile

import numpy as np

PARTS = 256
RUN = 65_536  # pairs that are sorted at a time
DIGEST_EDGES = np.arange(1, PARTS, dtype=np.uint64) * np.uint64(2**64 // PARTS)  # of keys that are digests of 8 bytes


class Sorted:
    """(key, value) pairs sorted by key in a temporary file, 16 bytes each.

    Args:
        portions: arrays of n×2, uint64, of any lengths.
        edges: ascending keys at which a new part begins. One part is in memory at a time.
    """

    def __init__(self, portions: Iterable[np.ndarray], edges: np.ndarray):
        self.file, self.bounds = tempfile.TemporaryFile(), [0]  # noqa: SIM115 (it lives as long as this)
        with tempfile.TemporaryFile() as runs:
            written, bounds = 0, list[np.ndarray]()  # of the parts of each run
            for pairs in _runs(portions):
                run = _by_key(pairs)
                inner = np.searchsorted(np.ascontiguousarray(run[:, 0]), edges)
                bounds.append(written + np.concatenate([[0], inner, [len(run)]]))
                run.tofile(runs)
                written += len(run)
            for part in range(len(edges) + 1):
                found = [_read(runs, run[part], run[part + 1]) for run in bounds]
                _by_key(np.concatenate([np.empty((0, 2), np.uint64), *found])).tofile(self.file)
                self.bounds.append(self.bounds[-1] + sum(map(len, found)))

    def __len__(self) -> int:
        return self.bounds[-1]

    def parts(self, some: range | None = None) -> Iterator[np.ndarray]:
        """All pairs in order, or those at the places `some`; one part, the pairs between two edges, at a time."""
        places = range(len(self)) if some is None else some
        for start, end in pairwise(self.bounds):
            start, end = max(start, places.start), min(end, places.stop)
            yield _read(self.file, start, max(start, end))

    def joined(self, others: "Sorted") -> Iterator[np.ndarray]:
        """Join: (own value, other value) for equal keys; `others` must have the same edges."""
        for here, there in zip(self.parts(), others.parts(), strict=True):
            keys, wanted = np.ascontiguousarray(here[:, 0]), np.ascontiguousarray(there[:, 0])
            first = np.searchsorted(keys, wanted)
            counts = np.searchsorted(keys, wanted, side="right") - first
            ends = np.cumsum(counts)
            at = np.arange(counts.sum()) + np.repeat(first - ends + counts, counts)
            yield np.column_stack([here[at, 1], np.repeat(there[:, 1], counts)])


class Digests:
    """Signed 8-byte digests, added one at a time and stored in a temporary file."""

    def __init__(self):
        self.file, self.waiting = tempfile.TemporaryFile(), array("q")  # noqa: SIM115 (it lives as long as this)

    def add(self, digest: int) -> None:
        self.waiting.append(digest)
        if len(self.waiting) >= RUN:
            self._write()

    def repeated(self) -> bool:
        """Whether any digest occurs twice."""
        self._write()
        self.file.seek(0)
        portions = takewhile(len, (np.fromfile(self.file, np.uint64, RUN) for _ in count()))
        parts = Sorted(numbered(portions), DIGEST_EDGES).parts()
        return any((part[1:, 0] == part[:-1, 0]).any() for part in parts)

    def _write(self) -> None:
        self.waiting.tofile(self.file)
        del self.waiting[:]


def numbered(portions: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Keys that come in portions, each with its place among all."""
    start = 0
    for keys in portions:
        yield np.column_stack([keys, np.arange(start, start := start + len(keys), dtype=np.uint64)])


def _runs(portions: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Portions put together until they have `RUN` pairs."""
    waiting, held = list[np.ndarray](), 0
    for pairs in portions:
        waiting.append(pairs)
        held += len(pairs)
        if held >= RUN:
            yield np.concatenate(waiting)
            waiting, held = [], 0
    if held:
        yield np.concatenate(waiting)


def _by_key(pairs: np.ndarray) -> np.ndarray:
    return pairs[np.argsort(pairs[:, 0])]


def _read(file, start: int, end: int) -> np.ndarray:
    file.seek(16 * start)
    return np.fromfile(file, np.uint64, 2 * int(end - start)).reshape(-1, 2)
