"""Rows of all processes, for losses that look at the whole global batch."""

import torch
from torch import Tensor, distributed
from torch.nn.functional import pad


def from_all_processes(rows: Tensor) -> Tensor:
    """Rows B×… of every process below each other, the first one's first: (W·B)×…, with gradients to all of them.

    A second dimension may be of different length in each process and is filled up with zeros.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows  # gloo would copy them in a thread of its own, after which OpenMP lets all threads sleep and wake
    if rows.dim() > 1:
        longest = torch.tensor(rows.shape[1], device=rows.device)
        distributed.all_reduce(longest, op=distributed.ReduceOp.MAX)
        rows = pad(rows, (0, int(longest) - rows.shape[1]))
    return _Gather.apply(rows)


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass sums what all processes want of a row."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        return gradient.chunk(distributed.get_world_size())[distributed.get_rank()]
