"""The English sparse retriever: targets of Stage 1, scores of Stage 2, and a baseline of the evaluation.

Always in evaluation mode, and a pad never enters the maximum: the target of a text depends on that text alone.

Run by rule `teacher`:  python -m milco teacher --config FILE --corpora FOLDER --teacher FOLDER --output FILE
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import scipy.sparse
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from milco.model import PivotHead, in_text_order, padded_batches, progress
from milco.vectors import save_vectors


class Teacher:
    """A SPLADE model: text → raw pooled logits of the English vocabulary, where they are positive."""

    def __init__(self, checkpoint: str | Path, device: str = "cpu"):
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.encoder = AutoModelForMaskedLM.from_pretrained(checkpoint).base_model.eval().to(device)
        self.head = PivotHead.from_teacher(checkpoint).eval().to(device)

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
            yield places, to_csr(torch.log1p(pooled.float().relu()))


def to_csr(dense: torch.Tensor) -> scipy.sparse.csr_array:
    """A dense tensor with few values that are not 0 as CSR."""
    sparse = dense.to_sparse_csr()
    parts = [part.cpu().numpy() for part in (sparse.values(), sparse.col_indices(), sparse.crow_indices())]
    return scipy.sparse.csr_array(tuple(parts), shape=tuple(dense.shape))


def write_targets(corpora: Path, checkpoint: Path, max_length: int, batch_size: int, output: Path) -> None:
    """Encode english.parquet of `corpora`, row by row, into the vector file `output`."""
    teacher = Teacher(checkpoint, "cuda" if torch.cuda.is_available() else "cpu")
    texts = pd.read_parquet(corpora / "english.parquet").english.tolist()
    parts = progress(teacher.iter_rows(texts, max_length, batch_size), "teacher", len(texts))
    rows = in_text_order(parts, teacher.head.decoder.out_features)
    save_vectors(output, rows, [str(row) for row in range(len(texts))])
