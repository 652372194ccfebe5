"""What the pooled head makes of numbers of less than float64: sums over many tiles, and TF32."""

import torch

from milco.modeling import head as module
from milco.modeling import kernels
from milco.modeling.head import pooled_logits


def test_the_dense_gradient_of_states_in_bfloat16_is_rounded_once(monkeypatch):
    monkeypatch.setattr(module, "SPARSE_CELL", 1e9)  # always the dense way
    monkeypatch.setattr(module, "DENSE_TERMS", 8)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 1, 16, generator=generator).bfloat16().requires_grad_()
    weight = torch.rand(4000, 16, generator=generator).bfloat16()
    mask = torch.ones(3, 1, dtype=torch.bool)
    pooled_logits(hidden, weight, torch.zeros(4000), mask, module.CHUNKED).sum().backward()
    wanted = weight.double().sum(dim=0).expand(3, 16)  # each text's only token wins every term
    torch.testing.assert_close(hidden.grad[:, 0].double(), wanted, rtol=2**-8, atol=0)


def test_tf32_may_be_set_by_either_name():
    assert not kernels._tf32_is_allowed()
    try:
        torch.set_float32_matmul_precision("high")
        assert kernels._tf32_is_allowed()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert not kernels._tf32_is_allowed()
    matmul = torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        return  # torch before 2.9 has the older name alone
    try:
        matmul.fp32_precision = "tf32"
        assert kernels._tf32_is_allowed()
    finally:
        matmul.fp32_precision = "ieee"
    assert not kernels._tf32_is_allowed()
