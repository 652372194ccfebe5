"""The way of the paper's code, from its formulas: what the benchmarks hold this project's way against.

Random batches, every text padded to the longest of its batch (Stage 1) or to the maximum (Stage 2), all B×L×V logits
at once, the teacher on the fly.
"""

import torch
from torch import Tensor, nn

from milco.modeling.head import plain_pooled_logits
from milco.modeling.model import MilcoModel, Views


def views(model: MilcoModel, ids: Tensor, mask: Tensor) -> Views:
    """Both views of B texts, in one pass, with the plain head."""
    states = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    head = model.pivot_head
    transformed = head.norm(nn.functional.gelu(head.dense(nn.functional.gelu(model.connector(states)))))
    if torch.is_autocast_enabled("cpu"):
        transformed = transformed.bfloat16()
    weight, bias = head.decoder.weight.to(transformed.dtype), head.decoder.bias.to(transformed.dtype)
    pooled = plain_pooled_logits(transformed, weight, bias, mask.bool())
    if model.echo is None:
        return Views(pooled, None)
    weights = model.config.echo_scale * torch.relu(model.echo(states).squeeze(-1).float())
    content = mask.bool() & ~torch.isin(ids, torch.tensor(model.config.special_token_ids))
    return Views(pooled, torch.where(content, weights, 0.0))


def padded(texts: list, pad_id: int, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Ids and mask of texts, padded to the longest of them or to a length."""
    length = length or max(map(len, texts))
    ids, mask = torch.full((len(texts), length), pad_id), torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
    return ids, mask
