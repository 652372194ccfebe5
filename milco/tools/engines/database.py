"""Base class of Milvus and Qdrant."""

import importlib
import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import scipy.sparse

from milco.errors import MilcoError
from milco.tools.engines.base import Engine, Hits, Part, checked, last_of

DOCUMENTS_AT_A_TIME = 256  # some megabytes a request; servers refuse those above 32 (Qdrant) or 64 (Milvus)
QUERIES_AT_A_TIME = 64
FIELD = "vector"


class Database(Engine):
    """A database with collections and aliases. Documents are written into NAME_by_milco_a or _b, whichever is free, and
    the alias NAME then points there: readers see either the old or the new collection, never a partial one. Only one
    process may write under a name at a time."""

    def __init__(self, address: str, place: str):
        place, _, name = place.partition("#")
        super().__init__(address, place)
        self.name = name or "milco"
        self.names = f"{self.name}_by_milco_a", f"{self.name}_by_milco_b"
        self.local = None if "://" in place else Path(place)

    def write(self, parts: Iterable[Part], replace: bool = False) -> int:
        fresh = self.local is not None and not self.local.exists()
        try:
            return self._write(parts, replace)
        except BaseException:
            if fresh and self.local:
                self.close()
                shutil.rmtree(self.local, ignore_errors=True)
            raise

    def _write(self, parts: Iterable[Part], replace: bool) -> int:
        old = self._pointed_to()
        if old and not replace:
            raise self._refuse_second()
        if not old and self._exists(self.name):
            raise MilcoError(f"{self.address}: milco did not write the collection {self.name}; name another with #NAME")
        new = self.names[old == self.names[0]]
        if self._exists(new):  # left by a write that was killed
            self._drop(new)
        self._create(new)
        written = 0
        try:
            for ids, rows in checked(parts):
                for start in range(0, len(ids), DOCUMENTS_AT_A_TIME):
                    named = ids[start : start + DOCUMENTS_AT_A_TIME]
                    last = last_of(named)  # a request must not have an id twice
                    self._upsert(new, [named[place] for place in last], rows[start + np.array(last)])
                written += len(ids)
            if not written:
                raise self._nothing_written()
            self._point(new, old)
        except BaseException:
            self._drop(new)
            raise
        if old:
            self._drop(old)
        return written

    def search(self, queries: scipy.sparse.csr_array, k: int) -> list[Hits]:
        if (self.local and not self.local.exists()) or not self._pointed_to():  # a client would make the missing file
            raise self._nothing_there()
        found: list[Hits] = [[] for _ in range(queries.shape[0])]
        asked = np.flatnonzero(np.diff(queries.indptr))
        for start in range(0, len(asked), QUERIES_AT_A_TIME):
            rows = asked[start : start + QUERIES_AT_A_TIME]
            for row, hits in zip(rows, self._ask(queries[rows], k), strict=True):
                found[row] = [(identifier, score) for identifier, score in hits if score > 0]
        return found

    @property
    def client(self) -> Any:
        if self.opened is None:
            self.opened = self._open()
        return self.opened

    def _call(self, method: Callable, *arguments, **options) -> Any:
        """Call the client; turn any of its errors into a one-line MilcoError."""
        try:
            return method(*arguments, **options)
        except Exception as error:
            said = " ".join(str(getattr(error, "message", error)).split())
            raise MilcoError(f"{self.address}: {said or type(error).__name__}") from error

    def _package(self, name: str, extra: str) -> ModuleType:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise MilcoError(
                f"{self.address}: needs {error.name or name}; pip install '.[{extra}]' in milco's checkout"
            ) from error

    @abstractmethod
    def _open(self) -> Any: ...

    @abstractmethod
    def _pointed_to(self) -> str | None: ...

    @abstractmethod
    def _exists(self, name: str) -> bool: ...

    @abstractmethod
    def _create(self, name: str) -> None: ...

    @abstractmethod
    def _drop(self, name: str) -> None: ...

    @abstractmethod
    def _upsert(self, name: str, ids: list[str], rows: scipy.sparse.csr_array) -> None: ...

    @abstractmethod
    def _point(self, new: str, old: str | None) -> None: ...

    @abstractmethod
    def _ask(self, queries: scipy.sparse.csr_array, k: int) -> Iterable[Hits]: ...
