"""The token cache: parallel text as token ids, the English side stored once.

    english-*.arrow   input_ids (list of uint32): row n is the English text with english_id n
    pairs-*.arrow     english_id (uint32), input_ids (list of uint32): one row per pair
    families.json     [[size, how many], …]: the pairs of an English text are neighbours, its family; small families
                      come first, so that these counts suffice to find any family

Arrow files are memory-mapped: all processes of a machine share one copy, and a part is read only when it is needed.

Run by rule `tokenize`:
    python -m milco.stages tokenize --config FILE --corpora FOLDER --encoder FOLDER --workers N --output FOLDER
"""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import AutoTokenizer

from milco.content import sample_of
from milco.data.shards import Convert, Shards, write_shards
from milco.environment import made_with
from milco.errors import MilcoError
from milco.files import finished_folder, write_json
from milco.modeling.checkpoints import load
from milco.modeling.texts import token_ids

IDS = pa.list_(pa.uint32())


def build(corpora: Path, encoder: Path, max_length: int, workers: int, output: Path, trust: bool = False) -> None:
    """Tokenise parallel.parquet and english.parquet of `corpora` into the folder `output`.

    Texts are cut at `max_length` tokens of the encoder's own tokenizer, special tokens included; `trust`: its code may
    be run. Finished files of an earlier run with the same texts and tokenizer are reused.
    """
    sources = {"english": corpora / "english.parquet", "pairs": corpora / "parallel.parquet"}
    made_by = [max_length, *map(sample_of, [*sources.values(), encoder]), made_with()]
    families = json.loads((corpora / "statistics.json").read_text(encoding="utf-8"))["families"]
    with finished_folder(output, made_by) as folder:
        write_shards(sources, folder, partial(_pairs, encoder, trust, max_length), workers)
        write_json(folder / "families.json", families)


def tokenizer_of(checkpoint: Path, trust: bool, max_length: int, workers: int) -> Callable[[pa.Array], pa.Array]:
    """A function that turns texts into token ids (`IDS`) in one of several workers.

    Args:
        trust: whether the tokenizer's own code may be run.
        max_length: tokens at which a text is cut, special tokens included.
    """
    if workers > 1:  # else each of them starts a thread for every processor
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = load(AutoTokenizer, checkpoint, trust)

    def ids(texts: pa.Array) -> pa.Array:
        return pa.array(token_ids(tokenizer, texts.to_pylist(), max_length), IDS)

    return ids


def _pairs(encoder: Path, trust: bool, max_length: int, worker: int, workers: int) -> Convert:
    ids = tokenizer_of(encoder, trust, max_length, workers)

    def convert(batch: pa.RecordBatch) -> pa.RecordBatch:
        paired = "english_id" in batch.schema.names
        made = {"input_ids": ids(batch.column("non_english" if paired else "english"))}
        if paired:
            made["english_id"] = batch.column("english_id")
        return pa.record_batch(made)

    return convert


class TokenCache:
    """Read access to a token cache.

    Attributes:
        english, pairs: its tables; `len` of it is the number of pairs.
        families: (size, how many) of the runs of pairs that share an English text, in the order of the pairs.
    """

    def __init__(self, folder: Path):
        self.english, self.pairs = Shards(folder, "english"), Shards(folder, "pairs")
        self.families = [tuple(row) for row in json.loads((folder / "families.json").read_text(encoding="utf-8"))]
        if sum(size * count for size, count in self.families) != len(self):
            raise MilcoError(f"{folder}: its files do not belong together; delete it and tokenize again")

    def __len__(self) -> int:
        return len(self.pairs)

    def english_ids(self, pairs: np.ndarray) -> np.ndarray:
        """english_id of each pair."""
        return self.pairs.numbers("english_id", pairs)

    def lengths(self, pairs: np.ndarray) -> np.ndarray:
        """Tokens of the longer side of each pair."""
        english = self.english.lengths("input_ids", self.english_ids(pairs))
        return np.maximum(self.pairs.lengths("input_ids", pairs), english)
