"""Test collections in BEIR layout: corpus.jsonl, queries.jsonl and qrels/{split}.tsv."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from milco.errors import MilcoError
from milco.text import comparable


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
    documents = {
        row["_id"]: f"{row.get('title') or ''} {row['text']}".strip()
        for row in read_jsonl(folder / "corpus.jsonl", ["_id", "text"])
    }
    queries = {row["_id"]: row["text"] for row in read_jsonl(folder / "queries.jsonl", ["_id", "text"])}
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    path = folder / "qrels" / f"{split}.tsv"
    for number, (query, document, grade) in _qrels_lines(path):
        if query not in queries:
            raise MilcoError(f"{path}:{number}: query {query!r} is not in queries.jsonl")
        if document not in documents:
            raise MilcoError(f"{path}:{number}: document {document!r} is not in corpus.jsonl")
        qrels[query][document] = grade
    if not qrels:
        raise MilcoError(f"{path}: no judgement in it; a collection needs at least one relevant document")
    return Collection(folder.name, documents, {query: queries[query] for query in qrels}, dict(qrels))


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


def read_jsonl(path: Path, keys: list[str]) -> Iterator[dict]:
    if not path.is_file():
        raise MilcoError(f"{path}: no such file; a test collection needs corpus.jsonl, queries.jsonl and qrels/")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise MilcoError(f"{path}:{number}: not a JSON object ({error.msg})") from error
            for key in keys:
                if not isinstance(row, dict) or not isinstance(row.get(key), str):
                    raise MilcoError(f"{path}:{number}: key {key!r} is missing or is no string")
            yield row


def _qrels_lines(path: Path) -> Iterator[tuple[int, tuple[str, str, int]]]:
    if not path.is_file():
        raise MilcoError(f"{path}: no such file; it holds the judgements: query-id, corpus-id, score")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            parts = line.rstrip("\n").split("\t")
            if number == 1 and parts[-1] == "score":
                continue
            if len(parts) != 3 or not parts[2].lstrip("-").isdigit():
                raise MilcoError(f"{path}:{number}: expected query-id, corpus-id and a whole score, tab-separated")
            yield number, (parts[0], parts[1], int(parts[2]))
