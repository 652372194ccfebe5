"""Read users' tables of pairs and triples in batches, with a clear message for each error."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
from langcodes import find, tag_is_valid

from milco.config import Source
from milco.data import reading
from milco.data.reading import Broken, BrokenRow, Row, Rows
from milco.data.shards import ROWS
from milco.errors import MilcoError
from milco.languages import normal

PAIR_COLUMNS = ["english", "non_english", "language"]
TEXT_COLUMNS = [*PAIR_COLUMNS, "query"]
TRIPLE_COLUMNS = ["query", "pos", "neg", "pos_scores", "neg_scores"]
TABLES = {"tsv", "csv", "jsonl", "parquet"}
OURS = "revision.json"  # beside what comes from the hub
# What people call the sides of parallel text, beside names and codes of languages.
SIDES = {"source", "target", "src", "tgt", "trg", "text", "translation", "sentence", "sentence1", "sentence2", "lang"}
DIVIDERS = re.compile(r"[-_.]")  # of such a name
REGIONAL = re.compile(r"[a-z]{2}[-_][A-Z]{2}")  # de-DE

Check = Callable[[Row], None]


def read_batches(
    folder: Path,
    dataset: Source,
    name: str,
    columns: list[str],
    broken: Broken | None = None,
    check: Check = lambda row: None,
) -> Iterator[pd.DataFrame]:
    """Read a user's table (a file or a folder of files, of any form that docs/files.md names) with the given columns,
    some rows at a time.

    `dataset.columns` renames the file's own columns, and reaches into them with dots; a TSV or CSV without a header
    holds English, other language, language. A column `language` may be missing if the dataset has one language, named
    by `dataset.language`, or if each of its subfolders has one, named by `dataset.subsets`.

    A cell without a value makes a row of the user's own files broken; other files may have such cells.

    Args:
        broken: how many rows may be broken; none by default.
        check: raises BrokenRow for a row that is not what it should be.

    Raises:
        MilcoError: there is no table, one cannot be read, or too many of their rows are broken (the message has the
            lines or rows of the first ones).
    """
    if not folder.exists():
        raise MilcoError(f"sources.{name}: {folder} does not exist")
    broken = broken or Broken()
    parts: dict[str, str | None] = {**dataset.subsets} or {"": dataset.language}
    found = chain.from_iterable(
        _part(folder / subset, dataset, name, columns, language, broken, check) for subset, language in parts.items()
    )
    rows = reading.whole(found, broken)
    while part := list(islice(rows, ROWS)):
        yield pd.DataFrame(part, columns=columns)


def is_table(path: Path) -> bool:
    """Whether `read_batches` would read a file of this name in a folder."""
    return reading.form_of(path) in TABLES


def _part(
    part: Path, dataset: Source, name: str, columns: list[str], language: str | None, broken: Broken, check: Check
) -> Iterator[tuple]:
    """The rows of a file or folder, as tuples."""
    pairs = columns == PAIR_COLUMNS
    files: list[Path] = []
    left = [part] if part.exists() else []
    if part.is_dir():
        files, left = reading.files_of(part, is_table)
    elif is_table(part):
        files, left = left, []
    moses = _moses(left) if pairs else []
    tmx = [path for path in left if pairs and _is_tmx(path)]
    others = [path for path in left if path not in [*tmx, *chain.from_iterable(moses)] and path.name != OURS]
    kinds = reading.readable(TABLES) + ("; .tmx; in a folder NAME.en and NAME.xx, line by line" if pairs else "")
    if not (files or moses or tmx):
        raise MilcoError(f"sources.{name}: no table in {part}; {kinds}")
    if others:
        more = f" and {len(others) - 3:,} others" if len(others) > 3 else ""
        reading.warn(f"sources.{name}: not read: {', '.join(map(str, others[:3]))}{more}; {kinds}")
    for path in files:
        form = str(reading.form_of(path))
        wanted = [dataset.columns.get(column, column) for column in columns]
        rows = reading.rows(path, form, broken, lambda first: _header(first, dataset, name), wanted)
        yield from _select(path, rows, dataset, name, columns, language, broken, check)
    for english, other in moses:
        said = _own_code(language, reading.unpacked(other.name).rpartition(".")[2])
        rows = _line_by_line(english, other, said, broken)
        yield from _select(other, rows, dataset, name, columns, said, broken, check, renamed=False)
    for path in tmx:
        rows = _of_units(path, language)
        yield from _select(path, rows, dataset, name, columns, language, broken, check, renamed=False)


def _select(
    path: Path,
    rows: Rows,
    dataset: Source,
    name: str,
    columns: list[str],
    language: str | None,
    broken: Broken,
    check: Check,
    renamed: bool = True,
) -> Iterator[tuple]:
    """The given columns of rows, checked."""
    places = {column: dataset.columns.get(column, column) if renamed else column for column in columns}
    first = list(islice(rows, ROWS))
    for column, place in places.items():
        if first and not any(_has(row, place) for _, row in first) and not (column == "language" and language):
            there = ", ".join(dict.fromkeys(chain.from_iterable(row for _, row in first)))
            hint = f"set sources.{name}.language" if column == "language" else f"map it in sources.{name}.columns"
            raise MilcoError(f"{path}: column {column!r} is missing (there are: {there}); {hint}")

    def select(number: int, row: Row) -> tuple:
        found = {column: _reach(row, place) for column, place in places.items()}
        if language and not _has(row, places.get("language", "")):
            found["language"] = language
        for column, value in found.items():
            if value is None or value != value:
                if dataset.local_path is None:
                    continue
                raise BrokenRow(f"no value in column {column!r}")
            if column in TEXT_COLUMNS and not isinstance(value, str):
                raise BrokenRow(f"the value in column {column!r} is no text ({value!r:.80})")
        check(found)
        return tuple(found[column] for column in columns)

    numbered = ((number, row) for number, row in chain(first, rows) if number)
    return reading.each(path, numbered, select, broken)


def _has(row: Row, place: str) -> bool:
    key, dot, rest = place.partition(".")
    return place in row or (bool(dot) and isinstance(row.get(key), dict) and _has(row[key], rest))


def _reach(row: Row, place: str) -> Any:
    """The value at a place: a column, or keys of a nested one with dots between them."""
    if place in row or not _has(row, place):
        return row.get(place)
    key, _, rest = place.partition(".")
    return _reach(row[key], rest)


def _header(first: list[str], dataset: Source, name: str) -> tuple[list[str], bool]:
    """Column names of a TSV or CSV, and whether its first line is a header: it is if the user maps columns or if it has
    our names.

    Raises:
        BrokenRow: the line looks like a header but may be a pair.
    """
    if dataset.columns:
        return first, True
    low = [field.strip().casefold().replace("-", "_").replace(" ", "_") for field in first]
    if set(PAIR_COLUMNS[:2]) <= set(low):
        return low, True
    if len(first) > 1 and all(map(_names_a_side, first)):
        english, other = _sides(first)
        raise BrokenRow(
            f"looks like a header ({', '.join(first):.80}); say which column is which in sources.{name}.columns, such "
            f"as {{english: {english}, non_english: {other}}}; if it is a pair, put another line first"
        )
    return PAIR_COLUMNS[: len(first)], False


def _sides(header: list[str]) -> tuple[str, str]:
    """The columns of a header that are most likely English and the other language."""
    english = next(
        (name for name in header if {"en", "eng", "english"} & {*DIVIDERS.split(name.casefold())}), header[0]
    )
    others = [name for name in header if name != english and name.casefold() != "id"]
    return english, others[0] if others else header[1]


def _names_a_side(field: str) -> bool:
    """Whether a field is a common column name of parallel text, such as English, sentence_de or tgt."""
    field = field.strip()
    return REGIONAL.fullmatch(field) is not None or all(map(_is_name, DIVIDERS.split(field)))


def _is_name(word: str) -> bool:
    low = word.casefold()
    if low in SIDES | set(PAIR_COLUMNS) or (low == word and tag_is_valid(low) and len(normal(low)) == 2):
        return True
    try:
        return word.isalpha() and bool(find(word, "en"))
    except LookupError:
        return False


def _is_tmx(path: Path) -> bool:
    return reading.unpacked(path.name).lower().endswith(".tmx")


def _moses(files: list[Path]) -> list[tuple[Path, Path]]:
    """Pairs of files (NAME.en, NAME.xx) that hold a text and its translation, line by line."""
    names = {path: reading.unpacked(path.name).rpartition(".") for path in files}
    english = {(path.parent, stem): path for path, (stem, _, end) in names.items() if end == "en"}
    return [
        (english[path.parent, stem], path)
        for path, (stem, _, end) in names.items()
        if end != "en" and (path.parent, stem) in english and _is_code(end, stem)
    ]


def _is_code(end: str, stem: str) -> bool:
    """Whether a file's name ends with a language code. One of three letters may also be an ordinary extension: it
    counts only if the stem names it, too (x.en-fil.fil)."""
    named = end in stem.rpartition(".")[2].split("-")
    return tag_is_valid(end) and (named or len(normal(end).partition("-")[0]) == 2)


def _own_code(language: str | None, tag: str) -> str:
    """The language of a text. In a source of one language, its regional variants are that one (de-DE is de)."""
    same = language and normal(language).partition("-")[0] == normal(tag).partition("-")[0]
    return str(language) if same else tag


def _line_by_line(english: Path, other: Path, language: str, broken: Broken) -> Rows:
    """Pair the lines of two files. Raises MilcoError if one has more lines: the place of the missing one is unknown."""

    def row(number: int, lines: tuple[bytes | None, bytes | None]) -> tuple[int, Row]:
        left, right = lines
        if left is None or right is None:
            raise MilcoError(f"{other}:{number}: {english.name} and it must have as many lines")
        return number, {"english": reading.decoded(left), "non_english": reading.decoded(right), "language": language}

    lines: Iterable = zip_longest(reading.raw_lines(english), reading.raw_lines(other))
    rows = reading.each(other, enumerate(lines, 1), row, broken)
    return ((number, row) for number, row in rows if row["english"].strip() or row["non_english"].strip())


def _of_units(path: Path, language: str | None) -> Rows:
    """A pair for each other language of a unit that has English; numbers are those of units."""
    for number, unit in enumerate(reading.tmx_units(path), 1):
        english = [text for tag, text in unit.items() if normal(tag).partition("-")[0] == "en"]
        for tag, text in unit.items():
            if english and normal(tag).partition("-")[0] != "en":
                yield number, {"english": english[0], "non_english": text, "language": _own_code(language, tag)}
