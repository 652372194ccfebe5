"""Test collections in BEIR layout: corpus.jsonl, queries.jsonl and qrels/{split}.tsv.

Those that the project writes have a collection.json beside these files:

    query_language, document_language
    source          name of the source in the configuration
    chunked         whether documents are chunks, with ids DOCUMENT#0, DOCUMENT#1, …; judgements name whole documents
    task, …         for a task of mteb where it comes from, see milco/data/mteb_tasks.py

The user's collections may have compressed files, or any form that milco/data/reading.py reads.
"""

import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from milco.data import reading
from milco.data.reading import Broken, BrokenRow, Record
from milco.data.sorting import Digests
from milco.data.trec import Qrels, read_qrels
from milco.errors import MilcoError
from milco.files import write_json

MISSING = 0.5  # share of the judged queries or documents of a collection that may be missing


class Documents(Mapping[str, str]):
    """Id → text, read or computed again in each iteration: for collections that are larger than memory.

    Args:
        begin: returns a new iterator over (id, text).
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
    """A test collection: texts by id, grades by query and document id, the content of collection.json, and warnings for
    the report."""

    name: str
    documents: Mapping[str, str] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list, compare=False)

    def judged_ids(self) -> list[str]:
        """Ids under which documents are judged, one for each text: a chunk has that of its document."""
        if self.about.get("chunked"):
            return [identifier.rpartition("#")[0] for identifier in self.documents]
        return list(self.documents)

    def texts_to_find(self, depth: int) -> int:
        """Number of texts that a search must return so that they cover `depth` documents in any case."""
        return depth_of_search(depth, self.about, self.judged_ids())


def depth_of_search(depth: int, about: dict[str, Any], judged_ids: Iterable[str]) -> int:
    """`Collection.texts_to_find` for documents whose chunks are adjacent, as in a file."""
    if about.get("chunked"):
        depth = sum(nlargest(depth, (sum(1 for _ in chunks) for _, chunks in groupby(judged_ids))))
    return depth + bool(about.get("ignore_identical_ids"))


def relevant_documents(qrels: dict[str, dict[str, int]]) -> set[str]:
    """Documents that answer any of the queries."""
    return {document for grades in qrels.values() for document, grade in grades.items() if grade > 0}


def read_collection(
    folder: Path, split: str | None = "test", broken: Broken | None = None, missing: float = MISSING
) -> Collection:
    """Read a test collection in BEIR layout: corpus.jsonl, queries.jsonl and qrels/{split}.tsv. Without a split, all of
    its queries and no judgements.

    Titles are put before the text of their document. Queries without a relevant document are left out, as in BEIR.
    Judged documents that are missing count as relevant and not found.

    Args:
        broken: how many rows of its texts may be broken; none by default.
        missing: share of the judged queries and documents that may be missing.

    Raises:
        MilcoError: a file is missing, a line is not what the layout asks for (the message has its number), or too
            much is missing.
    """
    path, about = _file(folder, "corpus.jsonl"), read_about(folder)
    documents = _each_once(path, reading.records(path, broken=broken))
    if split is None:
        path = _file(folder, "queries.jsonl")
        return Collection(folder.name, documents, _each_once(path, reading.records(path, broken=broken)), {}, about)
    queries, qrels = _read_queries(folder, split, broken)
    collection = Collection(folder.name, documents, *_relevant(folder, split, queries, qrels), about)
    collection.warnings += _missing(folder, "queries", queries, qrels, missing)
    if "task" not in about:  # mteb's own are known to be whole
        collection.warnings += _nothing_to_find(folder, queries, qrels)
        judged = dict.fromkeys(document for grades in qrels.values() for document in grades)
        collection.warnings += _missing(folder, "documents", {*collection.judged_ids()}, judged, missing)
    return collection


def stream_collection(
    folder: Path,
    split: str = "test",
    broken: float = 0.0,
    missing: float = MISSING,
    ignore_identical_ids: bool = False,
) -> Collection:
    """The same with `Documents`, which are read and checked in each iteration.

    Args:
        broken: share of the rows of its texts that may be broken.
        ignore_identical_ids: if false, a warning is given for queries whose id is also a document id.
    """
    about, corpus, left_out = read_about(folder), _file(folder, "corpus.jsonl"), Broken(broken)
    asked, qrels = _read_queries(folder, split, left_out)
    judged = dict.fromkeys(document for grades in qrels.values() for document in grades)
    warnings = _missing(folder, "queries", asked, qrels, missing) + _said(left_out)
    if "task" not in about:
        warnings += _nothing_to_find(folder, asked, qrels)
    before = list(warnings)

    def documents() -> Iterator[tuple[str, str]]:
        hashes, found, same, lost = Digests(), set(), [], Broken(broken)
        texts = tqdm(iter_records(folder, lost), desc=folder.name, unit="text", mininterval=2)
        for record in texts:
            hashes.add(hash(record.id))
            name = record.id.rpartition("#")[0] if about.get("chunked") else record.id
            if name in judged:
                found.add(name)
            # plain numbers may be equal by chance
            if record.id in asked and (not record.id.isdigit() or asked[record.id] in record.whole):
                same.append(record.id)
            yield record.id, record.whole
        if hashes.repeated():
            _each_once(corpus, iter_records(folder, Broken(broken)))  # names the id, unless only hashes are equal
        warnings[:] = before + _said(lost)
        if "task" not in about:
            warnings.extend(_missing(folder, "documents", found, judged, missing))
        if same and not ignore_identical_ids:
            warnings.append(
                f"{folder}: {len(same):,} queries have the id of a document, such as {same[0]!r}; if they are that "
                "document, ignore_identical_ids of the source keeps them from finding themselves"
            )

    return Collection(folder.name, Documents(documents), *_relevant(folder, split, asked, qrels), about, warnings)


def _missing(folder: Path, kind: str, there: Container[str], wanted: Mapping[str, Any], share: float) -> list[str]:
    """The warning about judged `queries` or `documents` that are missing, if some are.

    Raises:
        MilcoError: there are too many.
    """
    lost = [name for name in wanted if name not in there]
    if not lost:
        return []
    said = (
        f"{folder}: {len(lost):,} of {len(wanted):,} judged {kind} are not in it, such as "
        f"{', '.join(map(repr, lost[:3]))}"
    )
    if len(lost) > share * len(wanted):
        raise MilcoError(f"{said}; is it whole? missing_judged of its source says how many may be missing")
    return [said]


def _nothing_to_find(folder: Path, queries: Container[str], qrels: Qrels) -> list[str]:
    """The warning about queries that are left out since no document is relevant to them, if there are some."""
    asked = [grades for query, grades in qrels.items() if query in queries]
    left_out = sum(max(grades.values()) <= 0 for grades in asked)
    if not left_out:
        return []
    return [f"{folder}: {left_out:,} of {len(asked):,} judged queries have no relevant document and are left out"]


def _said(broken: Broken) -> list[str]:
    return [str(broken)] if broken.count else []


def read_about(folder: Path) -> dict[str, Any]:
    """What collection.json says; nothing for a collection of the user's own.

    Raises:
        MilcoError: it is no JSON object.
    """
    path = folder / "collection.json"
    if not path.exists():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise MilcoError(f"{path}: not a JSON object; take it away if it is not what milco wrote")
    return about


def iter_documents(folder: Path) -> Iterator[tuple[str, str]]:
    """(id, text) of a collection's documents, one at a time."""
    return ((record.id, record.whole) for record in iter_records(folder))


def iter_records(folder: Path, broken: Broken | None = None) -> Iterator[Record]:
    """A collection's documents, one at a time."""
    return reading.records(_file(folder, "corpus.jsonl"), broken=broken)


def read_queries(
    folder: Path, split: str = "test", broken: Broken | None = None
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Queries that have a relevant document, by id, and their qrels."""
    return _relevant(folder, split, *_read_queries(folder, split, broken))


def _read_queries(folder: Path, split: str, broken: Broken | None) -> tuple[dict[str, str], Qrels]:
    """All queries, and all judgements."""
    path = _file(folder, "queries.jsonl")
    queries = _each_once(path, reading.records(path, broken=broken))
    return queries, read_qrels(_file(folder / "qrels", f"{split}.tsv"))


def _relevant(folder: Path, split: str, queries: dict[str, str], qrels: Qrels) -> tuple[dict[str, str], Qrels]:
    relevant = {query: grades for query, grades in qrels.items() if query in queries and max(grades.values()) > 0}
    if not relevant:
        raise MilcoError(
            f"{folder}/qrels/{split}.tsv: no grade above 0 in it of a query that is there; a collection needs at least "
            "one relevant document"
        )
    return {query: queries[query] for query in relevant}, relevant


def _file(folder: Path, name: str) -> Path:
    path = reading.one_of(folder, name)
    if not path.exists():
        raise MilcoError(f"{path}: no such file; a collection is corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv")
    return path


def check_id(where: str, identifier: str) -> None:
    """Check that judgements, runs and measures can hold an id: no control characters; white space is allowed.

    Raises:
        MilcoError: they cannot.
    """
    try:
        reading.identifier(identifier)
    except BrokenRow as error:
        raise MilcoError(f"{where}: {error}") from None


def _each_once(path: Path, records: Iterable[Record]) -> dict[str, str]:
    """Texts of a file by their id."""
    found: dict[str, str] = {}
    for record in records:
        if record.id in found:
            raise MilcoError(f"{path}:{record.number}: the id {record.id!r} is there twice")
        found[record.id] = record.whole
    return found


def write_collection(collection: Collection, folder: Path, split: str, same: Path | None = None) -> None:
    """Write a collection in BEIR layout; the folder must not exist yet.

    Args:
        same: folder of a collection with the same documents; its corpus file is linked instead of copied.
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
