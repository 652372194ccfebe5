"""Distillation triples as token ids, every text once: what Stage 2 reads.

    documents-*.arrow   input_ids (list of uint32): row n is the document with number n
    queries-*.arrow     input_ids; pos and neg (lists of uint32, numbers of documents), pos_scores and neg_scores (lists
                        of float64); longest: tokens of the longest negative
    negatives.json      [[negatives, how many queries have so many], …]

Arrow files are memory-mapped, as those of the token cache (tokens.py): a training starts as quickly with a million
queries as with a thousand.

Run by rule `pack`:
    python -m milco.stages pack --config FILE --triples FILE --tokenizer FOLDER --workers N --output FOLDER
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import PretrainedConfig

from milco.config import Config
from milco.content import sample_of
from milco.data.shards import ROWS, Convert, Shards, write_shards
from milco.data.tokens import IDS, tokenizer_of
from milco.environment import made_with
from milco.files import finished_folder, write_json
from milco.modeling.authors_layout import is_theirs
from milco.modeling.milco_config import MilcoConfig, is_milco

SIDES = ("pos", "neg")
Tokens = Callable[[int, int], Callable[[pa.Array], pa.Array]]  # (tokens at which to cut, workers) → texts → ids
TEXT = pa.schema([("text", pa.string())])


def pack(config: Config, triples: Path, tokenizer: Path, workers: int, output: Path) -> None:
    """Tokenise what rule `mine` wrote into the folder `output`.

    Files that a run with the same triples and tokenizer left behind are taken over.

    Args:
        tokenizer: a checkpoint with the tokenizer of the model that Stage 2 starts from. If it is a MILCO model of ours
            itself, its texts are cut where it cuts them, else where the settings say.
        workers: processes that tokenise.
    """
    kind = PretrainedConfig.get_config_dict(tokenizer)[0]
    ours = is_milco(kind) and not is_theirs(kind)
    cut = MilcoConfig.from_pretrained(tokenizer) if ours else config.model
    tokens = partial(tokenizer_of, tokenizer, config.trusts("distill"))
    made_by = [cut.query_max_length, cut.passage_max_length, sample_of(triples), sample_of(tokenizer), made_with()]
    with finished_folder(output, made_by) as folder:
        texts, numbered = folder / "texts.parquet", folder / "numbered.parquet"
        negatives = _number(triples, texts, numbered)
        write_shards({"documents": texts}, folder, partial(_documents, tokens, cut.passage_max_length), workers)
        write_shards({"queries": numbered}, folder, partial(_queries, tokens, cut.query_max_length, folder), workers)
        texts.unlink()
        numbered.unlink()
        write_json(folder / "negatives.json", sorted(negatives.items()))


def _number(triples: Path, texts: Path, numbered: Path) -> Counter[int]:
    """Write each document once to `texts`, and the triples with the numbers of their documents to `numbered`. Of the
    texts only 16 bytes each are in memory.

    Returns:
        Number of negatives → how many queries have so many.
    """
    numbers: dict[bytes, int] = {}
    negatives: Counter[int] = Counter()
    with pq.ParquetFile(triples, pre_buffer=False) as file:  # else all of it stays in memory until its end
        schema = file.schema_arrow
        for side in SIDES:
            schema = schema.set(schema.get_field_index(side), pa.field(side, IDS))
        with pq.ParquetWriter(texts, TEXT) as documents, pq.ParquetWriter(numbered, schema) as queries:
            for batch in file.iter_batches(ROWS):
                new: list[str] = []
                for place in map(schema.get_field_index, SIDES):
                    lists = batch.column(place)
                    rows = [_number_of(text, numbers, new) for text in lists.flatten().to_pylist()]
                    starts = pa.array(_starts(pc.list_value_length(lists).to_numpy()), pa.int32())
                    as_numbers = pa.ListArray.from_arrays(starts, pa.array(rows, pa.uint32()))
                    batch = batch.set_column(place, schema.field(place), as_numbers)
                negatives.update(pc.list_value_length(batch.column("neg")).to_pylist())
                documents.write_table(pa.table([new], TEXT))
                queries.write_batch(batch)
    return negatives


def _number_of(text: str, numbers: dict[bytes, int], new: list[str]) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    if digest not in numbers:
        new.append(text)
    return numbers.setdefault(digest, len(numbers))


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Where each of some lists begins in all of them together, and where the last one ends."""
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
