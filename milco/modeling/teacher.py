"""The English sparse retriever: targets of Stage 1, scores of Stage 2, and a baseline of the evaluation.

Always in evaluation mode, and a pad never enters the maximum: what it says of a text depends on that text alone.
"""

from collections.abc import Iterator
from pathlib import Path

import scipy.sparse
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from .checkpoints import load
from .pivot_head import PivotHead
from .rows import as_rows, padded_batches, pivot_cells


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
