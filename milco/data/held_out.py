"""Text that must not be trained on, since a test or development collection asks it or answers with it.

Only a digest of 16 bytes is kept of a string. Strings have the same digest if they differ only in case, white space,
composition, invisible characters, and what cleaning removes from an interface string. So it does not matter how a
corpus was cleaned.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import regex

from milco.data.beir import iter_records, read_about, read_queries, relevant_documents
from milco.data.reading import Broken
from milco.data.text import clean, comparable

UNSEEN = regex.compile(r"(?V1)[[\p{Cf}\p{Cc}]--\s]")  # joiners and direction marks included
DIGEST = np.dtype("S16")
SCHEMA = pa.schema({"digest": pa.binary(DIGEST.itemsize)})
FILE = "held_out.parquet"


@lru_cache(maxsize=10_000)  # the translations of a text often come one after the other
def digest(text: str) -> bytes:
    """16 bytes, equal for strings that count as the same."""
    plain = text if text.isprintable() else UNSEEN.sub("", text)
    form = comparable(clean(plain) or normalize("NFC", plain))  # cleaning leaves nothing of "{name}"
    return hashlib.blake2b(form.encode("utf-8", "surrogatepass"), digest_size=DIGEST.itemsize).digest()


def strings_of(folder: Path, split: str, documents: str, broken: float = 0.0) -> Iterator[str]:
    """Queries and documents of a collection in BEIR layout: of a document its title, its text, and both.

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
            yield from (record.title, record.text, f"{record.title} {record.text}")


class HeldOut:
    """Strings that must not be trained on, however they are written: `text in held_out`.

    It takes 16 bytes for each, and as many again while it is built; a Python set would take 100.
    """

    def __init__(self, texts: Iterable[str] = ()):
        """Hold all texts except blank ones."""
        found = bytearray()
        for text in texts:
            if text.strip():
                found += digest(text)
        digests = np.frombuffer(found, DIGEST)
        digests.sort()  # in place
        first = np.ones(len(digests), bool)
        first[1:] = digests[1:] != digests[:-1]
        self.digests = digests[first]

    def __contains__(self, text: str) -> bool:
        wanted = digest(text)
        place = int(self.digests.searchsorted(wanted))
        return place < len(self.digests) and self.digests.item(place) == wanted.rstrip(b"\0")  # NumPy drops zeros

    def write(self, folder: Path) -> None:
        """Write them beside what `corpora` writes, for rules that read further text."""
        buffers = [None, pa.py_buffer(self.digests)]
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST.itemsize), len(self.digests), buffers)
        pq.write_table(pa.table([column], SCHEMA), folder / FILE)

    @classmethod
    def read(cls, folder: Path) -> "HeldOut":
        """What `write` wrote."""
        found = cls()
        for batch in pq.read_table(folder / FILE).combine_chunks().to_batches():  # one, or none
            column = batch.column("digest")
            found.digests = np.frombuffer(column.buffers()[1], DIGEST, len(column), column.offset * DIGEST.itemsize)
        return found
