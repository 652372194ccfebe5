"""Runs and judgements as TREC writes them.

White space separates the columns of such a file. An empty id, or an id with white space, is percent-encoded with the
prefix of RFC 8187: `Geneva Durben` becomes `UTF-8''Geneva%20Durben`. So is an id that starts with this prefix. Every
other id is written as it is, also a URL with a `%` of its own: other programs find it in their judgements, and their
files are read unchanged.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from milco.data import reading
from milco.data.reading import Broken, BrokenRow, Row, identifier
from milco.errors import MilcoError

Run = dict[str, dict[str, float]]
Qrels = dict[str, dict[str, int]]
MARK = "UTF-8''"  # of a percent-encoded id
OUR_LINE = rb"\S+ Q0 \S+ 1 \S+ milco\n"  # the first of a run that `milco search` wrote
GRADE = re.compile(r"(-?[0-9]{1,9})(\.0*)?")
# What headers and objects call the columns; the last one of TSV and CSV is that of the grades.
QUERIES = ("query-id", "query_id", "queryid", "qid", "query", "topic")
DOCUMENTS = ("corpus-id", "corpus_id", "doc_id", "docid", "doc-id", "document", "docno", "did", "pid")
GRADES = ("score", "grade", "relevance", "rel", "label", "judgement", "judgment")


def write_run(run: Run, name: str, lines: IO[str]) -> None:
    """Write {query: {document: score}}, best first, as lines QUERY Q0 DOCUMENT RANK SCORE NAME.

    Scores have nine significant digits, enough to distinguish any two float32 values. With fewer, different scores
    would tie and measures of the file would differ from ours.
    """
    for query, documents in run.items():
        for rank, (document, score) in enumerate(documents.items(), 1):
            lines.write(f"{escaped(query)} Q0 {escaped(document)} {rank} {score:.9g} {name}\n")


def escaped(identifier: str) -> str:
    """An id as a column of a TREC file."""
    stays = identifier.split() == [identifier] and not identifier.startswith(MARK)
    return identifier if stays else MARK + quote(identifier, safe="")


def _id(column: str) -> str:
    return unquote(column.removeprefix(MARK)) if column.startswith(MARK) else column


def read_run(path: Path) -> Run:
    """{query: {document: score}} of a TREC run file.

    Raises:
        MilcoError: there is no such file, nothing in it, or a line is not that of a run.
    """
    run: Run = {}
    broken = Broken()
    for number, query, document, value in reading.whole(reading.each(path, _lines(path, broken), _hit, broken), broken):
        if document in run.setdefault(query, {}):
            raise MilcoError(f"{path}:{number}: query {query!r} has document {document!r} twice")
        run[query][document] = value
    return run


def read_qrels(path: Path) -> Qrels:
    """{query: {document: grade}} of judgements: lines QUERY 0 DOCUMENT GRADE as in TREC, or query-id, corpus-id, score
    as in BEIR, these also in CSV, JSONL or Parquet. In a line with tabs, tabs alone separate the columns, and other
    white space is part of an id.

    Raises:
        MilcoError: there is no such file, nothing in it, or a line is neither.
    """
    qrels: Qrels = {}
    lines: dict[str, dict[str, int]] = {}
    for number, query, document, grade in _judgements(path):
        before = qrels.setdefault(query, {}).setdefault(document, grade)
        first = lines.setdefault(query, {}).setdefault(document, number)
        if before != grade:
            raise MilcoError(
                f"{path}:{number}: query {query!r} judges document {document!r} twice, {before} (line {first}) and "
                f"{grade}; take one of them away"
            )
    if not qrels:
        raise MilcoError(f"{path}: no judgement in it")
    return qrels


def _hit(number: int, line: str) -> tuple[int, str, str, float]:
    try:
        query, _, document, _, score, _ = line.split()
        value = float(score)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BrokenRow("expected QUERY Q0 DOCUMENT RANK SCORE NAME")
    return number, _id(query), _id(document), value


def _judgements(path: Path) -> Iterator[tuple[int, str, str, int]]:
    """Line, query, document and grade of each."""
    broken = Broken()
    form = reading.form_of(path)
    if form in ("jsonl", "parquet"):
        rows = reading.rows(_there(path), form, broken, lambda first: (first, True))
        found = reading.each(path, ((number, row) for number, row in rows if number), _named, broken)
    else:
        found = reading.each(path, _fields(path, form, broken), _judgement, broken)
    return reading.whole(found, broken)


def _fields(path: Path, form: str | None, broken: Broken) -> Iterator[tuple[int, list[str]]]:
    """Fields of each line but a header."""
    if form == "csv":
        rows = reading.rows(_there(path), form, broken, lambda first: (list(map(str, range(len(first)))), False))
        lines = ((number, list(row.values())) for number, row in rows)
    else:
        lines = ((number, _columns(line)) for number, line in _lines(path, broken))
    number, first = next(lines, (0, []))
    if number and not (len(first) in (3, 4) and first[-1].strip().casefold() in GRADES):
        yield number, first
    yield from lines


def _columns(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _judgement(number: int, words: list[str]) -> tuple[int, str, str, int]:
    grade = GRADE.fullmatch(words[-1].strip())
    if len(words) not in (3, 4) or not grade:
        header = "looks like a header; name its last column score, or take it away; " if number == 1 else ""
        raise BrokenRow(
            f"{header if words[-1].isalpha() else ''}expected QUERY 0 DOCUMENT GRADE or query-id, corpus-id and score, "
            "a whole number"
        )
    query, document = identifier(words[0]), identifier(words[-2])
    if len(words) == 4:
        query, document = _id(query), _id(document)
    return number, query, document, int(grade[1])


def _named(number: int, row: Row) -> tuple[int, str, str, int]:
    """The judgement of an object."""
    query, document, value = (
        next((row[name] for name in names if name in row), None) for names in (QUERIES, DOCUMENTS, GRADES)
    )
    grade = GRADE.fullmatch(str(value))
    if query is None or document is None or not grade:
        raise BrokenRow("expected query-id, corpus-id and score, a whole number")
    return number, identifier(query), identifier(document), int(grade[1])


def with_relevant(qrels: Qrels, path: Path) -> Qrels:
    """Judgements of the queries with a relevant document; only these are measured, as in a test collection.

    Raises:
        MilcoError: the judgements at `path` have no such query.
    """
    found = {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}
    if not found:
        raise MilcoError(f"{path}: no grade above 0 in it; there is nothing to find")
    return found


def complete(run: Run, qrels: Qrels, path: Path) -> Run:
    """A run with an entry for each judged query; a query that the run lacks has found nothing.

    Raises:
        MilcoError: the run at `path` has none of the judged queries.
    """
    if not run.keys() & qrels.keys():
        raise MilcoError(f"{path}: none of the {len(qrels)} judged queries is in it; are these its judgements?")
    if not any(run.get(query, {}).keys() & grades.keys() for query, grades in qrels.items()):
        reading.warn(f"{path}: no judged document is in it; are their ids written in the same way?")
    return {query: run.get(query, {}) for query in qrels}


def _lines(path: Path, broken: Broken) -> Iterator[tuple[int, str]]:
    yield from reading.numbered_lines(_there(path), broken)


def _there(path: Path) -> Path:
    """The path of a file that exists and is not empty, or of a pipe."""
    path = reading.place(path)
    if not path.exists() or path.is_dir():
        raise MilcoError(f"{path}: no such file")
    if path.is_file() and not path.stat().st_size:
        raise MilcoError(f"{path}: empty")
    return path
