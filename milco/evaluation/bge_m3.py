"""The sparse weights of BGE-M3 (2402.03216, section 3.2), and of models that FlagEmbedding trains from it, as a system
that is measured. FlagEmbedding calls them lexical weights.

    config.json, weights, tokenizer    the encoder, as transformers loads it
    sparse_linear.pt                   a linear layer: state of a token → its weight

A row has a column for each token of the multilingual vocabulary. Its weight is the highest among the places where the
token occurs; special tokens have none. A score is the inner product of a query row and a document row; both use the
same model.
"""

from collections.abc import Iterator
from pathlib import Path

import scipy.sparse
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from milco.data.hub import SPARSE_LAYER
from milco.errors import MilcoError
from milco.modeling.authors_layout import read_tensors
from milco.modeling.checkpoints import load
from milco.modeling.rows import as_rows, padded_batches


class BgeM3Sparse:
    """The model in a folder.

    Raises:
        MilcoError: the folder has no such layer, or one for states of another width.
    """

    def __init__(self, folder: Path, device: str, trust_remote_code: bool):
        self.device = device
        self.tokenizer = load(AutoTokenizer, folder, trust_remote_code)
        self.encoder = load(AutoModel, folder, trust_remote_code).eval().to(device)
        self.layer = _layer(folder / SPARSE_LAYER, self.encoder.config.hidden_size).to(device)
        self.width = max(self.encoder.config.vocab_size, len(self.tokenizer))
        special = [getattr(self.tokenizer, f"{kind}_token_id") for kind in ("cls", "eos", "pad", "unk")]
        self.special = torch.tensor([token for token in special if token is not None], device=device)

    def iter_rows(
        self, texts: list[str], max_length: int, batch_size: int, cut: list[int] | None = None
    ) -> Iterator[tuple[list[int], scipy.sparse.csr_array]]:
        """Positions of a batch of texts and their rows (B×V_m); positions of cut texts are added to `cut`."""
        for places, batch in padded_batches(self.tokenizer, texts, max_length, batch_size, cut):
            yield places, self._rows(**{name: values.to(self.device) for name, values in batch.items()})

    @torch.no_grad()
    def _rows(self, input_ids: Tensor, attention_mask: Tensor) -> scipy.sparse.csr_array:
        """B×L ids and mask → B×V_m."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = self.layer(states)[:, :, 0].float().relu()
        weights = weights.masked_fill(torch.isin(input_ids, self.special), 0.0)
        shape = (len(input_ids), self.width)
        highest = weights.new_zeros(shape).scatter_reduce_(1, input_ids, weights, "amax")
        rows, columns = highest.nonzero(as_tuple=True)
        return as_rows(rows, columns, highest[rows, columns], shape)


def _layer(file: Path, width: int) -> torch.nn.Linear:
    """The layer in a file that FlagEmbedding wrote."""
    if not file.exists():
        raise MilcoError(
            f"{file}: no such file, and the sparse weights of BGE-M3 are in it; a model without them may be of format "
            "sentence-transformers"
        )
    layer, tensors = torch.nn.Linear(width, 1), read_tensors(str(file))
    wanted, there = (
        {name: [*tensor.shape] for name, tensor in found.items()} for found in (layer.state_dict(), tensors)
    )
    if there != wanted:
        raise MilcoError(f"{file}: holds {there}, but this model wants {wanted}; take the file that belongs to it")
    layer.load_state_dict(tensors)
    return layer.requires_grad_(False)
