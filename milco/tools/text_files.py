"""Texts of any number from a file or the standard input, read as they come."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from milco.data.beir import json_lines, numbered_lines
from milco.errors import MilcoError

WINDOW = 4096  # texts that are in memory at a time; the encoder takes them in the order of their length
STDIN = Path("/dev/stdin")
IDS, TEXT = ("_id", "id", "docid"), "text"
FORMATS = {".txt": "txt", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

Texts = Iterator[tuple[str, str]]


def read_texts(path: Path, form: str | None = None, id_key: str | None = None, text_key: str = TEXT) -> Texts:
    """(id, text) of a file, one at a time.

    Args:
        path: `-` is the standard input.
        form: txt (a text a line, its number is its id), tsv (id, tab, text), jsonl or parquet; by default what the
            file's name says, and txt for the standard input.
        id_key: key or column of the ids; by default the first of `IDS` that is there.
        text_key: key or column of the texts; a `title` beside it is put before the text, as in BEIR.

    Raises:
        MilcoError: there is no such file, nothing in it, or a line or row is not what the form asks for.
    """
    path = STDIN if str(path) == "-" else path
    form = form or ("txt" if path == STDIN else FORMATS.get(path.suffix))
    if not path.exists() or path.is_dir():
        raise MilcoError(f"{path}: no such file")
    if form is None:
        raise MilcoError(f"{path}: unknown kind of file; name it {', '.join(FORMATS)} or say --format")
    found: Texts
    if form == "txt":
        found = ((str(number), line) for number, line in numbered_lines(path))
    elif form == "tsv":
        found = _tsv(path)
    else:
        rows = _parquet(path, id_key, text_key) if form == "parquet" else json_lines(path)
        found = (_text(row, f"{path}:{number}", id_key, text_key) for number, row in rows)
    number = 0
    for number, (identifier, text) in enumerate(found, 1):
        if not identifier or "\n" in identifier or "\r" in identifier:
            raise MilcoError(f"{path}:{number}: the id {identifier!r} is empty or has more than one line")
        try:
            f"{identifier}{text}".encode()
        except UnicodeEncodeError:
            raise MilcoError(f"{path}:{number}: has half of a surrogate pair, which is no text") from None
        yield identifier, text
    if not number:
        raise MilcoError(f"{path}: empty; there is no text in it")


def _tsv(path: Path) -> Texts:
    for number, line in numbered_lines(path):
        identifier, tab, text = line.partition("\t")
        if not tab or "\t" in text:
            raise MilcoError(f"{path}:{number}: expected an id and a text, tab-separated")
        yield identifier, text


def _parquet(path: Path, id_key: str | None, text_key: str) -> Iterator[tuple[int, dict]]:
    """Rows of a Parquet file with their numbers from 1."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # else all of it stays in memory until its end
    except pa.ArrowInvalid as error:
        raise MilcoError(f"{path}: no complete Parquet file ({error})") from None
    wanted = {*([id_key] if id_key else IDS), text_key, "title"}
    columns = [name for name in file.schema_arrow.names if name in wanted]
    batches = file.iter_batches(WINDOW, columns=columns)
    yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)


def _text(row: dict[str, Any], where: str, id_key: str | None, text_key: str) -> tuple[str, str]:
    keys = [id_key] if id_key else IDS
    identifier = next((row[key] for key in keys if key in row), None)
    if isinstance(identifier, bool) or not isinstance(identifier, str | int):
        raise MilcoError(f"{where}: no id under {' or '.join(map(repr, keys))}; say its key with --id-key")
    if not isinstance(row.get(text_key), str):
        raise MilcoError(f"{where}: no text under {text_key!r}; say its key with --text-key")
    return str(identifier), f"{row.get('title') or ''} {row[text_key]}".strip()


def count_texts(path: Path, form: str | None = None) -> int | None:
    """How many texts a file has, for the progress bar; None for a pipe."""
    if not path.is_file():
        return None
    if (form or FORMATS.get(path.suffix)) == "parquet":
        with suppress(pa.ArrowInvalid):  # `read_texts` has the words for it
            return pq.ParquetFile(path).metadata.num_rows
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def windows(items: Iterable, size: int | None = None) -> Iterator[list]:
    """Lists of so many items in a row; the last may be shorter."""
    items = iter(items)
    return iter(lambda: list(islice(items, size or WINDOW)), [])
