"""Stream texts from a file, a folder of files, or the standard input."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from milco.data import reading
from milco.data.reading import COMPRESSED, STDIN, TEXT
from milco.errors import MilcoError

WINDOW = 4096  # texts that are in memory at a time; the encoder takes them in the order of their length

Texts = Iterator[tuple[str, str]]


def read_texts(path: Path, form: str | None = None, id_key: str | None = None, text_key: str = TEXT) -> Texts:
    """(id, text) of a file, or of the files of a folder by their names, one at a time.

    Args:
        path: `-` is the standard input.
        form: txt (a text a line, its number is its id), tsv (id, tab, text), csv, jsonl or parquet; by default what
            the file's name says, and txt for the standard input.
        id_key: key or column of the ids; by default the first of `reading.IDS` that is there.
        text_key: key or column of the texts; a `title` beside it is put before the text, as in BEIR.

    Raises:
        MilcoError: there is no such file, nothing in it, or a line or row is not what the form asks for.
    """
    path = reading.place(path)
    if not path.exists():
        raise MilcoError(f"{path}: no such file")
    if path.is_dir():
        files, left = reading.files_of(path)
        if not files:
            raise MilcoError(f"{path}: no file of texts in it; {reading.readable()}")
        if left:
            reading.warn(f"{path}: not read: {', '.join(str(one.relative_to(path)) for one in left[:3])}, …")
    elif path == STDIN:
        form = form or "txt"
    elif form is None and reading.form_of(path) is None:
        raise MilcoError(f"{path}: unknown kind of file; {reading.readable()}, or say --format")
    empty = True
    hint = "; say their keys or columns with --id-key and --text-key"
    for record in reading.records(path, form, id_key, text_key, hint=hint):
        empty = False
        yield record.id, record.whole
    if empty:
        raise MilcoError(f"{path}: empty; there is no text in it")


def each_once(texts: Texts, path: Path) -> list[tuple[str, str]]:
    """Load texts into memory and check that their ids are unique: a run cannot distinguish two queries of one id.

    Raises:
        MilcoError: one is.
    """
    found: dict[str, str] = {}
    for number, (identifier, text) in enumerate(texts, 1):
        if identifier in found:
            raise MilcoError(f"{path}: id {identifier!r} is there twice, the second time as text {number}")
        found[identifier] = text
    return list(found.items())


def count_texts(path: Path, form: str | None = None) -> int | None:
    """How many texts a file has, for the progress bar; None for a pipe, and for a file that is compressed."""
    if not path.is_file() or path.suffix.lower() in COMPRESSED:
        return None
    if (form or reading.form_of(path)) == "parquet":
        with suppress(pa.ArrowInvalid):  # `read_texts` has the error for it
            return pq.ParquetFile(path).metadata.num_rows
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def windows(items: Iterable, size: int | None = None) -> Iterator[list]:
    """Lists of so many items in a row; the last may be shorter."""
    items = iter(items)
    return iter(lambda: list(islice(items, size or WINDOW)), [])
