"""Text that must not be trained on, since a test or development collection asks it or answers with it.

What is kept of a string is a digest of 16 bytes. Two strings have the same one if they differ in nothing but case,
white space, composition, invisible characters, and what cleaning takes out of an interface string: so it does not
matter how a corpus was cleaned.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq
import regex

from milco.data.beir import iter_records, read_about, read_queries, relevant_documents
from milco.data.reading import Broken
from milco.data.text import clean, comparable

UNSEEN = regex.compile(r"(?V1)[[\p{Cf}\p{Cc}]--\s]")  # joiners and direction marks included
SCHEMA = pa.schema({"digest": pa.binary(16)})
FILE = "held_out.parquet"


@lru_cache(maxsize=10_000)  # the translations of a text often come one after the other
def digest(text: str) -> bytes:
    """16 bytes, equal for strings that count as the same."""
    plain = text if text.isprintable() else UNSEEN.sub("", text)
    form = comparable(clean(plain) or normalize("NFC", plain))  # of "{name}" nothing would be left
    return hashlib.blake2b(form.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def digests(texts: Iterable[str]) -> set[bytes]:
    """Of all texts but blank ones."""
    return {digest(text) for text in texts if text.strip()}


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


def write(folder: Path, found: set[bytes]) -> None:
    """Beside what `corpora` writes, for those who bring further text."""
    pq.write_table(pa.table([pa.array(sorted(found), pa.binary(16))], SCHEMA), folder / FILE)


def read(folder: Path) -> set[bytes]:
    """What `write` wrote."""
    return set(pq.read_table(folder / FILE)["digest"].to_pylist())
