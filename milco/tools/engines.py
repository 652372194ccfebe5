"""Search engines behind one interface, chosen by an address: the same vectors in a local file or on a cluster.

    milvus:milco.db             milvus-lite in this process; the path must end with .db
    milvus:http://host:19530    a Milvus server or cluster; its token in MILVUS_TOKEN
    qdrant:FOLDER               Qdrant in this process, which compares all documents: for up to some ten thousand
    qdrant:http://host:6333     a Qdrant server or cluster; its key in QDRANT_API_KEY
    seismic:FOLDER              milco.evaluation.index.Index; documents are held in memory while the index is built

`#NAME` behind an address of Milvus or Qdrant names the collection in it, `milco` by default.

    with engine_at("milvus:milco.db") as engine:
        engine.write([(["d1", "d2"], model.encode_document(texts))])
        engine.search(model.encode_query(["Passwort zurücksetzen"]), 10)  # [[("d2", 7.1), …]]
"""

import importlib
import json
import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import scipy.sparse

from milco.data.beir import iter_documents, read_queries
from milco.data.vectors import load_vectors
from milco.errors import MilcoError
from milco.evaluation.encode import text_id
from milco.evaluation.index import Index
from milco.files import finished_folder, write_json

Part = tuple[list[str], scipy.sparse.csr_array]  # ids and their rows
Hits = list[tuple[str, float]]  # ids and scores, best first

DOCUMENTS_AT_A_TIME = 256  # some megabytes a request; servers refuse those above 32 (Qdrant) or 64 (Milvus)
QUERIES_AT_A_TIME = 64
FIELD = "vector"


def read_parts(vectors: Path, side: str, collection: Path | None = None) -> Iterator[Part]:
    """What rule `merge` wrote, one file in memory at a time.

    Args:
        side: `queries` or `documents`.
        collection: a test collection in BEIR layout. Its texts alone are given then, under their ids in it; by
            default all texts, under the hashes by which the folder names them.
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
    """The same parts without zeros and without rows that have no weight, which no search could find.

    Raises:
        MilcoError: ids and rows of a part do not fit, or a weight is negative or no number.
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
    """Places of the ids; of one that stands there several times the last."""
    return sorted({identifier: place for place, identifier in enumerate(ids)}.values())


def terms(rows: scipy.sparse.csr_array) -> Iterator[tuple[list[int], list[float]]]:
    """Columns and weights of each row."""
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        yield rows.indices[start:end].tolist(), rows.data[start:end].tolist()


class Engine(ABC):
    """An index of documents somewhere. Nothing is opened before it is used; leaving the `with` block closes it."""

    def __init__(self, address: str, place: str):
        self.address, self.place = address, place
        self.opened: Any = None  # client of a database

    @abstractmethod
    def write(self, parts: Iterable[Part], replace: bool = False) -> int:
        """Index documents, part by part, and return how many have any weight and so can be found.

        The index appears when all of it is written. Until then, and for good after an error, an earlier one stays.
        Of documents with the same id the last counts.

        Args:
            replace: whether an index that is there is exchanged for this one; without it that is an error.

        Raises:
            MilcoError: an index is there, no document has a weight, or the engine refuses something.
        """

    @abstractmethod
    def search(self, queries: scipy.sparse.csr_array, k: int) -> list[Hits]:
        """The k best documents of each query by inner product: (id, score), best first.

        A document that shares no term with the query is never found; the order of equal scores is the engine's.
        """

    def close(self) -> None:
        """Let go of what was opened; local files are locked until then."""
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


class Seismic(Engine):
    """A folder with a Seismic index and the ids of its documents. Approximate, see `Index.search`."""

    def write(self, parts: Iterable[Part], replace: bool = False) -> int:
        folder = Path(self.place)
        if folder.exists() and not (replace and (folder / "ids.json").exists()):
            raise self._refuse_second()
        found = [part for part in checked(parts) if part[0]]
        if not found:
            raise self._nothing_written()
        ids = [identifier for names, _ in found for identifier in names]
        last = last_of(ids)
        with finished_folder(folder) as draft:
            Index.build(scipy.sparse.vstack([rows for _, rows in found], format="csr")[last]).save(draft / "index")
            write_json(draft / "ids.json", [ids[row] for row in last])
        return len(ids)

    def search(self, queries: scipy.sparse.csr_array, k: int) -> list[Hits]:
        folder = Path(self.place)
        if not (folder / "ids.json").exists():
            raise self._nothing_there()
        ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        rankings, _ = Index.load(folder / "index").search(queries, k)
        return [[(ids[row], score) for row, score in ranking] for ranking in rankings]


class _Database(Engine):
    """What Milvus and Qdrant share. Documents are written into NAME_by_milco_a or _b, whichever is free, and the alias
    NAME then points there: readers see the old collection or the new one and never half of one. Only one process may
    write under a name at a time."""

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
            raise MilcoError(f"{self.address}: {self.name} is a collection of somebody else; name another with #NAME")
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
        """Call the client; whatever goes wrong there becomes one line."""
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


class Milvus(_Database):
    """A SPARSE_FLOAT_VECTOR field with a SPARSE_INVERTED_INDEX over inner products. Exact."""

    def _open(self) -> Any:
        pymilvus = self._package("pymilvus", "milvus")
        for talker in ("pymilvus", "grpc._server"):  # they print a traceback for every error that they also raise
            logging.getLogger(talker).setLevel(logging.CRITICAL)
        # The server of milvus-lite hangs up on a client that asks every ten seconds whether it still lives.
        options = {"grpc_options": {"grpc.keepalive_time_ms": 2**31 - 1}} if self.local else {}
        token = os.environ.get("MILVUS_TOKEN", "")
        return self._call(pymilvus.MilvusClient, self.place, token=token, **options)

    def _pointed_to(self) -> str | None:
        for name in self.names:
            if self._exists(name) and self.name in self._call(self.client.list_aliases, name)["aliases"]:
                return name
        return None

    def _exists(self, name: str) -> bool:
        return self._call(self.client.has_collection, name)

    def _create(self, name: str) -> None:
        kinds = self._package("pymilvus", "milvus").DataType
        schema = self.client.create_schema(auto_id=False)
        schema.add_field("id", kinds.VARCHAR, is_primary=True, max_length=65_535)
        schema.add_field(FIELD, kinds.SPARSE_FLOAT_VECTOR)
        index = self.client.prepare_index_params()
        index.add_index(FIELD, index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
        options = {"schema": schema, "index_params": index, "consistency_level": "Strong"}
        self._call(self.client.create_collection, name, **options)

    def _drop(self, name: str) -> None:
        self._call(self.client.drop_collection, name)

    def _upsert(self, name: str, ids: list[str], rows: scipy.sparse.csr_array) -> None:
        vectors = (dict(zip(*row, strict=True)) for row in terms(rows))
        points = [{"id": identifier, FIELD: vector} for identifier, vector in zip(ids, vectors, strict=True)]
        self._call(self.client.upsert, name, points)

    def _point(self, new: str, old: str | None) -> None:
        self._call(self.client.flush, new)
        self._call(self.client.alter_alias if old else self.client.create_alias, new, self.name)

    def _ask(self, queries: scipy.sparse.csr_array, k: int) -> Iterable[Hits]:
        vectors = [dict(zip(*row, strict=True)) for row in terms(queries)]
        options = {"anns_field": FIELD, "output_fields": ["id"], "search_params": {"metric_type": "IP"}}
        self._call(self.client.load_collection, self.name)  # milvus-lite forgets it with the process that wrote
        for hits in self._call(self.client.search, self.name, data=vectors, limit=k, **options):
            yield [(hit["id"], hit["distance"]) for hit in hits]


class Qdrant(_Database):
    """A sparse vector for each point. Points are named by a UUID made of the document's id, which is in their payload.
    Exact."""

    def _open(self) -> Any:
        client = self._package("qdrant_client", "qdrant").QdrantClient
        if self.local:
            return self._call(client, path=self.place)
        options = {"api_key": os.environ.get("QDRANT_API_KEY"), "timeout": 60, "check_compatibility": False}
        return self._call(client, url=self.place, **options)

    @property
    def models(self) -> ModuleType:
        return self._package("qdrant_client.models", "qdrant")

    def _aliases(self) -> dict[str, str]:
        return {item.alias_name: item.collection_name for item in self._call(self.client.get_aliases).aliases}

    def _pointed_to(self) -> str | None:
        name = self._aliases().get(self.name)
        return name if name in self.names else None

    def _exists(self, name: str) -> bool:
        return name in self._aliases() or self._call(self.client.collection_exists, name)

    def _create(self, name: str) -> None:
        sparse = {FIELD: self.models.SparseVectorParams()}
        self._call(self.client.create_collection, name, vectors_config={}, sparse_vectors_config=sparse)

    def _drop(self, name: str) -> None:
        self._call(self.client.delete_collection, name)

    def _vectors(self, rows: scipy.sparse.csr_array) -> list:
        return [self.models.SparseVector(indices=columns, values=weights) for columns, weights in terms(rows)]

    def _upsert(self, name: str, ids: list[str], rows: scipy.sparse.csr_array) -> None:
        points = [
            self.models.PointStruct(id=str(uuid5(NAMESPACE_URL, one)), payload={"id": one}, vector={FIELD: vector})
            for one, vector in zip(ids, self._vectors(rows), strict=True)
        ]
        self._call(self.client.upsert, name, points)

    def _point(self, new: str, old: str | None) -> None:
        create = self.models.CreateAlias(collection_name=new, alias_name=self.name)
        changes = [self.models.CreateAliasOperation(create_alias=create)]
        if old:
            delete = self.models.DeleteAlias(alias_name=self.name)
            changes.insert(0, self.models.DeleteAliasOperation(delete_alias=delete))
        self._call(self.client.update_collection_aliases, changes)

    def _ask(self, queries: scipy.sparse.csr_array, k: int) -> Iterable[Hits]:
        options = {"using": FIELD, "limit": k, "with_payload": True}
        asked = [self.models.QueryRequest(query=vector, **options) for vector in self._vectors(queries)]
        for answer in self._call(self.client.query_batch_points, self.name, asked):
            yield [(point.payload["id"], point.score) for point in answer.points]


ENGINES: dict[str, type[Engine]] = {"milvus": Milvus, "qdrant": Qdrant, "seismic": Seismic}


def engine_at(address: str) -> Engine:
    """The engine that an address names, such as `milvus:milco.db` or `qdrant:http://host:6333#wiki`."""
    kind, _, place = address.partition(":")
    if kind not in ENGINES or not place:
        raise MilcoError(f"{address!r}: no address of an engine; expected {':…, '.join(ENGINES)}:…")
    return ENGINES[kind](address, place)
