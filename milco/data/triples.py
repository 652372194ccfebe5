"""Distillation triples as token ids, each text stored once; the input of Stage 2.

    documents-*.arrow   input_ids (list of uint32): row n is the document with number n
    queries-*.arrow     input_ids; pos and neg (lists of uint32, numbers of documents), pos_scores and neg_scores (lists
                        of float64); longest: tokens of the longest negative
    negatives.json      [[number of negatives, number of queries with it], …]

Arrow files are memory-mapped like those of the token cache (tokens.py): a training starts as quickly with a million
queries as with a thousand.

Run by rule `pack`:
    python -m milco.stages pack --config FILE --triples FILE --tokenizer FOLDER --workers N --output FOLDER
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from milco.config import Config
from milco.content import sample_of
from milco.data.shards import ROWS, Convert, Shards, write_shards
from milco.data.sorting import DIGEST_EDGES, PARTS, Sorted, numbered
from milco.data.tokens import IDS, tokenizer_of
from milco.environment import made_with
from milco.files import finished_folder, write_json

SIDES = ("pos", "neg")
Tokens = Callable[[int, int], Callable[[pa.Array], pa.Array]]  # (tokens at which to cut, workers) → texts → ids
TEXT = pa.schema([("text", pa.string())])


def pack(config: Config, triples: Path, tokenizer: Path, workers: int, output: Path) -> None:
    """Tokenise what rule `mine` wrote into the folder `output`.

    Finished files of an earlier run with the same triples and tokenizer are reused.

    Args:
        tokenizer: a checkpoint with the tokenizer of the model that Stage 2 starts from.
        workers: processes that tokenise.
    """
    cut = config.model
    tokens = partial(tokenizer_of, tokenizer, config.trusts("distill"))
    made_by = [cut.query_max_length, cut.passage_max_length, sample_of(triples), sample_of(tokenizer), made_with()]
    with finished_folder(output, made_by) as folder:
        texts, queries = folder / "texts.parquet", folder / "numbered.parquet"
        negatives = _number(triples, texts, queries)
        write_shards({"documents": texts}, folder, partial(_documents, tokens, cut.passage_max_length), workers)
        write_shards({"queries": queries}, folder, partial(_queries, tokens, cut.query_max_length, folder), workers)
        texts.unlink()
        queries.unlink()
        write_json(folder / "negatives.json", sorted(negatives.items()))


def _number(triples: Path, texts: Path, output: Path) -> Counter[int]:
    """Write each document once to `texts`, and the triples with the numbers of their documents to `output`. One batch
    of them is in memory at a time.

    Returns:
        Number of negatives → how many queries have so many.
    """
    negatives: Counter[int] = Counter()
    with pq.ParquetFile(triples, pre_buffer=False) as file:  # else all of it stays in memory until its end
        numbers = _numbers(_digests(lists.flatten()) for batch in file.iter_batches(ROWS) for lists in _sides(batch))
        schema, seen, known = file.schema_arrow, 0, 0
        for side in SIDES:
            schema = schema.set(schema.get_field_index(side), pa.field(side, IDS))
        with pq.ParquetWriter(texts, TEXT) as documents, pq.ParquetWriter(output, schema) as queries:
            for batch in file.iter_batches(ROWS):
                for side, lists in zip(SIDES, _sides(batch), strict=True):
                    found = lists.flatten()
                    rows = np.concatenate([*numbers.parts(range(seen, seen := seen + len(found)))])[:, 1]
                    met, first = np.unique(rows, return_index=True)
                    new = found.take(pa.array(first[met >= known]))
                    documents.write_table(pa.table([new], TEXT))
                    known += len(new)
                    starts = pa.array(_starts(pc.list_value_length(lists).to_numpy()), pa.int32())
                    as_numbers = pa.ListArray.from_arrays(starts, pa.array(rows.astype(np.uint32)))
                    place = schema.get_field_index(side)
                    batch = batch.set_column(place, schema.field(place), as_numbers)
                negatives.update(pc.list_value_length(batch.column("neg")).to_pylist())
                queries.write_batch(batch)
    return negatives


def _sides(batch: pa.RecordBatch) -> list[pa.ListArray]:
    return [batch.column(side) for side in SIDES]


def _digests(texts: pa.Array) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts.to_pylist())
    return np.frombuffer(digests, np.uint64)


def _numbers(digests: Iterable[np.ndarray]) -> Sorted:
    """Pairs (place, number of the text there): equal texts have the same number, a new text has the next one."""
    by_digest = Sorted(numbered(digests), DIGEST_EDGES)
    edges = np.linspace(0, len(by_digest), PARTS, dtype=np.uint64)[1:-1]
    by_first = Sorted(map(_with_first, by_digest.parts()), edges)  # (first place of a text, place)
    return Sorted(_counted(by_first.parts()), edges)


def _with_first(pairs: np.ndarray) -> np.ndarray:
    """(digest, place), by digest → (first place of the digest, place)."""
    if not len(pairs):
        return pairs
    digests, places = pairs.T
    starts = np.flatnonzero(np.concatenate([[True], digests[1:] != digests[:-1]]))
    first = np.minimum.reduceat(places, starts)
    return np.column_stack([np.repeat(first, np.diff([*starts, len(pairs)])), places])


def _counted(portions: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """(first place, place), by first place → (place, how many first places are smaller)."""
    known = 0
    for pairs in portions:
        first, number = np.unique(pairs[:, 0], return_inverse=True)
        yield np.column_stack([pairs[:, 1], number.astype(np.uint64) + np.uint64(known)])
        known += len(first)


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Offsets of the lists in their concatenation, and the end of the last one."""
    return np.concatenate([[0], np.cumsum(lengths)])


def _documents(tokens: Tokens, max_length: int, worker: int, workers: int) -> Convert:
    ids = tokens(max_length, workers)
    return lambda batch: pa.record_batch({"input_ids": ids(batch.column("text"))})


def _queries(tokens: Tokens, max_length: int, folder: Path, worker: int, workers: int) -> Convert:
    ids, documents = tokens(max_length, workers), Shards(folder, "documents")

    def convert(batch: pa.RecordBatch) -> pa.RecordBatch:
        negatives = batch.column("neg")
        lengths = documents.lengths("input_ids", negatives.flatten().to_numpy().astype(np.int64))
        starts = _starts(pc.list_value_length(negatives).to_numpy())
        longest = np.maximum.reduceat(lengths, starts[:-1])
        made = {name: batch.column(name) for name in batch.schema.names if name != "query"}
        return pa.record_batch({"input_ids": ids(batch.column("query")), **made, "longest": longest.astype(np.uint32)})

    return convert


class Triples:
    """Read access to what `pack` wrote; `len` of it is the number of queries.

    Attributes:
        queries, documents: its tables.
        negatives: (negatives, how many queries have so many).
    """

    def __init__(self, folder: Path):
        self.queries, self.documents = Shards(folder, "queries"), Shards(folder, "documents")
        self.negatives = [tuple(row) for row in json.loads((folder / "negatives.json").read_text(encoding="utf-8"))]

    def __len__(self) -> int:
        return len(self.queries)

    def longest(self, queries: np.ndarray) -> np.ndarray:
        """Tokens of the longest negative of each query."""
        return self.queries.numbers("longest", queries)
