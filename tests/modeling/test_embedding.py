"""Gradients of the embedding table, added in place, beside torch's own."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from milco.modeling.embedding import add_gradients_in_place


@pytest.mark.parametrize("padding_idx", [None, 1])
@pytest.mark.parametrize("again", [False, True])
def test_gradients_of_several_passes_are_those_of_torch(padding_idx, again):
    torch.manual_seed(0)
    plain = nn.Embedding(50, 8, padding_idx)
    ours = copy.deepcopy(plain)
    add_gradients_in_place(ours)
    for shape in ((3, 5), (1, 1), (4, 7)):
        ids, wanted = torch.randint(0, 50, shape), torch.randn(*shape, 8)
        ids[0, 0] = 1
        for table in (plain, ours):
            rows = checkpoint(table, ids, use_reentrant=False) if again else table(ids)
            torch.testing.assert_close(rows, plain.weight[ids])
            (rows * wanted).sum().backward()
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad)
    assert (ours.weight.grad.abs().sum(dim=1) == 0).any()
    ours.weight.grad = None
    ours(torch.tensor([3])).sum().backward()
    assert ours.weight.grad.abs().sum(dim=1).nonzero().tolist() == [[3]]


def test_a_bfloat16_pass_leaves_the_gradient_in_the_precision_of_the_table():
    table = nn.Embedding(9, 4)
    add_gradients_in_place(table)
    layer = nn.Linear(4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        layer(table(torch.tensor([[2, 3]]))).sum().backward()
    assert table.weight.grad.dtype == torch.float32 and table.weight.grad[[2, 3]].abs().min() > 0
