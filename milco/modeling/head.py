"""The max-pooled vocabulary head: the largest logit that any token of a text gives to each vocabulary term.

One interface, `pooled_logits`, and three implementations with equal values and gradients:

    plain     all B×L×V logits at once: the reference formula
    chunked   tiles of texts and terms that fit the cache; any device
    triton    one kernel that keeps each tile's maximum in registers (kernels.py); CUDA

The last two store the winning position of each (text, term) cell and send the gradient only there, by a sparse product
of at most B·V cells. For short texts in which most terms have a gradient, they use dense products, which are faster.
Both backward passes are deterministic.
"""

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

TILE_TOKENS, TILE_TERMS = 256, 2048  # 2 MB of logits in float32
DENSE_TERMS = 2048  # terms at a time of the dense backward pass
SPARSE_CELL = 32  # products in a dense matrix that take as long as one cell of a sparse one


class Implementation(NamedTuple):
    """Functions of one implementation: the maxima, and the product with a sparse matrix.

    best: (hidden B×L×D, weight V×D, mask B×L, keep) → (B×V largest products, B×V winning positions if `keep`).
    multiply: (indptr, columns, values of a CSR matrix N×M, dense M×D) → N×D in float32 or float64.
    """

    best: Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]
    multiply: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def plain_pooled_logits(hidden: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """`pooled_logits` as in the formula; needs memory for B·L·V numbers."""
    logits = hidden @ weight.T + bias
    pooled = logits.masked_fill(~mask[:, :, None], -torch.inf).max(dim=1).values
    return pooled.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


def _best_by_tiles(hidden: Tensor, weight: Tensor, mask: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    if hidden.dtype == torch.bfloat16 and not keep:
        return _largest_across_rows(hidden, weight, mask), None
    texts, length, width = hidden.shape
    pooled = hidden.new_empty(texts, len(weight))
    winners = torch.empty(texts, len(weight), dtype=torch.int32, device=hidden.device) if keep else None
    for rows, terms in _tiles(hidden, weight):
        states = hidden[rows]
        logits = (weight[terms] @ states.reshape(-1, width).T).view(-1, len(states), length)
        if not mask[rows].all():
            logits.masked_fill_(~mask[rows], -torch.inf)
        if winners is None:
            pooled[rows, terms] = logits.amax(dim=2).T
        else:
            values, positions = logits.max(dim=2)
            pooled[rows, terms], winners[rows, terms] = values.T, positions.T.int()
    return pooled, winners


def _largest_across_rows(hidden: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """The maxima, by tiles that have a row for each position. In bfloat16 this is several times faster; in float32 the
    product takes longer than the maxima save."""
    texts, length, width = hidden.shape
    pooled = hidden.new_empty(texts, len(weight))
    for rows, terms in _tiles(hidden, weight):
        states = hidden[rows].transpose(0, 1)
        logits = (states.reshape(-1, width) @ weight[terms].T).view(length, states.shape[1], -1)
        if not mask[rows].all():
            logits.masked_fill_(~mask[rows].T[:, :, None], -torch.inf)
        pooled[rows, terms] = logits.amax(dim=0)
    return pooled


def _tiles(hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, slice]]:
    """Some texts and some terms at a time."""
    together = max(1, TILE_TOKENS // max(1, hidden.shape[1]))
    for first in range(0, len(hidden), together):
        for start in range(0, len(weight), TILE_TERMS):
            yield slice(first, first + together), slice(start, start + TILE_TERMS)


def _multiply_by_torch(indptr: Tensor, columns: Tensor, values: Tensor, dense: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(indptr, columns, values, (len(indptr) - 1, len(dense)), check_invariants=False)
        return matrix @ dense


class _PooledLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, implementation: Implementation):
        pooled, winners = implementation.best(hidden, weight, mask, True)
        ctx.save_for_backward(hidden, weight, mask, winners)
        ctx.implementation = implementation
        return _finished(pooled, bias, mask)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        hidden, weight, mask, winners = ctx.saved_tensors
        gradient = grads[0].masked_fill(~mask.any(dim=1, keepdim=True), 0.0)
        wants_weight = ctx.needs_input_grad[1]
        if SPARSE_CELL * gradient.count_nonzero() < gradient.shape[1] * mask.numel():
            back = _sparse_backward(gradient, hidden, weight, winners, wants_weight, ctx.implementation.multiply)
        else:
            back = _dense_backward(gradient, hidden, weight, mask, winners, wants_weight)
        return *back, gradient.sum(dim=0) if ctx.needs_input_grad[2] else None, None, None


def _sparse_backward(gradient, hidden, weight, winners, wants_weight, multiply) -> tuple[Tensor, Tensor | None]:
    """Gradients of states and weight through a sparse B·L×V matrix of the winning cells."""
    texts, length, width = hidden.shape
    kind = torch.promote_types(hidden.dtype, torch.float32)
    text, term = gradient.nonzero(as_tuple=True)
    values = gradient[text, term].to(kind)
    state = text * length + winners[text, term]
    order = state.argsort(stable=True)
    starts = _starts(state, texts * length)
    grad_hidden = multiply(starts, term[order], values[order], weight.to(kind)).view(hidden.shape).to(hidden.dtype)
    if not wants_weight:
        return grad_hidden, None
    order = term.argsort(stable=True)
    states = hidden.reshape(-1, width).to(kind)
    return grad_hidden, multiply(_starts(term, len(weight)), state[order], values[order], states).to(weight.dtype)


def _starts(rows: Tensor, count: int) -> Tensor:
    """Row offsets (indptr) of a CSR matrix."""
    return torch.nn.functional.pad(torch.bincount(rows, minlength=count).cumsum(0), (1, 0))


def _dense_backward(gradient, hidden, weight, mask, winners, wants_weight) -> tuple[Tensor, Tensor | None]:
    """The same gradients by dense products, for some terms at a time."""
    flat = hidden.masked_fill(~mask[:, :, None], 0.0).reshape(-1, hidden.shape[2])  # what stands at a pad may be nan
    # In float32: in bfloat16 each of the tiles would round the sum again.
    grad_hidden = torch.zeros_like(flat, dtype=torch.promote_types(flat.dtype, torch.float32))
    grad_weight = torch.empty_like(weight) if wants_weight else None
    for start in range(0, len(weight), DENSE_TERMS):
        terms = slice(start, start + DENSE_TERMS)
        part = gradient[:, terms]
        cells = part.new_zeros(*hidden.shape[:2], part.shape[1])
        cells.scatter_(1, winners[:, None, terms].long(), part[:, None])
        cells = cells.view(len(flat), -1)
        grad_hidden += cells @ weight[terms]
        if grad_weight is not None:
            torch.mm(cells.T, flat, out=grad_weight[terms])
    return grad_hidden.to(hidden.dtype).view(hidden.shape), grad_weight


CHUNKED = Implementation(_best_by_tiles, _multiply_by_torch)


def pooled_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, implementation: Implementation | None = None
) -> Tensor:
    """Largest logit per vocabulary term over the valid positions of each text (paper, section 3; `T` max-pooled).

    Args:
        hidden: B×L×D, the head's transformed states.
        weight: V×D, the decoder; bias: V.
        mask: B×L boolean, true at valid positions. Pads never enter the maximum.
        implementation: by default Triton's on CUDA, where it is installed, and the chunked one elsewhere.

    Returns:
        B×V raw logits in the type of `hidden`; 0 throughout for a text without a valid position.
        Where several positions tie, the first one receives the gradient.
    """
    weight, bias, mask = weight.to(hidden.dtype), bias.to(hidden.dtype), mask.bool()
    implementation = implementation or _implementation_for(hidden)
    if torch.is_grad_enabled() and any(values.requires_grad for values in (hidden, weight, bias)):
        return _PooledLogits.apply(hidden, weight, bias, mask, implementation)
    # Without a backward pass, nobody asks which position won. (needs_input_grad would be true under no_grad, too.)
    pooled, _ = implementation.best(hidden, weight, mask, False)
    return _finished(pooled, bias, mask)


def _finished(products: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    return products.add_(bias).masked_fill_(~mask.any(dim=1, keepdim=True), 0.0)


def _implementation_for(hidden: Tensor) -> Implementation:
    if hidden.is_cuda and importlib.util.find_spec("triton"):
        from .kernels import best, multiply

        return Implementation(best, multiply)
    return CHUNKED
