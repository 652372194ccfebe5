"""Milvus: milvus-lite in this process, a server or a cluster."""

import logging
import os
from collections.abc import Iterable
from typing import Any

import scipy.sparse

from milco.tools.engines.base import Hits, terms
from milco.tools.engines.database import FIELD, Database


class Milvus(Database):
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
