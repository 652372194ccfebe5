"""Write documents and queries in the import formats of search engines.

    anserini        corpus/documents-00000.jsonl, …  JsonVectorCollection: integer weights, SCALE times ours
                    topics.tsv                       TsvString: each token repeated as often as its integer weight
    opensearch      index.json                       mapping, a rank_features field
    elasticsearch   index.json                       mapping, a sparse_vector field (8.15 or newer)
      both          documents-00000.ndjson, …        bodies for INDEX/_bulk
                    queries-00000.ndjson, …          bodies for INDEX/_msearch: neural_sparse or sparse_vector queries
    vespa           application/                     schema and services, to be deployed
                    documents-00000.jsonl, …         puts, for `vespa feed`
                    queries-00000.jsonl, …           bodies for /search/, one a line

The ids of the queries in such bodies are in queries.ids.txt, in their order. Documents and queries without any weight
are left out: they cannot match anything. A new file is begun after every `FILE_BYTES`, since servers refuse requests of
more than 100 MB.

Tokens are named by `MilcoModel.column_name`, such as `e_password`. Characters that one of the engines would take for
something else (white space, control characters, quotes, backslash, dot, per cent) are written as in a URL: `m_a%2Eb`.

OpenSearch and Elasticsearch keep 9 significant bits of a document's weight, an error of up to 0.4 %. Vespa retrieves
with integer weights and ranks the results with exact ones.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from milco.errors import MilcoError
from milco.files import finished_folder, write_json
from milco.outputs import check_output
from milco.tools.engines.base import Part, checked, terms

SCALE = 100  # whole weights are so many times ours, as is usual for SPLADE in Anserini
DIGITS = 6  # decimals of other weights
FILE_BYTES = 16 << 20
MAX_CLAUSES = 1024  # terms that OpenSearch takes in a query, unless indices.query.bool.max_clause_count says more
MOST_RESULTS = {"opensearch": 10_000, "elasticsearch": 10_000, "vespa": 400}  # of a query, by default
MAX_ID_BYTES = 512  # of _id in OpenSearch and Elasticsearch
RESERVED = re.compile(r"[%\s.'\"\\\x00-\x1f\x7f]")

Row = tuple[str, list[int], list[float]]  # id, columns, weights
Name = Callable[[int], str]


def escape(token: str) -> str:
    """A token without the characters that engines take for something else; urllib.parse.unquote undoes it."""
    return RESERVED.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), token)


def export(
    form: str, documents: Iterable[Part], queries: Iterable[Part], name: Name, output: Path, k: int = 10
) -> tuple[int, int]:
    """Write documents and queries for an engine into the new folder `output`, part by part, in constant memory.

    Args:
        form: one of `FORMS`.
        name: the token of a column, such as `MilcoModel.column_name`.
        k: how many documents a query asks for (Anserini is told when it searches).

    Returns:
        How many documents and queries were written: those that have any weight.

    Raises:
        MilcoError: the folder exists, the engine does not accept a weight or an id, or no document has a weight.
    """
    if form not in FORMS:
        raise MilcoError(f"{form!r}: no form to export to; there are {', '.join(FORMS)}")
    if k > MOST_RESULTS.get(form, k):
        raise MilcoError(
            f"{k} documents for a query: {form} gives {MOST_RESULTS[form]:,} at most, unless set up otherwise"
        )
    if output.exists():
        raise MilcoError(f"{output}: is there already; name a new folder or delete it")
    check_output(output, "files for an engine", folder=True)
    named = cache(lambda column: escape(name(column)))
    with finished_folder(output) as folder:
        counts = FORMS[form](folder, _rows(documents), _rows(queries), named, k)
        if not counts[0]:
            raise MilcoError(f"{output}: no document with a weight; nothing was written")
    return counts


def _rows(parts: Iterable[Part]) -> Iterator[Row]:
    """Rows one by one, with weights of `DIGITS` decimals, without those that are 0 then."""
    rounded = ((ids, round(rows.astype(np.float64), DIGITS)) for ids, rows in parts)
    for ids, rows in checked(rounded):
        for identifier, (columns, weights) in zip(ids, terms(rows), strict=True):
            yield identifier, columns, weights


def _whole(row: Row) -> dict[int, int]:
    """Column and whole weight of a row's terms; those that come to 0 are left out."""
    scaled = ((column, round(SCALE * weight)) for column, weight in zip(row[1], row[2], strict=True))
    return {column: weight for column, weight in scaled if weight}


def _exact(row: Row, name: Name) -> dict[str, float]:
    return {name(column): weight for column, weight in zip(row[1], row[2], strict=True)}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _write(folder: Path, side: str, suffix: str, entries: Iterable[str]) -> int:
    """Write entries, a new file after every `FILE_BYTES`; returns how many entries there were."""
    entries = iter(entries)
    entry = next(entries, None)
    count = number = 0
    while entry is not None:
        with (folder / f"{side}-{number:05}{suffix}").open("wb") as file:
            while entry is not None and file.tell() < FILE_BYTES:
                file.write(entry.encode())
                count += 1
                entry = next(entries, None)
        number += 1
    return count


def _noting_ids(folder: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """The same rows, while their ids go to queries.ids.txt."""
    with (folder / "queries.ids.txt").open("w", encoding="utf-8") as ids:
        for row in rows:
            ids.write(f"{row[0]}\n")
            yield row


def _anserini(folder: Path, documents: Iterator[Row], queries: Iterator[Row], name: Name, k: int) -> tuple[int, int]:
    def vectors(rows: Iterator[Row]) -> Iterator[tuple[str, dict[str, int]]]:
        for row in rows:
            if re.search(r"\s", row[0]):
                raise MilcoError(f"{row[0]!r}: an id with white space, which breaks Anserini's topics and runs")
            vector = {name(column): weight for column, weight in _whole(row).items()}
            if vector:
                yield row[0], vector

    def repeated(vector: dict[str, int]) -> str:
        return " ".join(" ".join([token] * weight) for token, weight in vector.items())

    (folder / "corpus").mkdir()
    lines = (_json({"id": one, "contents": "", "vector": vector}) for one, vector in vectors(documents))
    found = _write(folder / "corpus", "documents", ".jsonl", lines)
    asked = 0
    with (folder / "topics.tsv").open("w", encoding="utf-8") as topics:
        for one, vector in vectors(queries):
            topics.write(f"{one}\t{repeated(vector)}\n")
            asked += 1
    return found, asked


def _opensearch(folder: Path, documents: Iterator[Row], queries: Iterator[Row], name: Name, k: int) -> tuple[int, int]:
    def query(row: Row) -> dict:
        if len(row[1]) > MAX_CLAUSES:
            raise MilcoError(
                f"query {row[0]!r}: {len(row[1])} terms; OpenSearch takes {MAX_CLAUSES}, prune the queries"
            )
        return {"neural_sparse": {"vector": {"query_tokens": _exact(row, name)}}}

    return _bulk(folder, documents, queries, name, k, "rank_features", query)


def _elasticsearch(
    folder: Path, documents: Iterator[Row], queries: Iterator[Row], name: Name, k: int
) -> tuple[int, int]:
    def query(row: Row) -> dict:
        # Newer versions leave out frequent tokens unless told not to.
        return {"sparse_vector": {"field": "vector", "query_vector": _exact(row, name), "prune": False}}

    return _bulk(folder, documents, queries, name, k, "sparse_vector", query)


def _bulk(
    folder: Path,
    documents: Iterator[Row],
    queries: Iterator[Row],
    name: Name,
    k: int,
    kind: str,
    query: Callable[[Row], dict],
) -> tuple[int, int]:
    def document(row: Row) -> str:
        if len(row[0].encode()) > MAX_ID_BYTES:
            raise MilcoError(f"{row[0]!r}: an id of more than {MAX_ID_BYTES} bytes, which the engine refuses")
        return _json({"index": {"_id": row[0]}}) + _json({"vector": _exact(row, name)})

    def search(row: Row) -> str:
        return _json({}) + _json({"query": query(row), "size": k, "_source": False})

    write_json(folder / "index.json", {"mappings": {"properties": {"vector": {"type": kind}}}})
    found = _write(folder, "documents", ".ndjson", map(document, documents))
    return found, _write(folder, "queries", ".ndjson", map(search, _noting_ids(folder, queries)))


VESPA_SCHEMA = """\
schema milco {
    document milco {
        field id type string {
            indexing: summary
        }
        # whole weights by column: what the wand operator finds documents with
        field terms type weightedset<int> {
            indexing: attribute
            attribute: fast-search
        }
        # exact weights by token: what they are ranked with
        field vector type tensor<float>(t{}) {
            indexing: attribute
        }
    }
    rank-profile default {
        inputs {
            query(q) tensor<float>(t{})
        }
        first-phase {
            expression: sum(query(q) * attribute(vector))
        }
    }
}
"""
VESPA_SERVICES = """\
<?xml version="1.0" encoding="utf-8" ?>
<services version="1.0">
    <container id="default" version="1.0">
        <document-api/>
        <search/>
    </container>
    <content id="milco" version="1.0">
        <min-redundancy>1</min-redundancy>
        <documents>
            <document type="milco" mode="index"/>
        </documents>
        <nodes>
            <node hostalias="node1" distribution-key="0"/>
        </nodes>
    </content>
</services>
"""


def _vespa(folder: Path, documents: Iterator[Row], queries: Iterator[Row], name: Name, k: int) -> tuple[int, int]:
    def document(row: Row) -> str:
        whole = {str(column): weight for column, weight in _whole(row).items()}
        fields = {"id": row[0], "terms": whole, "vector": {"cells": _exact(row, name)}}
        return _json({"put": f"id:milco:milco::{row[0]}", "fields": fields})

    def search(row: Row) -> str:
        # The literal form of a tensor is no JSON; after `escape` no label has a quote.
        cells = ",".join(f"'{token}':{weight!r}" for token, weight in _exact(row, name).items())
        whole = ",".join(f'"{column}":{weight}' for column, weight in _whole(row).items())
        # Ten times what is wanted, since whole weights order documents a little differently from exact ones.
        yql = f"select id from milco where ({{targetHits:{10 * k}}}wand(terms,{{{whole}}}))"
        return _json({"yql": yql, "input.query(q)": f"{{{cells}}}", "hits": k})

    application = folder / "application"
    (application / "schemas").mkdir(parents=True)
    (application / "schemas" / "milco.sd").write_text(VESPA_SCHEMA, encoding="utf-8")
    (application / "services.xml").write_text(VESPA_SERVICES, encoding="utf-8")
    found = _write(folder, "documents", ".jsonl", map(document, filter(_whole, documents)))
    asked = _noting_ids(folder, filter(_whole, queries))
    return found, _write(folder, "queries", ".jsonl", map(search, asked))


FORMS: dict[str, Callable[[Path, Iterator[Row], Iterator[Row], Name, int], tuple[int, int]]] = {
    "anserini": _anserini,
    "opensearch": _opensearch,
    "elasticsearch": _elasticsearch,
    "vespa": _vespa,
}
