"""The interface of search engines, and their input."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from milco.data.beir import iter_documents, read_queries
from milco.data.vectors import load_vectors
from milco.errors import MilcoError
from milco.evaluation.lookup import text_id

Part = tuple[list[str], scipy.sparse.csr_array]  # ids and their rows
Hits = list[tuple[str, float]]  # ids and scores, best first


def read_parts(vectors: Path, side: str, collection: Path | None = None) -> Iterator[Part]:
    """What rule `merge` wrote, one file in memory at a time.

    Args:
        side: `queries` or `documents`.
        collection: a test collection in BEIR layout: then only its texts are given, under their ids in it. By default
            all texts are, under the hashes that name them in the folder.
    """
    paths = sorted(vectors.glob(f"{side}-*.safetensors"))
    if not paths:
        raise MilcoError(f"{vectors}: no {side}-00000.safetensors in it; expected a folder that `merge` wrote")
    names: dict[str, list[str]] | None = None
    if collection:
        texts = iter_documents(collection) if side == "documents" else read_queries(collection)[0].items()
        names = defaultdict(list)
        for identifier, text in texts:
            names[text_id(text)].append(identifier)
    for path in paths:
        rows, ids = load_vectors(path)
        if not scipy.sparse.issparse(rows):
            raise MilcoError(f"{path}: dense vectors; these engines take sparse ones")
        if names is not None:
            places = [row for row, found in enumerate(ids) for _ in names.get(found, ())]
            ids, rows = [name for found in ids for name in names.get(found, ())], rows[places]
        yield ids, rows


def checked(parts: Iterable[Part]) -> Iterator[Part]:
    """The same parts without zero weights and empty rows, which no search could find.

    Raises:
        MilcoError: ids and rows of a part differ in number, or a weight is negative, NaN or infinite.
    """
    for ids, rows in parts:
        if len(ids) != rows.shape[0]:
            raise MilcoError(f"{rows.shape[0]} rows, but {len(ids)} ids")
        broken = ~(np.isfinite(rows.data) & (rows.data >= 0))
        if broken.any():
            place = int(broken.argmax())
            row = int(np.searchsorted(rows.indptr, place, side="right")) - 1
            raise MilcoError(f"{ids[row]!r}: a weight of {rows.data[place]}; weights must be numbers from 0 on")
        if not rows.data.all():
            rows = rows.copy()
            rows.eliminate_zeros()
        filled = np.flatnonzero(np.diff(rows.indptr))
        if len(filled) < len(ids):
            ids, rows = [ids[row] for row in filled], rows[filled]
        yield ids, rows


def last_of(ids: list[str]) -> list[int]:
    """Places of the ids; of an id that occurs several times, the last place."""
    return sorted({identifier: place for place, identifier in enumerate(ids)}.values())


def terms(rows: scipy.sparse.csr_array) -> Iterator[tuple[list[int], list[float]]]:
    """Columns and weights of each row."""
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        yield rows.indices[start:end].tolist(), rows.data[start:end].tolist()


class Engine(ABC):
    """An index in a search engine. It is opened at first use and closed at the end of the `with` block."""

    def __init__(self, address: str, place: str):
        self.address, self.place = address, place
        self.opened: Any = None  # client of a database

    @abstractmethod
    def write(self, parts: Iterable[Part], replace: bool = False) -> int:
        """Index documents, part by part, and return how many have any weight and so can be found.

        The index appears when all of it is written. Until then, and after an error, an earlier one stays. Of several
        documents with the same id, the last one counts.

        Args:
            replace: whether an index that is there is replaced; if not, such an index is an error.

        Raises:
            MilcoError: an index is there, no document has a weight, or the engine refuses something.
        """

    @abstractmethod
    def search(self, queries: scipy.sparse.csr_array, k: int) -> list[Hits]:
        """The k best documents of each query by inner product: (id, score), best first.

        A document that shares no term with the query is never found; the order of equal scores is the engine's.
        """

    def close(self) -> None:
        """Close the connection; until then local files are locked."""
        if self.opened is not None:
            self.opened.close()
            self.opened = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_second(self) -> MilcoError:
        return MilcoError(f"{self.address}: an index is there already; say that it is to be replaced or name another")

    def _nothing_written(self) -> MilcoError:
        return MilcoError(f"{self.address}: no document with a weight; nothing was written")

    def _nothing_there(self) -> MilcoError:
        return MilcoError(f"{self.address}: no index there; write it first")
