"""Strings that must not be trained on, because they are queries or documents of test or development collections.

Each string is stored as a 16-byte digest. Strings have the same digest if they differ only in case, white space,
composition, invisible characters, and what cleaning removes from an interface string. So it does not matter how a
corpus was cleaned.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import regex

from milco.data.beir import iter_records, read_about, read_queries, relevant_documents
from milco.data.reading import Broken
from milco.data.sorting import DIGEST_EDGES, RUN, Sorted
from milco.data.text import clean, comparable

UNSEEN = regex.compile(r"(?V1)[[\p{Cf}\p{Cc}]--\s]")  # joiners and direction marks included
DIGEST, HALF = np.dtype("S16"), np.dtype(">u8")
SCHEMA = pa.schema({"digest": pa.binary(DIGEST.itemsize)})
FILE = "held_out.parquet"
GROUP = 2**20  # digests that are read and written at a time


@lru_cache(maxsize=10_000)  # the translations of a text often come one after the other
def digest(text: str) -> bytes:
    """16 bytes, equal for strings that count as the same."""
    plain = text if text.isprintable() else UNSEEN.sub("", text)
    form = comparable(clean(plain) or normalize("NFC", plain))  # cleaning leaves nothing of "{name}"
    return hashlib.blake2b(form.encode("utf-8", "surrogatepass"), digest_size=DIGEST.itemsize).digest()


def strings_of(folder: Path, split: str, documents: str, broken: float = 0.0) -> Iterator[str]:
    """Queries and documents of a collection in BEIR layout. A document yields its title, its text, and both joined.

    Args:
        documents: `all`, those with a grade above 0 (`relevant`), or none (`queries`).
        broken: share of its rows that may be broken.
    """
    queries, qrels = read_queries(folder, split, Broken(broken))
    yield from queries.values()
    if documents == "queries":
        return
    relevant, chunked = relevant_documents(qrels), read_about(folder).get("chunked")
    for record in iter_records(folder, Broken(broken)):
        judged = record.id.rpartition("#")[0] if chunked else record.id
        if documents == "all" or judged in relevant:
            yield record.text
            if record.title.strip():
                yield from (record.title, f"{record.title} {record.text}")


class HeldOut:
    """Set of strings that must not be trained on, in any spelling that `digest` treats as equal: `text in held_out`.

    Their digests are sorted on disk, and lie in a file for temporary data that is mapped into memory.
    """

    def __init__(self, texts: Iterable[str] = ()):
        """Hold all texts except blank ones."""
        found = Sorted(_halves(digest(text) for text in texts if text.strip()), DIGEST_EDGES)
        self.digests = _mapped(np.unique(part.astype(HALF).view(DIGEST)) for part in found.parts())

    def __contains__(self, text: str) -> bool:
        wanted = digest(text)
        place = int(self.digests.searchsorted(wanted))
        return place < len(self.digests) and self.digests.item(place) == wanted.rstrip(b"\0")  # NumPy drops zeros

    def write(self, folder: Path) -> None:
        """Write them beside what `corpora` writes, for rules that read further text."""
        with pq.ParquetWriter(folder / FILE, SCHEMA) as writer:
            for start in range(0, len(self.digests), GROUP):
                some = self.digests[start : start + GROUP]
                buffers = [None, pa.py_buffer(some)]
                column = pa.FixedSizeBinaryArray.from_buffers(SCHEMA.types[0], len(some), buffers)
                writer.write_table(pa.table([column], SCHEMA))

    @classmethod
    def read(cls, folder: Path) -> "HeldOut":
        """What `write` wrote."""
        found = cls()
        columns = (batch.column("digest") for batch in pq.ParquetFile(folder / FILE).iter_batches(GROUP))
        found.digests = _mapped(
            np.frombuffer(one.buffers()[1], DIGEST, len(one), DIGEST.itemsize * one.offset) for one in columns
        )
        return found


def _halves(digests: Iterator[bytes]) -> Iterator[np.ndarray]:
    """Digests as pairs of numbers, which are in the same order, some at a time."""
    for some in iter(lambda: b"".join(islice(digests, RUN)), b""):
        yield np.frombuffer(some, HALF).reshape(-1, 2).astype(np.uint64)


def _mapped(portions: Iterable[np.ndarray]) -> np.ndarray:
    """Portions of digests as one memory-mapped array, which the system may take out of memory."""
    with tempfile.TemporaryFile() as file:
        for portion in portions:
            portion.tofile(file)
        if not file.tell():
            return np.empty(0, DIGEST)
        return np.asarray(np.memmap(file, DIGEST, "r"))
