"""Users' tables of pairs and triples, some rows at a time, with a clear word for whatever is wrong with one."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from milco.config import Source
from milco.data.beir import numbered_lines, read_jsonl
from milco.data.shards import ROWS
from milco.errors import MilcoError

PAIR_COLUMNS = ["english", "non_english", "language"]
TEXT_COLUMNS = [*PAIR_COLUMNS, "query"]
TRIPLE_COLUMNS = ["query", "pos", "neg", "pos_scores", "neg_scores"]


def read_batches(folder: Path, dataset: Source, name: str, columns: list[str]) -> Iterator[pd.DataFrame]:
    """Read a user's table (Parquet, JSONL, TSV; a file or a folder of files) with the given columns, some rows at a
    time.

    `dataset.columns` renames the file's own columns; a TSV without a header holds English, tab, other language.
    A column `language` may be missing if the dataset has one language, named by `dataset.language`, or if each of its
    subfolders has one, named by `dataset.subsets`.

    In the user's own file no cell is empty; of others' hundreds of millions of rows, some have no value.

    Raises:
        MilcoError: there is no table, or one is not what it should be (the message has its line or row).
    """
    if not folder.exists():
        raise MilcoError(f"sources.{name}: {folder} does not exist")
    readers = {
        ".parquet": _read_parquet,
        ".jsonl": _read_jsonl,
        ".tsv": lambda path: _read_tsv(path, has_header=bool(dataset.columns)),
    }
    files: dict[Path, str | None] = {}
    parts: dict[str, str | None] = {**dataset.subsets} or {"": dataset.language}
    for subset, language in parts.items():
        part = folder / subset
        found = sorted(path for path in (part.rglob("*") if part.is_dir() else [part]) if path.suffix in readers)
        if not found:
            raise MilcoError(f"sources.{name}: no .parquet, .jsonl or .tsv file in {part}")
        files |= dict.fromkeys(found, language)
    for path, language in files.items():
        before = 0
        for table in readers[path.suffix](path):
            table = table.rename(columns={old: new for new, old in dataset.columns.items()})
            if language and "language" not in table:
                table["language"] = language
            missing = [column for column in columns if column not in table]
            if missing:
                hint = (
                    f"set sources.{name}.language" if missing == ["language"] else f"map it in sources.{name}.columns"
                )
                raise MilcoError(f"{path}: column {missing[0]!r} is missing (there are: {', '.join(table)}); {hint}")
            _check_values(path, before, table[columns], holes=dataset.local_path is None)
            yield table[columns]
            before += len(table)


def _check_values(path: Path, before: int, table: pd.DataFrame, holes: bool) -> None:
    """Whether texts are texts, and no cell is empty unless there may be `holes`.

    Args:
        before: rows of the file before those of the table.
    """
    empty_rows = table.isna().any(axis=1)
    if empty_rows.any() and not holes:
        row = int(empty_rows.to_numpy().argmax())
        empty = next(column for column in table if pd.isna(table[column].iloc[row]) is True)
        raise MilcoError(f"{path}: row {before + row + 1} has no value in column {empty!r}")
    for column in table.columns.intersection(TEXT_COLUMNS):
        for row, value in enumerate(table[column], before + 1):
            if not isinstance(value, str) and not (holes and pd.isna(value) is True):
                raise MilcoError(f"{path}: row {row}: the value in column {column!r} is no text ({value!r:.80})")


def _read_parquet(path: Path) -> Iterator[pd.DataFrame]:
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # else all of it stays in memory until its end
            yield file.schema_arrow.empty_table().to_pandas()  # its columns are looked at even if it has no row
            for batch in file.iter_batches(ROWS):
                yield batch.to_pandas()
    except Exception as error:  # pyarrow raises several kinds for a broken file
        raise MilcoError(f"{path}: not a complete Parquet file ({error})") from error


def _read_jsonl(path: Path) -> Iterator[pd.DataFrame]:
    rows = read_jsonl(path, [])
    table = pd.DataFrame(list(islice(rows, ROWS)))
    yield table
    while part := list(islice(rows, ROWS)):  # a key that none of them has is a hole in the column, as before
        yield pd.DataFrame(part, columns=list(dict.fromkeys(chain(table, *part))))


def _read_tsv(path: Path, has_header: bool) -> Iterator[pd.DataFrame]:
    """Fields of a TSV, in which quotation marks are text. It has a header if the user maps columns or if it names
    ours."""
    lines = ((number, line.split("\t")) for number, line in numbered_lines(path))
    _, first = next(lines, (0, PAIR_COLUMNS[:2]))
    has_header = has_header or set(PAIR_COLUMNS[:2]) <= set(first)
    header = first if has_header else PAIR_COLUMNS[: len(first)]
    rows = _of_width(path, len(header), lines if has_header else chain([(1, first)], lines))
    yield pd.DataFrame(columns=header)
    while part := list(islice(rows, ROWS)):
        yield pd.DataFrame(part, columns=header)


def _of_width(path: Path, width: int, lines: Iterable[tuple[int, list[str]]]) -> Iterator[list[str]]:
    for number, row in lines:
        if len(row) != width:
            raise MilcoError(f"{path}:{number}: {len(row)} tab-separated fields, expected {width}")
        yield row
