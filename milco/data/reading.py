"""The only reader of text files: pairs, triples, collections, judgements, runs, and inputs of `milco` commands.

Any such file may be compressed (.gz, .bz2, .xz, .zst; detected by the first bytes), start with a byte order mark, and
contain blank lines. A table (TSV, CSV, JSONL, Parquet) is read as rows with their numbers, those of lines or of rows of
Parquet, from 1. A broken row is counted and left out; more of them than `Broken` allows are an error that names the
first ones. docs/files.md documents this for users.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq

from milco.errors import MilcoError

FORMS = {".txt": "txt", ".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
BATCH = 4096  # rows of Parquet that are in memory at a time
NAMED, COUNTED = 3, 100  # broken rows that an error names; broken rows that end the reading, if none is allowed
STDIN = Path("/dev/stdin")
IDS, TEXT, TITLE = ("_id", "id", "docid"), "text", "title"
# Other names that a header may give to the columns of ids and of texts.
ID_NAMES = (*IDS, "doc_id", "did", "pid", "qid", "query_id", "query-id", "corpus-id", "corpus_id", "passage_id")
TEXT_NAMES = (TEXT, "query", "document", "passage", "contents", "content", "body", "sentence")
CONTROL = re.compile(r"[\0-\x1f\x7f-\x84\x86-\x9f]")  # of an id; U+0085 is a line end to some, but to no reader of ours
SURROGATE = re.compile(r"\\u[dD]")

Row = dict[str, Any]
Rows = Iterator[tuple[int, Row]]
Columns = Callable[[list[str]], tuple[list[str], bool]]
Item = TypeVar("Item")

csv.field_size_limit(2**31 - 1)


class BrokenRow(Exception):
    """A row is invalid; the message says why."""


@dataclass
class Broken:
    """Rows that cannot be read.

    Attributes:
        share: share of all rows that may be broken.
        said: messages about the first ones, with file and line.
    """

    share: float = 0.0
    count: int = 0
    total: int = 0
    said: list[str] = field(default_factory=list)

    def add(self, path: Path, number: int, why: str) -> None:
        """Count one. Raise MilcoError at once if so many rows are broken that this must be another kind of file."""
        self.count += 1
        self.total += 1
        if len(self.said) < NAMED:
            self.said.append(f"{path}:{number}: {why}")
        if self.count >= COUNTED and (not self.share or 2 * self.count > self.total):
            self.check()

    def check(self) -> None:
        """Raise MilcoError if there are too many."""
        if self.count > self.share * self.total:
            raise MilcoError(str(self))

    def __str__(self) -> str:
        of = f" ({self.count:,} of {self.total:,} lines or rows are broken)" if self.count > 1 else ""
        return "; ".join(self.said) + of


def whole(items: Iterable[Item], broken: Broken) -> Iterator[Item]:
    """Yield the valid items; their readers report the others to `broken`. If none may be broken, items after the first
    broken one are read but not yielded, so that the error can count all.

    Raises:
        MilcoError: too many are broken.
    """
    for item in items:
        broken.total += 1
        if not broken.count or broken.share:
            yield item
    broken.check()


def each(
    path: Path, rows: Iterable[tuple[int, Any]], convert: Callable[[int, Any], Item], broken: Broken
) -> Iterator[Item]:
    """Apply `convert` to numbers and rows; rows for which it raises BrokenRow are counted and skipped."""
    for number, row in rows:
        try:
            found = convert(number, row)
        except BrokenRow as error:
            broken.add(path, number, str(error))
            continue
        yield found


def form_of(path: Path) -> str | None:
    """The form of a file, one of `FORMS`, by its name without the end for compression."""
    return FORMS.get(Path(unpacked(path.name)).suffix.lower())


def unpacked(name: str) -> str:
    """The name of a file without the end that says how it is compressed."""
    stem, dot, end = name.rpartition(".")
    return stem if f"{dot}{end}".lower() in COMPRESSED else name


def files_of(folder: Path, wanted: Callable[[Path], Any] = form_of) -> tuple[list[Path], list[Path]]:
    """Files in a folder and its subfolders by name: those that are wanted, and the others. Hidden ones are neither."""
    found = sorted(path for path in folder.rglob("*") if not _hidden(path.relative_to(folder)) and path.is_file())
    return [path for path in found if wanted(path)], [path for path in found if not wanted(path)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def one_of(folder: Path, name: str) -> Path:
    """The file `name` of a folder; else the only readable file or folder with its stem.

    Raises:
        MilcoError: there are several.
    """
    stem = name.partition(".")[0]
    kin = (path for path in folder.glob(f"{stem}*") if form_of(path) and unpacked(path.name).partition(".")[0] == stem)
    shards = [folder / stem] if (folder / stem).is_dir() else []
    found = [folder / name] if (folder / name).exists() else sorted([*kin, *shards])
    if len(found) > 1:
        raise MilcoError(f"{folder}: {' and '.join(path.name for path in found)}; take all but one away")
    return found[0] if found else folder / name


def place(path: Path) -> Path:
    """Path of a file given by the user; `-` is the standard input."""
    return STDIN if str(path) == "-" else path


def open_file(path: Path) -> io.BufferedIOBase:
    """The bytes of a file, without its compression."""
    file = path.open("rb")
    start = file.peek(6)
    if start.startswith(b"\x1f\x8b"):
        return cast(io.BufferedIOBase, gzip.open(file))
    if start.startswith(b"BZh"):
        return bz2.open(file)
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.open(file)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"))
    return file


def raw_lines(path: Path) -> Iterator[bytes]:
    """Lines of a text in UTF-8, or in UTF-16 if its byte order mark says so, with their ends, without the mark.

    Raises:
        MilcoError: it cannot be opened or unpacked to its end.
    """
    try:
        with open_file(path) as file:
            lines: Iterator[bytes] = iter(file)
            first = next(lines, b"")
            if first.startswith((b"\xff\xfe", b"\xfe\xff")):  # what PowerShell writes
                text = io.TextIOWrapper(io.BytesIO(first + file.read()), "utf-16", newline="\n")
                lines = (line.encode() for line in text)
                first = next(lines, b"")
            if first:
                yield first.removeprefix(b"\xef\xbb\xbf")
                yield from lines
    except (EOFError, OSError, lzma.LZMAError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:
        raise MilcoError(f"{path}: cannot be read to its end ({error or type(error).__name__})") from None


def numbered_lines(path: Path, broken: Broken, blank: bool = False) -> Iterator[tuple[int, str]]:
    """Lines of a text with their numbers from 1, without their ends.

    Args:
        blank: also give lines of nothing but white space.
    """
    for number, line in enumerate(raw_lines(path), 1):
        try:
            text = decoded(line)
        except BrokenRow as error:
            broken.add(path, number, str(error))
            continue
        if blank or text.strip():
            yield number, text


def decoded(line: bytes) -> str:
    """The text of a line, without its end. Raises BrokenRow if it is no UTF-8."""
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BrokenRow(f"not UTF-8 ({error.reason})") from None


def rows(path: Path, form: str, broken: Broken, columns: Columns, wanted: Iterable[str] = ()) -> Rows:
    """Rows of a table with their numbers.

    Args:
        form: tsv, csv, jsonl or parquet.
        columns: for TSV and CSV: first line → names of the columns, and whether that line is a header.
        wanted: columns to read of Parquet; all by default. A dot reaches into a column.

    Raises:
        MilcoError: the file is not a table of this form.
    """
    match form:
        case "jsonl":
            return json_lines(path, broken)
        case "parquet":
            return _parquet(path, {name.partition(".")[0] for name in wanted} | set(wanted))
        case _:
            fields = _csv(path, broken) if form == "csv" else _tsv(path, broken)
            return _named(path, fields, "tab" if form == "tsv" else "comma", columns, broken)


def json_lines(path: Path, broken: Broken) -> Rows:
    """Objects of a JSONL file with the numbers of their lines."""
    return each(path, numbered_lines(path, broken), _object, broken)


def _object(number: int, line: str) -> tuple[int, Row]:
    try:
        row = json.loads(line, object_pairs_hook=_each_key_once)
    except json.JSONDecodeError as error:
        raise BrokenRow(f"not a JSON object ({error.msg})") from None
    except RecursionError:
        raise BrokenRow("not a readable JSON object (nested too deeply)") from None
    except ValueError:  # a number of thousands of digits
        raise BrokenRow("not a readable JSON object (a number is too long)") from None
    if not isinstance(row, dict):
        raise BrokenRow("not a JSON object")
    if SURROGATE.search(line):
        whole_text(json.dumps(row, ensure_ascii=False))
    return number, row


def _each_key_once(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        key = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise BrokenRow(f"{key!r} occurs twice")
    return row


def whole_text(text: str) -> str:
    """A text, if it can be written in UTF-8. Raises BrokenRow otherwise."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BrokenRow("has half of a surrogate pair, which is no text") from None
    return text


def _parquet(path: Path, wanted: set[str]) -> Rows:
    before = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # else all of it stays in memory until its end
            there = file.schema_arrow.names
            columns = [name for name in there if name in wanted] if wanted else there
            for batch in file.iter_batches(BATCH, columns=columns):
                yield from enumerate(batch.to_pylist(), before + 1)
                before += len(batch)
            if not before:  # its columns are looked at even if it has no row
                yield 0, dict.fromkeys(there)
    except Exception as error:  # pyarrow raises several kinds for a broken file
        reason = str(error).splitlines()[0]
        raise MilcoError(f"{path}: not a complete Parquet file ({reason})") from error


def _tsv(path: Path, broken: Broken) -> Iterator[tuple[int, list[str]]]:
    """Fields of a TSV, in which quotation marks are text."""
    return ((number, line.split("\t")) for number, line in numbered_lines(path, broken))


def _csv(path: Path, broken: Broken) -> Iterator[tuple[int, list[str]]]:
    """Fields of a CSV, between commas, or semicolons if the first line has more of them; a field in quotation marks
    may have line ends."""
    lines = numbered_lines(path, broken, blank=True)
    number, first = next(lines, (0, ""))

    def fed() -> Iterator[str]:
        nonlocal number
        for at, line in chain([(number, first)], lines):
            number = at
            yield f"{line}\n"

    found = csv.reader(fed(), delimiter=";" if first.count(";") > first.count(",") else ",", strict=True)
    while True:
        try:
            fields = next(found, None)
        except csv.Error as error:
            broken.add(path, number, f"not CSV ({error})")
            continue
        if fields is None:
            return
        if any(map(str.strip, fields)):
            yield number, fields


def _named(path: Path, lines: Iterator[tuple[int, list[str]]], mark: str, columns: Columns, broken: Broken) -> Rows:
    number, first = next(lines, (0, []))
    if not number:
        return
    try:
        names, is_header = columns(first)
    except BrokenRow as error:
        raise MilcoError(f"{path}:{number}: {error}") from None

    def row(number: int, fields: list[str]) -> tuple[int, Row]:
        if len(fields) != len(names):
            raise BrokenRow(f"{len(fields)} {mark}-separated fields, expected {len(names)}")
        return number, dict(zip(names, fields, strict=True))

    yield from each(path, lines if is_header else chain([(number, first)], lines), row, broken)


def tmx_units(path: Path) -> Iterator[dict[str, str]]:
    """Units of a TMX: language → segment, without what its inline marks hold.

    Raises:
        MilcoError: the file is not a complete TMX.
    """
    try:
        with open_file(path) as file:
            units = ElementTree.Element("body")
            for event, element in ElementTree.iterparse(file, ["start", "end"]):
                if event == "start" and element.tag == "body":
                    units = element
                elif event == "end" and element.tag == "tu":
                    yield {_language(one): _segment(one.find("seg")) for one in element.iter("tuv")}
                    units.clear()  # else all of them stay in memory
    except (ElementTree.ParseError, EOFError, OSError, lzma.LZMAError, zlib.error, pa.ArrowException) as error:
        raise MilcoError(f"{path}: not a complete TMX ({error})") from None


def _language(variant: ElementTree.Element) -> str:
    return variant.get("{http://www.w3.org/XML/1998/namespace}lang") or variant.get("lang") or ""


def _segment(element: ElementTree.Element | None) -> str:
    if element is None:
        return ""
    parts = [element.text or ""]
    for child in element:
        parts += [_segment(child) if child.tag == "hi" else "", child.tail or ""]
    return "".join(parts)


def identifier(value: Any) -> str:
    """The id that a row has. Whole numbers are ids, too.

    Raises:
        BrokenRow: the row has no id, or its id has a control character (tab, line end); other white space is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BrokenRow(f"the id {value!r:.80} is no text and no whole number")
    found = str(value)
    if not found or CONTROL.search(found):
        raise BrokenRow(f"the id {found!r:.80} is empty or has a control character, such as a tab or a line end, in it")
    return whole_text(found)


@dataclass
class Record:
    """A row of a table of texts. Its title is empty where it has none."""

    number: int
    id: str
    title: str
    text: str

    @property
    def whole(self) -> str:
        """Title and text."""
        return f"{self.title} {self.text}".strip()


def records(
    path: Path,
    form: str | None = None,
    id_key: str | None = None,
    text_key: str = TEXT,
    broken: Broken | None = None,
    hint: str = "",
) -> Iterator[Record]:
    """Texts with their ids, of a file or of the files of a folder.

    Args:
        form: of the file; by default what its name says.
        id_key, text_key: keys or columns; by default the first of `IDS` that is there, and `TEXT`.
        broken: how many rows may be broken; none by default.
        hint: for an error about keys.

    Raises:
        MilcoError: a file cannot be read, or too many rows are broken.
    """
    broken = broken or Broken()
    files = files_of(path)[0] if path.is_dir() else [path]
    found = (record for file in files for record in _records(file, form, id_key, text_key, broken, hint))
    return whole(found, broken)


def _records(
    path: Path, form: str | None, id_key: str | None, text_key: str, broken: Broken, hint: str
) -> Iterator[Record]:
    form = form or form_of(path)
    if form == "txt":  # a line is a text, its number the id
        for number, line in numbered_lines(path, broken):
            yield Record(number, str(number), "", line)
        return
    if form is None:
        raise MilcoError(f"{path}: unknown kind of file; {readable()}")
    keys = [id_key] if id_key else IDS
    named: dict[str, str] = {}  # key → column of that meaning, in TSV and CSV

    def columns(first: list[str]) -> tuple[list[str], bool]:
        places = {name.strip().casefold(): name for name in reversed(first)}
        ids = [places[name] for name in ([id_key.casefold()] if id_key else ID_NAMES) if name in places]
        texts = [places[name] for name in (TEXT_NAMES if text_key == TEXT else [text_key.casefold()]) if name in places]
        if ids and texts:
            named.update({keys[0]: ids[0], text_key: texts[0]})
            named.update({TITLE: places[TITLE]} if TITLE in places else {})
            return first, True
        if id_key or text_key != TEXT or first[0].strip().casefold() in ID_NAMES:
            raise BrokenRow(
                f"looks like a header ({', '.join(first):.80}), but names no column of ids and one of texts{hint}; "
                "call them id and text, or put another line first"
            )
        if len(first) != 2:
            raise BrokenRow(f"{len(first)} fields; expected an id and a text, or a header that names the columns")
        return [keys[0], text_key], False

    def record(number: int, row: Row) -> Record:
        row = {**row, **{key: row[name] for key, name in named.items()}}
        there = [key for key in keys if key in row]
        if not there:
            raise BrokenRow(f"no id under {' or '.join(map(repr, keys))}{hint}")
        title, text = row.get(TITLE), row.get(text_key)
        if not isinstance(text, str):
            raise BrokenRow(f"no text under {text_key!r}{hint}")
        if title is None or title != title:  # NaN
            title = ""
        if not isinstance(title, str):
            raise BrokenRow(f"the title {title!r:.80} is no text")
        return Record(number, identifier(row[there[0]]), title, text)

    found = rows(path, form, broken, columns, [*keys, text_key, TITLE])
    yield from each(path, ((number, row) for number, row in found if number), record, broken)


def readable(forms: Container[str] = FORMS.values()) -> str:
    """List of readable file types, for error messages."""
    ends = (end for end, form in FORMS.items() if form in forms)
    return f"readable: {', '.join(ends)}, also with {', '.join(COMPRESSED)} at the end"


def warn(message: str) -> None:
    """Print a warning, which does not stop a program, on the standard error."""
    print(f"warning: {message}", file=sys.stderr)
