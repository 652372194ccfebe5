"""Qdrant: in this process or a server."""

import os
from collections.abc import Iterable
from types import ModuleType
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import scipy.sparse

from milco.tools.engines.base import Hits, terms
from milco.tools.engines.database import FIELD, Database


class Qdrant(Database):
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
