"""The English sparse retriever: targets of Stage 1, scores of Stage 2, and a baseline of the evaluation.

It is always in evaluation mode, and pads never enter the maximum, so a text's logits depend on that text only.
"""

from collections.abc import Iterator
from pathlib import Path

import scipy.sparse
import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoTokenizer

from .checkpoints import load
from .pivot_head import PivotHead
from .rows import as_rows, padded_batches, pivot_cells


class Teacher:
    """A SPLADE model: text → raw pooled logits of the English vocabulary.

    Args:
        trust: whether the checkpoint's own code may be run.
    """

    def __init__(self, checkpoint: str | Path, device: str = "cpu", trust: bool = False):
        self.tokenizer = load(AutoTokenizer, checkpoint, trust)
        self.encoder = load(AutoModelForMaskedLM, checkpoint, trust).base_model.eval().to(device)
        self.head = PivotHead.from_teacher(checkpoint, trust).eval().to(device)
        # Special tokens except that of an unknown word: a text of these alone says nothing.
        self.marks = torch.tensor(sorted({*self.tokenizer.all_special_ids} - {self.tokenizer.unk_token_id}))

    @torch.no_grad()
    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """B×L ids and mask of its own tokenizer → B×V_e raw pooled logits, negative ones included."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.bool()
        words = mask & ~torch.isin(input_ids, self.marks.to(input_ids.device))
        return self.head(states, mask & words.any(dim=1, keepdim=True))

    def iter_rows(
        self, texts: list[str], max_length: int, batch_size: int, cut: list[int] | None = None
    ) -> Iterator[tuple[list[int], scipy.sparse.csr_array]]:
        """Encode texts from short to long, batch by batch: (their places in `texts`, CSR rows of V_e columns).

        The values are pivot weights log1p(relu(t)); `np.expm1` of them gives back the raw positive logits t. `cut`
        gets the places of texts that are longer than `max_length` tokens.
        """
        for places, batch in padded_batches(self.tokenizer, texts, max_length, batch_size, cut):
            pooled = self.pooled(**{name: values.to(self.encoder.device) for name, values in batch.items()})
            yield places, as_rows(*pivot_cells(pooled), (len(pooled), self.head.decoder.out_features))
