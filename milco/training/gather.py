"""Collect rows (for losses over the whole global batch), means and objects from all processes."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, distributed
from torch.nn.functional import pad

T = TypeVar("T")


def processes() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def from_all_processes(rows: Tensor) -> Tensor:
    """Rows B×… of all W processes, one after the other: (W·B)×…, with gradients to all of them.

    The second dimension may differ between processes; it is filled up with zeros.
    """
    if processes() == 1:
        return rows  # gloo would copy them in a thread of its own, after which OpenMP lets all threads sleep and wake
    if rows.dim() > 1:
        longest = torch.tensor(rows.shape[1], device=rows.device)
        distributed.all_reduce(longest, op=distributed.ReduceOp.MAX)
        rows = pad(rows, (0, int(longest) - rows.shape[1]))
    return _Gather.apply(rows)


def mean_of_all_processes(values: Tensor) -> Tensor:
    """The mean over the processes of each value of a tensor (any shape), the same in all of them."""
    if processes() == 1:
        return values
    distributed.all_reduce(values)
    return values / processes()


def dealt_out(shares: Callable[[], list[T]]) -> T:
    """Scatter: the item for this process from the list that the first process provides."""
    if processes() == 1:
        return shares()[0]
    mine: list = [None]
    distributed.scatter_object_list(mine, shares() if distributed.get_rank() == 0 else None)
    return mine[0]


def from_everyone(value: T) -> list[T]:
    """Gather an object from every process, in rank order."""
    found: list = [value] * processes()
    if len(found) > 1:
        distributed.all_gather_object(found, value)
    return found


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass sums the gradients of a row from all processes."""

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
