"""Test collections in BEIR layout: corpus.jsonl, queries.jsonl and qrels/{split}.tsv."""

import json
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from milco.errors import MilcoError
from milco.text import comparable

GRADE = re.compile(r"-?[0-9]+")


@dataclass
class Collection:
    """A test collection in memory: texts by id, and relevant documents by query id with their grade."""

    name: str
    documents: dict[str, str] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)

    def texts(self) -> set[str]:
        """Every text of the collection, in the form under which strings are compared."""
        return {comparable(value) for value in (*self.documents.values(), *self.queries.values())}


def read_collection(folder: Path, split: str = "test") -> Collection:
    """Read a test collection in BEIR layout: corpus.jsonl, queries.jsonl and qrels/{split}.tsv.

    Titles are put before the text of their document. Queries without a relevant document are left out, as in BEIR.

    Raises:
        MilcoError: a file is missing, or a line is not what the layout asks for (the message has its number).
    """
    documents = _each_once(folder / "corpus.jsonl", iter_documents(folder))
    queries, qrels = read_queries(folder, split, documents)
    return Collection(folder.name, documents, queries, qrels)


def iter_documents(folder: Path) -> Iterator[tuple[str, str]]:
    """(id, text) of a collection's documents, one at a time."""
    for row in read_jsonl(folder / "corpus.jsonl", ["_id", "text"]):
        yield row["_id"], f"{row.get('title') or ''} {row['text']}".strip()


def read_queries(
    folder: Path, split: str = "test", documents: Container[str] | None = None
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Queries that have a relevant document, by id, and their qrels.

    Args:
        documents: ids that a judgement may name; any by default.
    """
    rows = read_jsonl(folder / "queries.jsonl", ["_id", "text"])
    queries = _each_once(folder / "queries.jsonl", ((row["_id"], row["text"]) for row in rows))
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    path = folder / "qrels" / f"{split}.tsv"
    for number, (query, document, grade) in _qrels_lines(path):
        if query not in queries:
            raise MilcoError(f"{path}:{number}: query {query!r} is not in queries.jsonl")
        if documents is not None and document not in documents:
            raise MilcoError(f"{path}:{number}: document {document!r} is not in corpus.jsonl")
        qrels[query][document] = grade
    relevant = {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}
    if not relevant:
        raise MilcoError(f"{path}: no grade above 0 in it; a collection needs at least one relevant document")
    return {query: queries[query] for query in relevant}, relevant


def _each_once(path: Path, texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Texts of a file, a line each, by their id."""
    found: dict[str, str] = {}
    for number, (identifier, text) in enumerate(texts, 1):
        if identifier in found:
            raise MilcoError(f"{path}:{number}: _id {identifier!r} is there twice")
        found[identifier] = text
    return found


def write_collection(collection: Collection, folder: Path, split: str) -> None:
    """Write a collection in BEIR layout; the folder must not exist yet."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", collection.documents), ("queries", collection.queries)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as lines:
            for identifier, value in texts.items():
                row = {"_id": identifier, **({"title": ""} if name == "corpus" else {}), "text": value}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8") as lines:
        lines.write("query-id\tcorpus-id\tscore\n")
        for query, grades in collection.qrels.items():
            lines.writelines(f"{query}\t{document}\t{grade}\n" for document, grade in grades.items())


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file with their numbers from 1, without their ends."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                decoded = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise MilcoError(f"{path}:{number}: not UTF-8 ({error.reason})") from None
            yield number, decoded.rstrip("\r\n")


def read_jsonl(path: Path, keys: list[str]) -> Iterator[dict]:
    if not path.is_file():
        raise MilcoError(f"{path}: no such file; a test collection needs corpus.jsonl, queries.jsonl and qrels/")
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise MilcoError(f"{path}:{number}: not a JSON object ({error.msg})") from error
        if not isinstance(row, dict):
            raise MilcoError(f"{path}:{number}: not a JSON object")
        for key in keys:
            if not isinstance(row.get(key), str):
                raise MilcoError(f"{path}:{number}: key {key!r} is missing or is no string")
        yield row


def _qrels_lines(path: Path) -> Iterator[tuple[int, tuple[str, str, int]]]:
    if not path.is_file():
        raise MilcoError(f"{path}: no such file; it holds the judgements: query-id, corpus-id, score")
    for number, line in numbered_lines(path):
        parts = line.split("\t")
        if number == 1 and parts[-1] == "score":
            continue
        if len(parts) != 3 or not GRADE.fullmatch(parts[2]):
            raise MilcoError(f"{path}:{number}: expected query-id, corpus-id and a whole score, tab-separated")
        yield number, (parts[0], parts[1], int(parts[2]))
