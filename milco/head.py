"""The max-pooled vocabulary head: the largest logit that any token of a text gives to each vocabulary term.

The logits of a batch, B×L×V, are never held at once: the forward pass walks over slices of the vocabulary and
keeps the maximum alone, and the backward pass visits only the (text, term) cells that received a gradient.
Every loss of this project sends gradients to few cells, since a term that is inactive in a text has none.
"""

import torch
from torch import Tensor

VOCABULARY_SLICE = 1024  # B·L·1024 logits at a time stay near the processor's caches


class _PooledLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, mask)
        batch, length, width = hidden.shape
        pooled = torch.empty(batch, len(weight), dtype=hidden.dtype, device=hidden.device)
        flat = hidden.reshape(-1, width)
        pads = ~mask[:, :, None]
        padded = bool(pads.any())
        for start in range(0, len(weight), VOCABULARY_SLICE):
            part = slice(start, start + VOCABULARY_SLICE)
            logits = torch.addmm(bias[part], flat, weight[part].T).view(batch, length, -1)
            if padded:
                logits.masked_fill_(pads, -torch.inf)
            torch.amax(logits, dim=1, out=pooled[:, part])
        return pooled.masked_fill_(~mask.any(dim=1, keepdim=True), 0.0)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (gradient,) = grads
        hidden, weight, bias, mask = ctx.saved_tensors
        grad_hidden = torch.zeros_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        for text in range(len(hidden)):
            terms = gradient[text].nonzero().squeeze(1)
            if len(terms) == 0 or not mask[text].any():
                continue
            cells = gradient[text, terms]
            positions = mask[text].nonzero().squeeze(1)
            # The bias is the same at every position, so it has no part in which one wins.
            winners = positions[(hidden[text, positions] @ weight[terms].T).argmax(dim=0)]
            grad_hidden[text].index_add_(0, winners, cells[:, None] * weight[terms])
            if grad_weight is not None:
                grad_weight.index_add_(0, terms, cells[:, None] * hidden[text, winners])
            if grad_bias is not None:
                grad_bias.index_add_(0, terms, cells)
        return grad_hidden, grad_weight, grad_bias, None


def pooled_logits(hidden: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """Largest logit per vocabulary term over the valid positions of each text (paper, section 3; `T` max-pooled).

    Args:
        hidden: B×L×D, the head's transformed states.
        weight: V×D, the decoder; bias: V.
        mask: B×L boolean, true at valid positions. Pads never enter the maximum.

    Returns:
        B×V raw logits in the type of `hidden`; 0 throughout for a text without a valid position.
        Where several positions tie, the first one receives the gradient.
    """
    weight, bias = weight.to(hidden.dtype), bias.to(hidden.dtype)
    return _PooledLogits.apply(hidden, weight, bias, mask.bool())
