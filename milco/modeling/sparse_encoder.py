"""A MILCO model as the one module of a `SparseEncoder` of sentence-transformers.

    encoder = SparseEncoder("results/demo/model", trust_remote_code=True)
    encoder.decode(encoder.encode_query("Wie setze ich mein Passwort zurück?"))  # [("e_password", 1.9), …]

`milco export` writes a copy of this file beside the model; sentence-transformers finds it through modules.json.
"""

import copy
from collections.abc import Sequence
from typing import Any

import scipy.sparse
import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .model import MilcoModel
from .pruning import budget_of, prune
from .rows import padded
from .texts import token_ids


class MilcoEncoder(InputModule):
    """Texts → rows of `MilcoModel`, dense: B×(V_e+V_m).

    Attributes:
        max_seq_length: tokens at which any text is cut; queries are cut at the model's `query_max_length` as well.
    """

    forward_kwargs = {"task"}  # noqa: RUF012 (what sentence-transformers asks for)

    def __init__(self, model: MilcoModel):
        super().__init__()
        self.model = model
        self.max_seq_length = model.config.passage_max_length

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The multilingual tokenizer, except that it decodes columns of a representation instead of its own ids:
        `SparseEncoder.decode` asks it for these names."""
        tokenizer = copy.copy(self.model.tokenizer)
        tokenizer.convert_ids_to_tokens = lambda columns: [self.model.column_name(column) for column in columns]
        return tokenizer

    def preprocess(
        self, inputs: Sequence[str], prompt: str | None = None, task: str | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Texts → B×L ids and mask; `task` is "query", "document" or None; None is cut as a document."""
        longest = self.max_seq_length
        if task == "query":
            longest = min(longest, self.model.config.query_max_length)
        texts = [(prompt or "") + text for text in inputs]
        tokenizer = self.model.tokenizer
        return padded(tokenizer, token_ids(tokenizer, texts, longest))

    def forward(self, features: dict[str, Tensor], task: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """Ids and mask → the same with `sentence_embedding`, B×(V_e+V_m), pruned to the model's budget outside of
        training."""
        ids = features["input_ids"]
        views = self.model(ids, features["attention_mask"])
        source = torch.zeros(len(ids), self.model.config.source_vocab_size, device=ids.device)
        if views.source is not None:
            source = source.scatter_add(1, ids, views.source)
        rows, config = torch.cat([views.pivot, source], dim=1), self.model.config
        budget = budget_of(config.query_budgets if task == "query" else config.document_budgets)
        if budget != "none" and not torch.is_grad_enabled():
            kept = prune(scipy.sparse.csr_array(rows.cpu().numpy()), budget)
            rows = torch.from_numpy(kept.toarray()).to(rows.device)
        return {**features, "sentence_embedding": rows}

    def get_embedding_dimension(self) -> int:
        """V_e + V_m."""
        return self.model.width

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the model and its tokenizers."""
        self.model.save_pretrained(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> "MilcoEncoder":
        """Read a folder that `milco export` wrote, or such a repository of the Hub."""
        model = MilcoModel.from_pretrained(
            model_name_or_path,
            token=token,
            cache_dir=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
            **(model_kwargs or {}),
        )
        return cls(model)
