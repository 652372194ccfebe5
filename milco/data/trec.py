"""Runs and judgements as TREC writes them."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from milco.data.beir import GRADE, numbered_lines
from milco.errors import MilcoError

Run = dict[str, dict[str, float]]
Qrels = dict[str, dict[str, int]]


def write_run(run: Run, name: str, lines: IO[str]) -> None:
    """Write {query: {document: score}}, best first, as lines QUERY Q0 DOCUMENT RANK SCORE NAME.

    Raises:
        MilcoError: an id has white space in it, which parts the columns of such a file.
    """
    for query, documents in run.items():
        for identifier in (query, *documents):
            if len(identifier.split()) != 1:
                raise MilcoError(f"the id {identifier!r} has white space, which a TREC run cannot hold; write JSON")
        for rank, (document, score) in enumerate(documents.items(), 1):
            lines.write(f"{query} Q0 {document} {rank} {score:.6f} {name}\n")


def read_run(path: Path) -> Run:
    """{query: {document: score}} of a TREC run file.

    Raises:
        MilcoError: there is no such file, nothing in it, or a line is none of a run.
    """
    run: Run = {}
    for number, words in _lines(path):
        try:
            query, _, document, _, score, _ = words
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise MilcoError(f"{path}:{number}: expected QUERY Q0 DOCUMENT RANK SCORE NAME")
        if document in run.setdefault(query, {}):
            raise MilcoError(f"{path}:{number}: query {query!r} has document {document!r} twice")
        run[query][document] = value
    return run


def read_qrels(path: Path) -> Qrels:
    """{query: {document: grade}} of judgements: lines QUERY 0 DOCUMENT GRADE as in TREC, or query-id, corpus-id, score
    as in BEIR.

    Raises:
        MilcoError: there is no such file, nothing in it, or a line is neither.
    """
    qrels: Qrels = {}
    for number, words in _lines(path):
        if number == 1 and words[-1:] == ["score"]:
            continue
        if len(words) not in (3, 4) or not GRADE.fullmatch(words[-1]):
            raise MilcoError(f"{path}:{number}: expected QUERY 0 DOCUMENT GRADE or query-id, corpus-id and score")
        qrels.setdefault(words[0], {})[words[-2]] = int(words[-1])
    if not qrels:
        raise MilcoError(f"{path}: no judgement in it")
    return qrels


def complete(run: Run, qrels: Qrels, path: Path) -> Run:
    """A run with an entry for each judged query; one that it does not have found nothing.

    Raises:
        MilcoError: the run at `path` has none of the judged queries.
    """
    if not run.keys() & qrels.keys():
        raise MilcoError(f"{path}: none of the {len(qrels)} judged queries is in it; are these its judgements?")
    return {query: run.get(query, {}) for query in qrels}


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    if not path.is_file():
        raise MilcoError(f"{path}: no such file")
    if not path.stat().st_size:
        raise MilcoError(f"{path}: empty")
    for number, line in numbered_lines(path):
        yield number, line.split()
