"""The index of `milco index` and `milco search`: document vectors in Seismic, and the matching words of each result.

    vectors.safetensors, vectors.ids.txt     documents, over the columns in use
    vocabulary.json                          the token of each of these columns
    seismic.index.seismic, seismic.columns.npy     the Seismic index built from them
    texts.arrow                              the documents' texts, if given; memory-mapped

An index knows tokens, not the columns of a model: vectors of any origin can be indexed, and a model may search them if
its vocabulary has all their tokens.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import scipy.sparse

from milco.data.vectors import load_vectors, save_vectors
from milco.errors import MilcoError
from milco.evaluation.index import Index
from milco.evaluation.search import Ranking, rank_exactly
from milco.files import finished_folder, write_json
from milco.modeling.pruning import prune_top_k
from milco.outputs import check_output, consists
from milco.tools.engines import engine_at
from milco.tools.text_files import Texts, windows
from milco.tools.vector_files import VOCABULARY, read_vectors, refuse_doubles, vocabulary_of

if TYPE_CHECKING:
    from milco.modeling.model import MilcoModel

TEXTS = "texts.arrow"
DOCUMENTS = 256  # that are encoded between two updates of a progress bar
_WANTED = "give the texts that the vectors were made of, in the same order"


class Match(NamedTuple):
    """A token that a query and a document share, and its weight in both; their product is its part of the score."""

    token: str
    query: float
    document: float

    @property
    def part(self) -> float:
        """What the token adds to the score of the document."""
        return self.query * self.document


class Hit(NamedTuple):
    """A document that was found; `words` if they were asked for, `text` if the index has texts."""

    id: str
    score: float
    text: str | None
    words: list[Match] | None


@dataclass(frozen=True)
class Retriever:
    """Documents that can be searched.

    Args:
        tokens: token of each column.
        ids: name of each document.
        rows: N×V documents (CSR).
        index: Seismic over the same rows.
        texts: text of each document, or None.
    """

    tokens: list[str]
    ids: list[str]
    rows: scipy.sparse.csr_array
    index: Index
    texts: pa.ChunkedArray | None = None

    @cached_property
    def columns(self) -> dict[str, int]:
        """Column of each token."""
        return {token: column for column, token in enumerate(self.tokens)}

    @classmethod
    def open(cls, folder: Path) -> "Retriever":
        """Read what `build` wrote.

        Raises:
            MilcoError: there is no index in the folder.
        """
        if not (folder / "seismic.index.seismic").exists():
            what = "no index in it" if folder.is_dir() else "no such folder"
            raise MilcoError(f"index {folder}: {what}; milco index builds one")
        rows, ids = load_vectors(folder / "vectors.safetensors")
        tokens = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        texts = None
        if (folder / TEXTS).exists():
            texts = pa.ipc.open_file(pa.memory_map(str(folder / TEXTS))).read_all()["text"]
        return cls(tokens, ids, rows, Index.load(folder / "seismic"), texts)

    @classmethod
    def of_texts(cls, model: "MilcoModel", texts: Texts, done: Callable[[int], object]) -> "Retriever":
        """Encode documents (id, text) and index them in memory; `done` is told how many were finished since."""
        ids: list[str] = []
        strings: list[str] = []
        parts = []
        for part in windows(texts, DOCUMENTS):
            ids += [identifier for identifier, _ in part]
            strings += [text for _, text in part]
            parts.append(model.encode_document(strings[-len(part) :]))
            done(len(part))
        refuse_doubles(ids, Path("documents"))
        rows, tokens = in_use(scipy.sparse.csr_array(scipy.sparse.vstack(parts, format="csr")), vocabulary_of(model))
        with quiet():
            return cls(tokens, ids, rows, Index.build(rows), pa.chunked_array([pa.array(strings, pa.large_string())]))

    def check_vocabulary(self, known: Iterable[str], who: str) -> None:
        """Raise MilcoError if the index has tokens that a model does not know: it was made with another one."""
        foreign = sorted(self.columns.keys() - set(known))
        if foreign:
            raise MilcoError(
                f"{who}: its vocabulary does not fit the index, {len(foreign)} of whose {len(self.tokens)} tokens it "
                f"does not know, such as {foreign[0]!r}; search with the model that made the vectors of this index"
            )

    def of_model(self, model: "MilcoModel") -> np.ndarray:
        """The columns of a model's rows that are the columns of this index, in their order."""
        place = {token: column for column, token in enumerate(vocabulary_of(model))}
        self.check_vocabulary(place, f"model {model.name_or_path}")
        return np.array([place[token] for token in self.tokens], np.int64)

    def search(self, queries: scipy.sparse.csr_array, k: int, exact: bool = False) -> list[Ranking]:
        """The k best documents of each query.

        Args:
            queries: Q×V over the columns of this index.
            exact: score every document; by default Seismic skips blocks that are unlikely to hold a result. Scores are
                exact in both cases.

        Returns:
            Per query (row, score) pairs, best first, equal scores in the order of the documents.
        """
        if exact:
            return rank_exactly(queries, self.rows, k)
        found, _ = self.index.search(queries, k)
        return [self._scored(queries[[place]], hits) for place, hits in enumerate(found)]

    def _scored(self, query: scipy.sparse.csr_array, hits: Ranking) -> Ranking:
        """Seismic's results with exact scores, because its own are rounded."""
        if not hits:
            return []
        rows = np.array([row for row, _ in hits])
        scores = (self.rows[rows] @ query.T).toarray()[:, 0]
        return [(int(rows[place]), float(scores[place])) for place in np.lexsort((rows, -scores))]

    def explain(self, query: scipy.sparse.csr_array, row: int) -> list[Match]:
        """Tokens that a query (1×V) and a document share, the largest part of the score first; the score is the sum of
        the parts."""
        asked = dict(zip(query.indices.tolist(), query.data.tolist(), strict=True))
        places = slice(self.rows.indptr[row], self.rows.indptr[row + 1])
        pairs = zip(self.rows.indices[places].tolist(), self.rows.data[places].tolist(), strict=True)
        matches = [Match(self.tokens[column], asked[column], weight) for column, weight in pairs if column in asked]
        return sorted(matches, key=lambda match: -match.part)

    def hits(self, query: scipy.sparse.csr_array, ranking: Ranking, explain: bool = False) -> list[Hit]:
        """What `search` found for one query (1×V)."""
        return [
            Hit(self.ids[row], score, self.text(row), self.explain(query, row) if explain else None)
            for row, score in ranking
        ]

    def named(self, row: int) -> dict[str, float]:
        """The tokens of a document by falling weight."""
        places = slice(self.rows.indptr[row], self.rows.indptr[row + 1])
        columns, weights = self.rows.indices[places], self.rows.data[places]
        return {self.tokens[columns[place]]: float(weights[place]) for place in np.lexsort((columns, -weights))}

    def text(self, row: int) -> str | None:
        return None if self.texts is None else self.texts[row].as_py()

    def pruned(self, terms: int) -> "Retriever":
        """A new index over the same documents, pruned to `terms` tokens each."""
        rows = prune_top_k(self.rows, terms)
        with quiet():
            return replace(self, rows=rows, index=Index.build(rows))


def search_texts(
    retriever: Retriever, model: "MilcoModel", queries: Iterable[tuple[str, str]], k: int, exact: bool, explain: bool
) -> Iterator[tuple[str, list[Hit]]]:
    """The k best documents of each query (id, text), read and answered a window at a time: (query id, hits)."""
    columns = retriever.of_model(model)
    for part in windows(queries):
        rows = scipy.sparse.csr_array(model.encode_query([text for _, text in part])[:, columns])
        for place, ranking in enumerate(retriever.search(rows, k, exact)):
            yield part[place][0], retriever.hits(rows[[place]], ranking, explain)


def search_engine(
    address: str, model: "MilcoModel", queries: Iterable[tuple[str, str]], k: int
) -> Iterator[tuple[str, list[Hit]]]:
    """The same from an engine (engines/), which knows neither texts nor words."""
    with engine_at(address) as engine:
        for part in windows(queries):
            found = engine.search(model.encode_query([text for _, text in part]), k)
            for (name, _), hits in zip(part, found, strict=True):
                yield name, [Hit(identifier, score, None, None) for identifier, score in hits]


def in_use(rows: scipy.sparse.csr_array, tokens: Sequence[str]) -> tuple[scipy.sparse.csr_array, list[str]]:
    """Rows over the columns that have an entry, and the tokens of these; MilcoError if there is none."""
    used, places = np.unique(rows.indices, return_inverse=True)
    if not len(used):
        raise MilcoError("no vector has an entry; was the model trained?")
    kept = scipy.sparse.csr_array((rows.data, places, rows.indptr), shape=(rows.shape[0], len(used)))
    return kept, [tokens[column] for column in used]


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress what Seismic prints on the standard output, bypassing Python's."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def build(vectors: Path, output: Path, texts: Texts | None = None) -> int:
    """Index vectors, as `streams.encode` wrote them, in a folder; returns the bytes of the Seismic index.

    Args:
        texts: the texts that the vectors were made of, in the same order, to be shown with results.

    Raises:
        MilcoError: an id occurs twice, no vector has an entry, or texts are not those of the vectors.
    """
    ours = consists(
        "seismic.index.seismic", "seismic.columns.npy", "vectors.safetensors", "vectors.ids.txt", VOCABULARY, TEXTS
    )
    check_output(output, "an index", ours, folder=True)
    columns: dict[str, int] = {}
    ids: list[str] = []
    parts = []
    for names, rows, _ in read_vectors(vectors, columns):
        ids += names
        parts.append(rows)
    refuse_doubles(ids, vectors)
    for rows in parts:  # a JSONL file's later parts may have brought tokens
        rows.resize((rows.shape[0], len(columns)))
    rows, tokens = in_use(scipy.sparse.csr_array(scipy.sparse.vstack(parts, format="csr")), list(columns))
    with finished_folder(output) as folder:
        save_vectors(folder / "vectors.safetensors", rows, ids)
        write_json(folder / VOCABULARY, tokens)
        if texts is not None:
            _write_texts(texts, ids, folder / TEXTS)
        with quiet():
            return Index.build(rows).save(folder / "seismic")


def _write_texts(texts: Texts, ids: list[str], path: Path) -> None:
    schema = pa.schema([("text", pa.large_string())])
    number = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for part in windows(texts):
            names, strings = zip(*part, strict=True)
            if list(names) != ids[number : number + len(names)]:
                raise MilcoError(f"texts {number + 1} and following are not those of the vectors: {_WANTED}")
            number += len(names)
            writer.write_batch(pa.record_batch([pa.array(strings, pa.large_string())], schema))
    if number < len(ids):
        raise MilcoError(f"{number} texts, but {len(ids)} vectors: {_WANTED}")
