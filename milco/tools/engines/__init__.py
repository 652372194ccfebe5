"""Search engines behind one interface, chosen by an address: the same vectors in a local file or on a cluster.

    milvus:milco.db             milvus-lite in this process; the path must end with .db
    milvus:http://host:19530    a Milvus server or cluster; its token in MILVUS_TOKEN
    qdrant:FOLDER               Qdrant in this process; it scores every document, so use it for up to about ten thousand
    qdrant:http://host:6333     a Qdrant server or cluster; its key in QDRANT_API_KEY
    seismic:FOLDER              milco.evaluation.index.Index; documents are held in memory while the index is built

`#NAME` behind an address of Milvus or Qdrant names the collection in it, `milco` by default.

    with engine_at("milvus:milco.db") as engine:
        engine.write([(["d1", "d2"], model.encode_document(texts))])
        engine.search(model.encode_query(["Passwort zurücksetzen"]), 10)  # [[("d2", 7.1), …]]
"""

from milco.errors import MilcoError
from milco.tools.engines.base import Engine
from milco.tools.engines.milvus import Milvus
from milco.tools.engines.qdrant import Qdrant
from milco.tools.engines.seismic import Seismic

ENGINES: dict[str, type[Engine]] = {"milvus": Milvus, "qdrant": Qdrant, "seismic": Seismic}


def engine_at(address: str) -> Engine:
    """The engine that an address names, such as `milvus:milco.db` or `qdrant:http://host:6333#wiki`."""
    kind, _, place = address.partition(":")
    if kind not in ENGINES or not place:
        raise MilcoError(f"{address!r}: no address of an engine; expected {':…, '.join(ENGINES)}:…")
    return ENGINES[kind](address, place)
