"""What the paper's code does, written from its formulas: the baseline of the benchmarks.

Random batches, every text padded to the longest of its batch (Stage 1) or to the maximum (Stage 2), all B×L×V logits
at once, the teacher on the fly.
"""

import scipy.sparse
import torch
from torch import Tensor, nn

from milco.modeling.head import plain_pooled_logits
from milco.modeling.losses import alignment_loss
from milco.modeling.model import MilcoModel, Views
from milco.training.batching import Batch
from milco.training.trainer import Loss


def views(model: MilcoModel, ids: Tensor, mask: Tensor) -> Views:
    """Both views of B texts, in one pass, with the plain head."""
    states = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    head = model.pivot_head
    connected = states if model.connector is None else nn.functional.gelu(model.connector(states))
    transformed = head.norm(nn.functional.gelu(head.dense(connected)))
    if torch.is_autocast_enabled(ids.device.type):
        transformed = transformed.bfloat16()
    weight, bias = head.decoder.weight.to(transformed.dtype), head.decoder.bias.to(transformed.dtype)
    pooled = plain_pooled_logits(transformed, weight, bias, mask.bool())
    if model.echo is None:
        return Views(pooled, None)
    weights = model.config.echo_scale * torch.relu(model.echo(states).squeeze(-1).float())
    content = mask.bool() & ~torch.isin(ids, torch.tensor(model.config.special_token_ids, device=ids.device))
    return Views(pooled, torch.where(content, weights, 0.0))


def padded(texts: list, pad_id: int, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Ids and mask of texts, padded to the longest of them or to a length."""
    length = length or max(map(len, texts))
    ids, mask = torch.full((len(texts), length), pad_id), torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
    return ids, mask


def target(teacher: nn.Module, texts: dict[str, Tensor]) -> Tensor:
    """What the teacher, a masked language model, says of a batch of its own ids."""
    with torch.no_grad():
        logits = teacher(**texts).logits.float()
    return logits.masked_fill(texts["attention_mask"][:, :, None] == 0, -torch.inf).amax(dim=1).relu()


def alignment(model: MilcoModel, sides: list[list], pad_id: int, wanted: Tensor, kind: str) -> Tensor:
    """The loss of Stage 1: both sides of B pairs, as lists of ids, against B×V_e targets."""
    total = torch.zeros((), device=model.device)
    for texts in sides:
        found = views(model, *(values.to(model.device) for values in padded(texts, pad_id)))
        total = total + alignment_loss(found.pooled, wanted, kind).mean()
    return total


def distillation(model: MilcoModel, batch: Batch, lengths: tuple[int, int], pad_id: int, loss: Loss) -> Tensor:
    """The loss of Stage 2: queries and documents of a batch, each padded to its maximum."""
    queries = len(batch["scores"])
    found = []
    longest = max(lengths)
    for rows, length in ((slice(0, queries), lengths[0]), (slice(queries, None), lengths[1])):
        ids, mask = (widened(batch[name][rows], length, fill)
                     for name, fill in (("input_ids", pad_id), ("attention_mask", 0)))  # fmt: skip
        found.append(views(model, ids, mask))
    source = [widened(view.source, longest, 0.0) for view in found if view.source is not None]
    both = Views(torch.cat([view.pooled for view in found]), torch.cat(source) if source else None)
    return summed(loss(both, {**batch, "input_ids": widened(batch["input_ids"], longest, pad_id)}))


def widened(values: Tensor, length: int, fill) -> Tensor:
    """Rows cut or filled up to a length; a query has nothing but pads behind its own length."""
    return nn.functional.pad(values[:, :length], (0, max(0, length - values.shape[1])), value=fill)


def summed(terms: dict[str, Tensor]) -> Tensor:
    """The loss of a step."""
    return sum(value for name, value in terms.items() if name.startswith("loss_"))


@torch.no_grad()
def rows(model: MilcoModel, texts: list, pad_id: int, size: int) -> scipy.sparse.csr_array:
    """Sparse rows of texts, as lists of ids: dense ones, brought to the processor and made sparse there."""
    made = []
    for start in range(0, len(texts), size):
        ids, mask = (values.to(model.device) for values in padded(texts[start : start + size], pad_id))
        found = views(model, ids, mask)
        source = torch.zeros(len(ids), model.config.source_vocab_size, device=ids.device)
        source.scatter_add_(1, ids, found.source)
        made.append(scipy.sparse.csr_array(torch.cat([found.pivot.float(), source], dim=1).cpu().numpy()))
    return scipy.sparse.vstack(made, format="csr")
