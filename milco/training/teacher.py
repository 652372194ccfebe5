"""Sparse targets: the English retriever's pivot weights of every English text, computed once.

On disk, `targets-*.arrow`, they hold for each text the terms with a positive logit (uint16, where the vocabulary
allows it) and their pivot weights (float16); with `align.target: raw` also the teacher's own token ids (uint32), from
which it computes the logits of all other terms during Stage 1.

Processes on any number of nodes share the work, a file at a time; the result does not depend on their number.

Run by rule `teacher` through workflow/scripts/launch.sh (torchrun):
    torchrun -m milco.stages teacher --config FILE --corpora FOLDER --teacher FOLDER --output FOLDER
"""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse
import torch
from torch import distributed

from milco.content import sample_of
from milco.data.shards import Convert, Shards, write_shards
from milco.data.tokens import IDS
from milco.environment import made_with, refuse_without_bf16
from milco.files import finished_folder, write_json
from milco.modeling.pivot_head import PivotHead
from milco.modeling.rows import in_text_order
from milco.modeling.teacher import Teacher
from milco.modeling.texts import token_ids
from milco.outputs import draft_of
from milco.training.recovery import PATIENCE


def write_targets(
    corpora: Path,
    checkpoint: Path,
    max_length: int,
    batch_size: int,
    output: Path,
    trust: bool = False,
    tokens: bool = False,
    precision: str = "float32",
) -> None:
    """Encode english.parquet of `corpora`, row by row, into the folder `output`, on the GPU that torchrun gives to this
    process if there is one. Finished files of an earlier run with the same texts, teacher and settings are reused.

    Args:
        trust: whether the checkpoint's own code may be run.
        tokens: store the teacher's tokens of each text, too.
        precision: as `align.teacher_precision` says it.
    """
    rank, processes = (int(os.environ.get(name, other)) for name, other in (("RANK", 0), ("WORLD_SIZE", 1)))
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    texts = corpora / "english.parquet"
    if precision == "bf16":
        refuse_without_bf16("align.teacher_precision", "float32")
    make = partial(_encoder, checkpoint, device, trust, tokens, max_length, batch_size, precision)

    def first() -> AbstractContextManager[Path]:
        how = [max_length, tokens, precision, device.partition(":")[0], made_with()]
        return finished_folder(output, [*how, sample_of(texts), sample_of(checkpoint)])

    with nullcontext(draft_of(output)) if rank else first() as folder:
        with _together(processes):
            write_shards({"targets": texts}, folder, make, 1, rank, processes)
        if rank == 0:
            write_json(folder / "columns.json", PivotHead.from_teacher(checkpoint, trust).decoder.out_features)


@contextmanager
def _together(processes: int) -> Iterator[None]:
    """Barrier: start when the first process has created the folder, end when all processes have written to it."""
    if processes > 1:
        distributed.init_process_group("gloo", timeout=PATIENCE)  # all meet here
    yield
    if processes > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def _encoder(
    checkpoint: Path,
    device: str,
    trust: bool,
    tokens: bool,
    max_length: int,
    batch_size: int,
    precision: str,
    *worker: int,
) -> Convert:
    teacher = Teacher(checkpoint, device, trust)

    def convert(batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = batch.column("english").to_pylist()
        with _computed_in(precision, teacher.encoder.device.type):
            rows = in_text_order(teacher.iter_rows(texts, max_length, batch_size), teacher.head.decoder.out_features)
        found = to_batch(rows)
        if not tokens:
            return found
        return found.append_column("input_ids", pa.array(token_ids(teacher.tokenizer, texts, max_length), IDS))

    return convert


@contextmanager
def _computed_in(precision: str, device: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else before)
    try:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


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
        """The active terms of some texts, one cell after the other: place of the text among them, term, pivot weight.

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
