"""Test collections in BEIR layout: corpus.jsonl, queries.jsonl and qrels/{split}.tsv.

Those that the project writes have a collection.json beside these files:

    query_language, document_language
    source          name of the source in the configuration
    chunked         whether documents are chunks, named DOCUMENT#0, DOCUMENT#1, …; judgements name documents
    task, …         for a task of mteb where it comes from, see milco/data/mteb_tasks.py
"""

import json
import os
import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from milco.errors import MilcoError
from milco.files import write_json

GRADE = re.compile(r"-?[0-9]+")
NOT_IN_IDS = re.compile(r"[\0\t\n\r]")  # tabs and line ends part the judgements, trec_eval reads up to a NUL


class Documents(Mapping[str, str]):
    """Texts by id that are made, or read, each time somebody goes through them: for more than the memory holds.

    Args:
        begin: the first of them and all after it.
    """

    def __init__(self, begin: Callable[[], Iterator[tuple[str, str]]]):
        self.begin = begin

    def items(self) -> Iterator[tuple[str, str]]:  # type: ignore[override]
        return self.begin()

    def values(self) -> Iterator[str]:  # type: ignore[override]
        return (text for _, text in self.items())

    def __iter__(self) -> Iterator[str]:
        return (identifier for identifier, _ in self.items())

    def __len__(self) -> int:
        return sum(1 for _ in self.items())

    def __getitem__(self, wanted: str) -> str:
        for identifier, text in self.items():
            if identifier == wanted:
                return text
        raise KeyError(wanted)


@dataclass
class Collection:
    """A test collection: texts by id, judged documents by query id with their grade, and what collection.json says
    about it."""

    name: str
    documents: Mapping[str, str] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def judged_ids(self) -> list[str]:
        """Ids under which documents are judged, one for each text: a chunk has that of its document."""
        if self.about.get("chunked"):
            return [identifier.rpartition("#")[0] for identifier in self.documents]
        return list(self.documents)

    def texts_to_find(self, depth: int) -> int:
        """How many texts a search must find for `depth` documents to be among them, whatever texts they are."""
        return depth_of_search(depth, self.about, self.judged_ids())


def depth_of_search(depth: int, about: dict[str, Any], judged_ids: Iterable[str]) -> int:
    """`Collection.texts_to_find`, where the chunks of a document stand in a row, as they do in a file."""
    if about.get("chunked"):
        depth = sum(nlargest(depth, (sum(1 for _ in chunks) for _, chunks in groupby(judged_ids))))
    return depth + bool(about.get("ignore_identical_ids"))


def relevant_documents(qrels: dict[str, dict[str, int]]) -> set[str]:
    """Documents that answer any of the queries."""
    return {document for grades in qrels.values() for document, grade in grades.items() if grade > 0}


def read_collection(folder: Path, split: str = "test") -> Collection:
    """Read a test collection in BEIR layout: corpus.jsonl, queries.jsonl and qrels/{split}.tsv.

    Titles are put before the text of their document. Queries without a relevant document are left out, as in BEIR.

    Raises:
        MilcoError: a file is missing, or a line is not what the layout asks for (the message has its number).
    """
    collection = Collection(folder.name, about=read_about(folder))
    collection.documents = _each_once(folder / "corpus.jsonl", iter_documents(folder))
    known: Container[str] | None = collection.documents
    if collection.about.get("chunked"):
        known = set(collection.judged_ids())
    if "task" in collection.about:  # mteb judges documents that are nowhere; they count as relevant and not found
        known = None
    collection.queries, collection.qrels = read_queries(folder, split, known)
    return collection


def stream_collection(folder: Path, split: str = "test") -> Collection:
    """The same with `Documents`: they are read, and found to be as they should, whenever somebody goes through them."""
    about, qrels, corpus = read_about(folder), folder / "qrels" / f"{split}.tsv", folder / "corpus.jsonl"
    judged = {document for _, (_, document, _) in _qrels_lines(qrels)}

    def documents() -> Iterator[tuple[str, str]]:
        hashes, found = array("q"), set()
        texts = tqdm(iter_documents(folder), desc=folder.name, unit="text", mininterval=2)
        for number, (identifier, text) in enumerate(texts, 1):
            check_id(f"{corpus}:{number}", identifier)
            hashes.append(hash(identifier))
            name = identifier.rpartition("#")[0] if about.get("chunked") else identifier
            if name in judged:
                found.add(name)
            yield identifier, text
        places = np.sort(np.array(hashes))
        if (places[1:] == places[:-1]).any():
            _each_once(corpus, iter_documents(folder))  # says which, if it is no chance
        if found != judged and "task" not in about:
            read_queries(folder, split, found)  # says which is not there

    return Collection(folder.name, Documents(documents), *read_queries(folder, split), about)


def read_about(folder: Path) -> dict[str, Any]:
    """What collection.json says; nothing for a collection of the user's own."""
    path = folder / "collection.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


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


def check_id(where: str, identifier: str) -> None:
    """Whether judgements, runs and measures can hold an id: all but a few can, white space and any script among them.

    Raises:
        MilcoError: they cannot.
    """
    if not identifier or NOT_IN_IDS.search(identifier):
        raise MilcoError(f"{where}: the id {identifier!r:.80} is empty or has a tab, a line end or a NUL in it")


def _each_once(path: Path, texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Texts of a file, a line each, by their id."""
    found: dict[str, str] = {}
    for number, (identifier, text) in enumerate(texts, 1):
        check_id(f"{path}:{number}", identifier)
        if identifier in found:
            raise MilcoError(f"{path}:{number}: _id {identifier!r} is there twice")
        found[identifier] = text
    return found


def write_collection(collection: Collection, folder: Path, split: str, same: Path | None = None) -> None:
    """Write a collection in BEIR layout; the folder must not exist yet.

    Args:
        same: folder of a collection over the same documents, whose file is linked and not written again.
    """
    documents = ({"_id": name, "title": "", "text": text} for name, text in collection.documents.items())
    queries = ({"_id": name, "text": text} for name, text in collection.queries.items())
    write_layout(folder, split, () if same else documents, queries, collection.qrels, collection.about)
    if same:
        (folder / "corpus.jsonl").unlink()
        os.link(same / "corpus.jsonl", folder / "corpus.jsonl")


def write_layout(
    folder: Path,
    split: str,
    documents: Iterable[dict[str, str]],
    queries: Iterable[dict[str, str]],
    qrels: dict[str, dict[str, int]],
    about: dict[str, Any],
) -> None:
    """Write the rows of a collection as they come; the folder must not exist yet."""
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", documents), ("queries", queries)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8") as lines:
        lines.write("query-id\tcorpus-id\tscore\n")
        for query, grades in qrels.items():
            lines.writelines(f"{query}\t{document}\t{grade}\n" for document, grade in grades.items())
    if about:
        write_json(folder / "collection.json", about)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file with their numbers from 1, without their ends."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                decoded = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise MilcoError(f"{path}:{number}: not UTF-8 ({error.reason})") from None
            yield number, decoded.rstrip("\r\n")


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSONL file with the numbers of their lines."""
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise MilcoError(f"{path}:{number}: not a JSON object ({error.msg})") from error
        if not isinstance(row, dict):
            raise MilcoError(f"{path}:{number}: not a JSON object")
        yield number, row


def read_jsonl(path: Path, keys: list[str]) -> Iterator[dict]:
    if not path.is_file():
        raise MilcoError(f"{path}: no such file; a test collection needs corpus.jsonl, queries.jsonl and qrels/")
    for number, row in json_lines(path):
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
