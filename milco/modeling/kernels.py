"""Triton kernels of the pooled head: no logit is written to memory, and no sum depends on the order of threads.

TRITON_INTERPRET=1 runs them slowly on a CPU, which the tests use without a GPU.
"""

import torch
from torch import Tensor

try:  # in a block of its own: transformers wants all other imports of a model's code on the Hub to be installed
    import triton
    import triton.language as tl
except ImportError:
    raise

TOKENS, TERMS, DEPTH = 64, 128, 128  # tile of one program, and how many bytes of the width it multiplies at a time
WARPS = 8  # their registers hold the tile; with four, a part of it would be in memory


@triton.jit
def _larger(one, other):
    """Maximum that propagates NaN, so that a diverged model is noticed."""
    return tl.maximum(one, other, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _best_kernel(
    hidden, weight, mask, pooled, winners, length, terms, width,
    TOKENS: tl.constexpr, TERMS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, KEEP: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """One text and TERMS terms: walks over the text's tokens, keeps the maxima and the positions that made them."""
    text = tl.program_id(0).to(tl.int64)
    term = tl.program_id(1) * TERMS + tl.arange(0, TERMS)
    inside = term < terms
    best = tl.full((TERMS,), float("-inf"), SUM)
    where = tl.zeros((TERMS,), tl.int32)
    for first in range(0, length, TOKENS):
        token = first + tl.arange(0, TOKENS)
        valid = tl.load(mask + text * length + token, mask=token < length, other=0) != 0
        logits = tl.zeros((TOKENS, TERMS), SUM)
        for start in range(0, width, DEPTH):
            depth = start + tl.arange(0, DEPTH)
            states = tl.load(
                hidden + (text * length + token)[:, None] * width + depth[None, :],
                mask=valid[:, None] & (depth < width)[None, :], other=0.0,
            )  # fmt: skip
            words = tl.load(
                weight + term.to(tl.int64)[None, :] * width + depth[:, None],
                mask=inside[None, :] & (depth < width)[:, None], other=0.0,
            )  # fmt: skip
            logits = tl.dot(states, words, logits, input_precision=PRECISION, out_dtype=SUM)
        logits = tl.where(valid[:, None], logits, float("-inf"))
        highest = tl.reduce(logits, 0, _larger)
        if KEEP:
            ordered = tl.where(logits == logits, logits, float("inf"))
            first_of_them = first + tl.argmax(ordered, axis=0, tie_break_left=True)
            where = tl.where((highest > best) | ((highest != highest) & (best == best)), first_of_them, where)
        best = _larger(best, highest)
    tl.store(pooled + text * terms + term, best.to(pooled.dtype.element_ty), mask=inside)
    if KEEP:
        tl.store(winners + text * terms + term, where, mask=inside)


@triton.jit
def _multiply_kernel(indptr, columns, values, dense, out, width, DEPTH: tl.constexpr, SUM: tl.constexpr):
    """One row of a CSR matrix times a dense one, its cells one after the other."""
    row = tl.program_id(0).to(tl.int64)
    depth = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    total = tl.zeros((DEPTH,), SUM)
    for cell in range(tl.load(indptr + row), tl.load(indptr + row + 1)):
        source = tl.load(dense + tl.load(columns + cell).to(tl.int64) * width + depth, mask=depth < width, other=0.0)
        total += tl.load(values + cell).to(SUM) * source.to(SUM)
    tl.store(out + row * width + depth, total, mask=depth < width)


def best(hidden: Tensor, weight: Tensor, mask: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    """`Implementation.best` in Triton: hidden B×L×D, weight V×D, mask B×L → the B×V largest products over the positions
    of a text, and if `keep` the B×V winning positions (int32)."""
    texts, length, width = hidden.shape
    pooled = hidden.new_empty(texts, len(weight))
    winners = torch.empty(texts, len(weight), dtype=torch.int32, device=hidden.device) if keep else None
    allowed = _tf32_is_allowed() and hidden.dtype == torch.float32
    if not hidden.is_cuda and hidden.dtype == torch.bfloat16:  # Triton's interpreter takes them for integers
        hidden, weight = hidden.float(), weight.float()
    # Neighbouring programs share their terms, so that the large weight need not be read again for each text.
    grid = (texts, triton.cdiv(len(weight), TERMS))
    with torch.cuda.device_of(hidden):  # Triton starts a kernel on the current device, wherever the numbers are
        _best_kernel[grid](
            hidden.contiguous(), weight.contiguous(), mask.to(torch.int8).contiguous(), pooled,
            pooled if winners is None else winners, length, len(weight), width,
            TOKENS, TERMS, DEPTH // hidden.element_size(), "tf32" if allowed else "ieee", keep, _sum_type(hidden),
            num_warps=WARPS,
        )  # fmt: skip
    return pooled, winners


def multiply(indptr: Tensor, columns: Tensor, values: Tensor, dense: Tensor) -> Tensor:
    """`Implementation.multiply` in Triton: a CSR matrix N×M times M×D → N×D, of the type of `values`."""
    rows, width = len(indptr) - 1, dense.shape[1]
    out = torch.empty(rows, width, dtype=values.dtype, device=dense.device)
    block = min(1024, triton.next_power_of_2(width))
    grid = (rows, triton.cdiv(width, block))
    with torch.cuda.device_of(dense):
        _multiply_kernel[grid](indptr, columns, values, dense.contiguous(), out, width, block, _sum_type(values))
    return out


def _tf32_is_allowed() -> bool:
    """Whether torch allows TF32 in matrix products. Since torch 2.9, the older setting cannot be read once the newer
    one is set."""
    matmul = torch.backends.cuda.matmul
    return bool(matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32)


def _sum_type(values: Tensor):
    return tl.float64 if values.dtype == torch.float64 else tl.float32
