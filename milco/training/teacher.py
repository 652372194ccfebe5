"""The English sparse retriever: targets of Stage 1, scores of Stage 2, and a baseline of the evaluation.

Always in evaluation mode, and a pad never enters the maximum: the target of a text depends on that text alone.

Its targets on disk, `targets-*.arrow`, hold for each English text the terms with a positive logit (uint16, where the
vocabulary allows it) and their pivot weights (float16).

Run by rule `teacher`:
    python -m milco teacher --config FILE --corpora FOLDER --teacher FOLDER --workers N --output FOLDER
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from milco.checkpoints import load
from milco.data.shards import Convert, Shards, write_shards
from milco.files import finished_folder, write_json
from milco.model import PivotHead, as_rows, in_text_order, padded_batches, pivot_cells


class Teacher:
    """A SPLADE model: text → raw pooled logits of the English vocabulary, where they are positive.

    Args:
        trust: whether the checkpoint's own code may be run.
    """

    def __init__(self, checkpoint: str | Path, device: str = "cpu", trust: bool = False):
        self.tokenizer = load(AutoTokenizer, checkpoint, trust)
        self.encoder = load(AutoModelForMaskedLM, checkpoint, trust).base_model.eval().to(device)
        self.head = PivotHead.from_teacher(checkpoint, trust).eval().to(device)

    @torch.no_grad()
    def iter_rows(
        self, texts: list[str], max_length: int, batch_size: int
    ) -> Iterator[tuple[list[int], scipy.sparse.csr_array]]:
        """Encode texts from short to long, batch by batch: (their places in `texts`, CSR rows of V_e columns).

        The values are pivot weights log1p(relu(t)); `np.expm1` of them gives back the raw positive logits t.
        """
        for places, batch in padded_batches(self.tokenizer, texts, max_length, batch_size):
            batch = {name: values.to(self.encoder.device) for name, values in batch.items()}
            states = self.encoder(**batch).last_hidden_state
            pooled = self.head(states, batch["attention_mask"].bool())
            yield places, as_rows(*pivot_cells(pooled), pooled.shape)


def write_targets(
    corpora: Path,
    checkpoint: Path,
    max_length: int,
    batch_size: int,
    workers: int,
    output: Path,
    trust: bool = False,
) -> None:
    """Encode english.parquet of `corpora`, row by row, into the folder `output`.

    Args:
        workers: processes, each with a GPU of its own where there are as many.
        trust: whether the checkpoint's own code may be run.
    """
    make = partial(_encoder, checkpoint, trust, max_length, batch_size)
    with finished_folder(output) as folder:
        write_shards({"targets": corpora / "english.parquet"}, folder, make, workers)
        write_json(folder / "columns.json", len(load(AutoTokenizer, checkpoint, trust)))


def _encoder(checkpoint: Path, trust: bool, max_length: int, batch_size: int, worker: int, workers: int) -> Convert:
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    devices = torch.cuda.device_count()
    teacher = Teacher(checkpoint, f"cuda:{worker % devices}" if devices else "cpu", trust)

    def convert(batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = batch.column("english").to_pylist()
        return to_batch(
            in_text_order(teacher.iter_rows(texts, max_length, batch_size), teacher.head.decoder.out_features)
        )

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

    def rows(self, texts: np.ndarray) -> scipy.sparse.csr_array:
        """Pivot weights of some texts, N×V_e."""
        row, term, weight = self.cells(texts)
        return scipy.sparse.csr_array((weight, (row, term)), shape=(len(texts), self.columns))
