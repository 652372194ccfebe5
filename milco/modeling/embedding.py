"""Embedding lookup whose gradient costs time in proportion to the texts, not to the vocabulary.

torch builds a gradient of the whole table in every backward pass. A step has many small passes (batching.py), and a
multilingual table has 250,000 rows, of which a pass reads a few hundred. Here only those rows are updated, in the
single gradient that the optimizer reads.
"""

import torch
from torch import Tensor, nn


def add_gradients_in_place(table: nn.Embedding) -> None:
    """Make lookups in a trained table add their gradients to `table.weight.grad` row by row."""
    table.forward = lambda input: _Lookup.apply(table.weight, input, table.padding_idx)  # type: ignore[method-assign]


class _Lookup(torch.autograd.Function):
    """V×d table, ids of any shape → …×d rows; as in torch, `padding_idx` has no gradient."""

    @staticmethod
    def forward(ctx, table: nn.Parameter, ids: Tensor, padding_idx: int | None) -> Tensor:
        ctx.table, ctx.padding_idx = table, padding_idx
        ctx.save_for_backward(ids)
        return nn.functional.embedding(ids, table)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, None, None]:
        (ids,) = ctx.saved_tensors
        used, place = ids.unique(return_inverse=True)
        # Unlike index_add_, this sums the rows of an id in the same order on every device and in every run.
        rows = torch.ops.aten.embedding_dense_backward(gradient, place, len(used), -1, False)
        if ctx.padding_idx is not None:
            rows[used == ctx.padding_idx] = 0
        if ctx.table.grad is None:
            ctx.table.grad = torch.zeros_like(ctx.table)
        ctx.table.grad[used] += rows
        return None, None, None  # DDP's hook takes what lies in the table's grad
