"""Retrieval tasks of the benchmark mteb, each of their subsets as a test collection in BEIR layout.

    mteb:TASK    sources.NAME.subsets and sources.NAME.split choose parts of it

Rule `fetch` writes them once, in the folder NAME-SUBSET, or NAME for a task without subsets. They are searched and
measured like any other collection. Each collection.json names both languages, task, subset, split, the dataset and its
revision, the measure that mteb's leaderboard shows, and whether a query must not find the document of its own id. Texts
are those that mteb gives to a model: a document's title and text, a query with its instruction.

Measures can differ from mteb's for queries without a relevant document: milco leaves them out, as BEIR does; mteb
counts them as 0.
"""

import difflib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from milco.config import Source
from milco.data.beir import Collection, Documents, check_id, stream_collection, write_layout
from milco.errors import MilcoError
from milco.languages import normal


def write_task(name: str, source: Source, folder: Path) -> None:
    """Have mteb load a task, one subset at a time, and write its collections into the folder.

    Raises:
        MilcoError: mteb knows no such task, subset or split, the task is not one of text retrieval, or loading fails.
    """
    title = source.uri.removeprefix("mteb:")
    task = _find(name, title)
    languages = task.metadata.hf_subsets_to_langscripts
    split = source.split or split_of(task.metadata.eval_splits)
    _check(f"sources.{name}.split: {title} is not evaluated on", [split], task.metadata.eval_splits)
    _check(f"sources.{name}.subsets: {title} has no", list(source.subsets), list(languages))
    said = {subset: _languages(name, source, subset, languages[subset]) for subset in source.subsets or languages}
    for subset, about in tqdm(said.items(), desc=title, unit="subset"):
        about |= {
            "task": title,
            "subset": subset,
            "split": split,
            "dataset": task.metadata.dataset["path"],
            "revision": task.metadata.dataset["revision"],
            "measure": task.metadata.main_score,
            "ignore_identical_ids": task.ignore_identical_ids,
        }
        _write(_load(name, title, subset, split), folder / (name if subset == "default" else f"{name}-{subset}"), about)


def split_of(evaluated: list[str]) -> str:
    """The default split among those that a task is evaluated on."""
    return "test" if "test" in evaluated else evaluated[0]


def _load(name: str, title: str, subset: str, split: str) -> Any:
    """Queries, corpus and relevant documents of one subset, as mteb keeps them."""
    import mteb

    try:
        task = mteb.get_task(title, eval_splits=[split], hf_subsets=[subset])
        task.load_data()
        task.convert_v1_dataset_format_to_v2(num_proc=None)
        return task.dataset[subset][split]
    except Exception as error:  # each task has a loader of its own
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise MilcoError(f"sources.{name}: mteb cannot load {title}, subset {subset}, {split}: {cause}") from error


def _find(name: str, title: str):
    """The task of that name, if it is one of text retrieval."""
    import mteb  # takes seconds, and only fetching needs it

    try:
        task = mteb.get_task(title)
    except KeyError:
        known = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]
        near = ", ".join(difflib.get_close_matches(title, known)) or "no name is near"
        raise MilcoError(f"sources.{name}.uri: mteb knows no task {title} ({near})") from None
    if hasattr(task, "tasks"):
        parts = ", ".join(part.metadata.name for part in task.tasks)
        raise MilcoError(f"sources.{name}.uri: {title} is a group; make one source for each of its tasks: {parts}")
    kind, modalities = task.metadata.type, task.metadata.modalities
    if kind not in ("Retrieval", "InstructionRetrieval") or modalities != ["text"]:
        raise MilcoError(
            f"sources.{name}.uri: {title} is a task of {kind} over {' and '.join(modalities)}; text retrieval is wanted"
        )
    return task


def _check(problem: str, wanted: list[str], known: list[str]) -> None:
    for value in wanted:
        if value not in known:
            raise MilcoError(f"{problem} {value!r} (there are: {', '.join(known)})")


def _languages(name: str, source: Source, subset: str, named: list[str]) -> dict[str, Any]:
    """Languages of a subset: from the source's settings, else from mteb (ISO 639-3 codes with scripts).

    For a cross-lingual subset mteb names two; that of the queries is not the first in every task.
    """
    codes = list(dict.fromkeys(normal(code.split("-")[0]) for code in named))
    own = source.subsets.get(subset, codes[0])
    query, document = source.language, source.document_language
    if len(codes) == 2 and not ((query or document) and (subset in source.subsets or (query and document))):
        raise MilcoError(
            f"sources.{name}: mteb names two languages for subset {subset} ({', '.join(codes)}); say which is whose: "
            "language (of the queries) and document_language, or one of them and the other under subsets"
        )
    return {"query_language": query or own, "document_language": document or own}


def _write(data: Any, folder: Path, about: dict[str, Any]) -> None:
    """One subset, row by row as mteb's tables come from the disk."""
    queries = {_id(row, f"{folder.name}, queries"): _query(row, folder.name) for row in data["queries"]}
    qrels = {
        query: {str(document): int(grade) for document, grade in data["relevant_docs"][query].items()}
        for query in queries
        if query in data["relevant_docs"]
    }
    documents = (
        {"_id": _id(row, f"{folder.name}, corpus"), "title": row.get("title") or "", "text": row["text"]}
        for row in data["corpus"]
    )
    asked = ({"_id": query, "text": text} for query, text in queries.items())
    write_layout(folder, "test", documents, asked, qrels, about)


def _id(row: dict[str, Any], where: str) -> str:
    identifier = str(row["id"])
    check_id(where, identifier)
    return identifier


def _query(row: dict[str, Any], collection: str) -> str:
    if not isinstance(row["text"], str):
        raise MilcoError(f"{collection}: query {row['id']} is a conversation; only single texts can be asked")
    return f"{row['text']} {row['instruction']}" if row.get("instruction") else row["text"]


def folders(folder: Path) -> list[Path]:
    """The collections that `write_task` wrote, by name."""
    return [path.parent for path in sorted(folder.glob("*/corpus.jsonl"))]


def read_task(name: str, source: Source, folder: Path) -> Iterator[Collection]:
    """The collections that `write_task` wrote; their documents stay in the files."""
    collections = map(_read, folders(folder))
    return pooled(name, list(collections)) if source.pool else collections


def _read(folder: Path) -> Collection:
    collection = stream_collection(folder)
    for side in ("query_language", "document_language"):  # mteb's own codes, in a folder of an earlier version
        collection.about[side] = normal(collection.about[side])
    return collection


def pooled(name: str, collections: list[Collection]) -> Iterator[Collection]:
    """A collection NAME-LANGUAGE for the queries of each language, over the documents of all subsets, named SUBSET/ID.

    A document that any subset judges relevant to a query is relevant to it here.

    Raises:
        MilcoError: subsets in one language ask different queries under the same id.
    """
    subset = {collection.name: collection.about["subset"] for collection in collections}
    documents = Documents(
        lambda: (
            (f"{subset[collection.name]}/{document}", text)
            for collection in collections
            for document, text in collection.documents.items()
        )
    )
    pools: dict[str, Collection] = {}
    for collection in collections:
        language = collection.about["query_language"]
        about = {**collection.about, "subset": "pool", "document_language": "mul"}
        new = Collection(f"{name}-{language}", documents, {}, defaultdict(dict), about)
        pool = pools.setdefault(language, new)
        for query, text in collection.queries.items():
            if pool.queries.setdefault(query, text) != text:
                raise MilcoError(
                    f"sources.{name}.pool: two subsets in language {language} have different queries {query!r}; "
                    "give them different languages under subsets"
                )
            pool.qrels[query] |= {
                f"{subset[collection.name]}/{document}": grade for document, grade in collection.qrels[query].items()
            }
    yield from pools.values()
