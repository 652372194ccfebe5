"""Sparse targets: what the English retriever says of every English text, computed once.

On disk, `targets-*.arrow`, they hold for each text the terms with a positive logit (uint16, where the vocabulary
allows it) and their pivot weights (float16); with `align.target: raw` also the teacher's own token ids (uint32), from
which Stage 1 has it say what it thinks of all the other terms.

Run by rule `teacher`:
    python -m milco.stages teacher --config FILE --corpora FOLDER --teacher FOLDER --workers N --output FOLDER
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse
import torch
from transformers import AutoTokenizer

from milco.data.shards import Convert, Shards, write_shards
from milco.data.tokens import IDS
from milco.files import finished_folder, write_json
from milco.modeling.checkpoints import load
from milco.modeling.rows import in_text_order
from milco.modeling.teacher import Teacher


def write_targets(
    corpora: Path,
    checkpoint: Path,
    max_length: int,
    batch_size: int,
    workers: int,
    output: Path,
    trust: bool = False,
    tokens: bool = False,
) -> None:
    """Encode english.parquet of `corpora`, row by row, into the folder `output`.

    Args:
        workers: processes, each with a GPU of its own where there are as many.
        trust: whether the checkpoint's own code may be run.
        tokens: store the teacher's tokens of each text, too.
    """
    make = partial(_encoder, checkpoint, trust, tokens, max_length, batch_size)
    with finished_folder(output) as folder:
        write_shards({"targets": corpora / "english.parquet"}, folder, make, workers)
        write_json(folder / "columns.json", len(load(AutoTokenizer, checkpoint, trust)))


def _encoder(
    checkpoint: Path, trust: bool, tokens: bool, max_length: int, batch_size: int, worker: int, workers: int
) -> Convert:
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    devices = torch.cuda.device_count()
    teacher = Teacher(checkpoint, f"cuda:{worker % devices}" if devices else "cpu", trust)

    def convert(batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = batch.column("english").to_pylist()
        rows = teacher.iter_rows(texts, max_length, batch_size)
        found = to_batch(in_text_order(rows, teacher.head.decoder.out_features))
        if not tokens:
            return found
        ids = teacher.tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
        return found.append_column("input_ids", pa.array(ids, IDS))

    return convert


def to_batch(rows: scipy.sparse.csr_array) -> pa.RecordBatch:
    """Sparse rows as lists of terms and weights."""
    kind = np.uint16 if rows.shape[1] <= 2**16 else np.uint32
    columns = {"terms": rows.indices.astype(kind), "weights": rows.data.astype(np.float16)}
    offsets = pa.array(rows.indptr, pa.int32())
    return pa.record_batch(
        {name: pa.ListArray.from_arrays(offsets, pa.array(found)) for name, found in columns.items()}
    )


class Targets:
    """Read access to what `write_targets` wrote.

    Attributes:
        columns: V_e, terms of the teacher's vocabulary.
    """

    def __init__(self, folder: Path):
        self.shards = Shards(folder, "targets")
        self.columns: int = json.loads((folder / "columns.json").read_text(encoding="utf-8"))

    def cells(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is positive in some texts, one cell after the other: place of the text among them, term, pivot weight.

        `expm1` of a weight is the raw logit.
        """
        terms = np.concatenate([np.zeros(0, int), *self.shards.lists("terms", texts)]).astype(np.int64)
        weights = np.concatenate([np.zeros(0, np.float16), *self.shards.lists("weights", texts)]).astype(np.float32)
        return np.repeat(np.arange(len(texts)), self.shards.lengths("terms", texts)), terms, weights

    def tokens(self, texts: np.ndarray) -> list[np.ndarray]:
        """The teacher's token ids of some texts."""
        return self.shards.lists("input_ids", texts)

    def rows(self, texts: np.ndarray) -> scipy.sparse.csr_array:
        """Pivot weights of some texts, N×V_e."""
        row, term, weight = self.cells(texts)
        return scipy.sparse.csr_array((weight, (row, term)), shape=(len(texts), self.columns))
