"""`pooled_logits` against the plain maximum over a B by L by V tensor, in float64: values and gradients."""

import functools
import sys

import pytest
import torch

from milco.modeling import head as module
from milco.modeling import kernels
from milco.modeling.head import CHUNKED, Implementation, plain_pooled_logits, pooled_logits

HEADS = {
    "chunked": functools.partial(pooled_logits, implementation=CHUNKED),
    "triton": functools.partial(pooled_logits, implementation=Implementation(kernels.best, kernels.multiply)),
}


@pytest.fixture(autouse=True, params=HEADS)
def head(request, monkeypatch) -> str:
    """Every test below is one of all implementations."""
    monkeypatch.setattr(sys.modules[__name__], "pooled_logits", HEADS[request.param])
    return request.param


def naive(hidden, weight, bias, mask):
    """`max over valid l of T[b, l, v]`, text by text; 0 where a text has no valid position."""
    rows = []
    for states, valid in zip(hidden, mask, strict=True):
        logits = states[valid] @ weight.T + bias
        rows.append(logits.max(dim=0).values if valid.any() else torch.zeros_like(bias))
    return torch.stack(rows)


def draw(batch=5, length=7, width=6, terms=23, seed=0):
    """Random leaves in float64, and a ragged mask with a text of one token and a full one."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, length, width), (terms, width), (terms,)
    hidden, weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    lengths[0], lengths[-1] = 1, length
    mask = torch.arange(length) < lengths[:, None]
    return [tensor.requires_grad_() for tensor in (hidden, weight, bias)], mask


def gradients(function, leaves, mask, weights):
    return torch.autograd.grad((function(*leaves, mask) * weights).sum(), leaves)


@pytest.mark.parametrize("seed", range(3))
def test_values_equal_the_plain_maximum_over_valid_positions(seed):
    leaves, mask = draw(seed=seed)
    torch.testing.assert_close(pooled_logits(*leaves, mask), naive(*leaves, mask), rtol=0, atol=1e-12)


@pytest.mark.parametrize("wanted", [True, False])
def test_winners_are_kept_only_for_a_gradient_to_come(wanted):
    leaves, mask = draw()
    asked = []

    def best(hidden, weight, mask, keep):
        asked.append(keep)
        return module.CHUNKED.best(hidden, weight, mask, keep)

    spy = module.Implementation(best, module.CHUNKED.multiply)
    with torch.set_grad_enabled(wanted):
        pooled = module.pooled_logits(*leaves, mask, spy)
    assert asked == [wanted] and pooled.requires_grad == wanted
    module.pooled_logits(*(leaf.detach() for leaf in leaves), mask, spy)
    assert asked[1:] == [False]


@pytest.mark.parametrize("seed", range(3))
def test_gradients_equal_those_of_the_plain_maximum(seed):
    leaves, mask = draw(seed=seed)
    weights = torch.randn(5, 23, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    ours = gradients(pooled_logits, leaves, mask, weights)
    torch.testing.assert_close(ours, gradients(naive, leaves, mask, weights), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sparse_cell", [0, 1e9])
def test_sparse_and_dense_products_send_the_same_gradients(monkeypatch, sparse_cell):
    monkeypatch.setattr(module, "SPARSE_CELL", sparse_cell)
    leaves, mask = draw(seed=6)
    weights = torch.randn(5, 23, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    weights *= torch.rand(5, 23, generator=torch.Generator().manual_seed(8)) < 0.3
    ours = gradients(pooled_logits, leaves, mask, weights)
    torch.testing.assert_close(ours, gradients(naive, leaves, mask, weights), rtol=0, atol=1e-12)


def test_gradients_through_the_pivot_view_equal_those_of_the_plain_maximum():
    # log1p(relu(.)) sends gradients to few cells: the case that the backward pass is written for
    leaves, mask = draw(seed=4)
    with torch.no_grad():
        leaves[2] -= 3
    ours, plain = (
        torch.autograd.grad(torch.log1p(torch.relu(function(*leaves, mask))).square().sum(), leaves)
        for function in (pooled_logits, naive)
    )
    assert 0 < (naive(*leaves, mask) > 0).float().mean() < 0.5
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)


def test_gradients_equal_finite_differences():
    leaves, mask = draw(batch=3, length=4, width=3, terms=5)
    assert torch.autograd.gradcheck(lambda *tensors: pooled_logits(*tensors, mask), leaves)


def test_the_plain_head_says_the_same():
    leaves, mask = draw()
    weights = torch.randn(5, 23, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    torch.testing.assert_close(plain_pooled_logits(*leaves, mask), naive(*leaves, mask), rtol=0, atol=1e-12)
    plain = gradients(plain_pooled_logits, leaves, mask, weights)
    torch.testing.assert_close(plain, gradients(naive, leaves, mask, weights), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("terms", "tokens"), [(1, 1), (2, 7), (5, 14), (22, 100), (23, 3), (24, 21), (1000, 1000)])
def test_the_tiles_change_nothing(monkeypatch, terms, tokens):
    for name, size in {"TILE_TERMS": terms, "DENSE_TERMS": terms, "TILE_TOKENS": tokens}.items():
        monkeypatch.setattr(module, name, size)
    leaves, mask = draw(seed=2)
    weights = torch.ones(5, 23, dtype=torch.float64)
    torch.testing.assert_close(pooled_logits(*leaves, mask), naive(*leaves, mask), rtol=0, atol=1e-12)
    ours = gradients(pooled_logits, leaves, mask, weights)
    torch.testing.assert_close(ours, gradients(naive, leaves, mask, weights), rtol=0, atol=1e-12)


@pytest.mark.parametrize("garbage", [1e6, float("inf"), float("nan")])
def test_what_stands_at_a_pad_has_no_effect(garbage):
    (hidden, weight, bias), mask = draw()
    wanted = naive(hidden, weight, bias, mask)
    dirty = torch.where(mask[:, :, None], hidden, garbage).detach().requires_grad_()
    pooled = pooled_logits(dirty, weight, bias, mask)
    torch.testing.assert_close(pooled, wanted, rtol=0, atol=1e-12)
    grad_hidden, grad_weight = torch.autograd.grad(pooled.sum(), [dirty, weight])
    assert (grad_hidden[~mask] == 0).all()
    torch.testing.assert_close(grad_weight, torch.autograd.grad(wanted.sum(), weight)[0], rtol=0, atol=1e-12)


def test_valid_positions_may_stand_anywhere():
    leaves, _ = draw()
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) < 0.4
    mask[:, 0], mask[:, 3] = False, True  # the first position is a pad everywhere, as with padding on the left
    weights = torch.ones(5, 23, dtype=torch.float64)
    torch.testing.assert_close(pooled_logits(*leaves, mask), naive(*leaves, mask), rtol=0, atol=1e-12)
    ours = gradients(pooled_logits, leaves, mask, weights)
    torch.testing.assert_close(ours, gradients(naive, leaves, mask, weights), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_the_mask_may_be_of_any_type(kind):
    leaves, mask = draw()
    torch.testing.assert_close(pooled_logits(*leaves, mask.to(kind)), naive(*leaves, mask), rtol=0, atol=1e-12)


@pytest.mark.parametrize("states", [0.7, float("nan")])  # nan: what attention over no position may leave behind
def test_a_text_without_valid_position_gives_zeros_and_gets_no_gradient(states):
    (hidden, weight, bias), mask = draw()
    with torch.no_grad():
        hidden[2] = states
    mask[2] = False
    pooled = pooled_logits(hidden, weight, bias, mask)
    assert (pooled[2] == 0).all()
    torch.testing.assert_close(pooled, naive(hidden, weight, bias, mask), rtol=0, atol=1e-12)
    found = torch.autograd.grad(pooled.sum(), [hidden, weight, bias])
    assert (found[0][2] == 0).all()
    others = [0, 1, 3, 4]
    wanted = torch.autograd.grad(naive(hidden[others], weight, bias, mask[others]).sum(), [weight, bias])
    torch.testing.assert_close(found[1:], wanted, rtol=0, atol=1e-12)


def test_a_batch_of_nothing_but_pads_gives_zeros():
    leaves, mask = draw()
    pooled = pooled_logits(*leaves, torch.zeros_like(mask))
    assert (pooled == 0).all()
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(pooled.sum(), leaves))


def test_one_position_is_a_linear_layer():
    (hidden, weight, bias), _ = draw(length=1)
    mask = torch.ones(5, 1, dtype=torch.bool)
    linear = torch.nn.functional.linear(hidden[:, 0], weight, bias)
    torch.testing.assert_close(pooled_logits(hidden, weight, bias, mask), linear, rtol=0, atol=1e-12)


def test_a_row_of_negative_logits_has_an_empty_pivot_view_and_no_gradient():
    (hidden, weight, bias), mask = draw()
    with torch.no_grad():
        bias -= 100
    pooled = pooled_logits(hidden, weight, bias, mask)
    assert (pooled < 0).all()  # and not 0, which a masked position would give
    pivot = torch.log1p(torch.relu(pooled))
    assert (pivot == 0).all()
    for gradient in torch.autograd.grad(pivot.sum(), [hidden, weight, bias]):
        assert (gradient == 0).all()


def test_tied_positions_share_one_gradient_and_the_first_of_them_receives_it():
    generator = torch.Generator().manual_seed(0)
    token = torch.randn(1, 1, 6, generator=generator, dtype=torch.float64)
    hidden = token.repeat(1, 4, 1).requires_grad_()
    weight = torch.randn(9, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[False, True, True, True]])
    cells = torch.randn(1, 9, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad((pooled_logits(hidden, weight, bias, mask) * cells).sum(), [hidden, weight, bias])
    torch.testing.assert_close(found[0].sum(dim=1), cells @ weight, rtol=0, atol=1e-12)
    assert (found[0][0, [0, 2, 3]] == 0).all()
    torch.testing.assert_close(found[1], cells.T @ token[:, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[2], cells[0], rtol=0, atol=0)


def test_a_frozen_head_passes_gradients_on_to_the_states():
    (hidden, weight, bias), mask = draw()
    (wanted,) = torch.autograd.grad(naive(hidden, weight, bias, mask).sum(), hidden)
    pooled_logits(hidden, weight.detach(), bias.detach(), mask).sum().backward()
    torch.testing.assert_close(hidden.grad, wanted, rtol=0, atol=1e-12)
    assert weight.grad is None and bias.grad is None


def test_the_order_of_texts_and_more_padding_change_nothing():
    (hidden, weight, bias), mask = draw()
    order = torch.tensor([3, 0, 4, 1, 2])
    wanted = naive(hidden, weight, bias, mask)
    longer = torch.cat([hidden, torch.full((5, 3, 6), 50.0, dtype=torch.float64)], dim=1)
    more_pads = torch.cat([mask, torch.zeros(5, 3, dtype=torch.bool)], dim=1)
    shuffled = pooled_logits(longer[order], weight, bias, more_pads[order])
    torch.testing.assert_close(shuffled, wanted[order], rtol=0, atol=1e-12)


def test_states_in_bfloat16_give_logits_in_bfloat16_and_float32_gradients_of_the_weights():
    leaves, mask = draw()
    hidden, weight, bias = (leaf.detach().float().requires_grad_() for leaf in leaves)
    pooled = pooled_logits(hidden.bfloat16(), weight, bias, mask)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled.double(), naive(*leaves, mask), rtol=0.02, atol=0.05)
    found = torch.autograd.grad(pooled.float().sum(), [hidden, weight, bias])
    assert {gradient.dtype for gradient in found} == {torch.float32}
    wanted = torch.autograd.grad(naive(*leaves, mask).sum(), leaves[2])[0]
    torch.testing.assert_close(found[2].double(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("terms", "tokens"), [(2, 7), (23, 14), (1000, 1000)])
@pytest.mark.parametrize("pads", [0.0, 0.6, 1.0])
def test_inference_in_bfloat16_finds_the_same_maxima(monkeypatch, terms, tokens, pads):
    for name, size in {"TILE_TERMS": terms, "TILE_TOKENS": tokens}.items():
        monkeypatch.setattr(module, name, size)
    leaves, _ = draw()
    hidden, weight, bias = (leaf.detach().mul(4).round().bfloat16() for leaf in leaves)  # small integers: exact
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(3)) >= pads
    mask[1] = False
    assert torch.equal(pooled_logits(hidden, weight, bias, mask), naive(hidden, weight, bias, mask))


@pytest.mark.parametrize("place", [0, 3, 6])
def test_what_is_no_number_at_a_valid_position_is_seen(place):
    (hidden, weight, bias), mask = draw()
    with torch.no_grad():
        hidden[4, place] = torch.nan
    leaves = hidden, weight, bias
    cells = torch.rand(5, 23, generator=torch.Generator().manual_seed(1)) < 0.2
    pooled = pooled_logits(*leaves, mask)
    assert pooled[4].isnan().all() and torch.equal(pooled.isnan(), naive(*leaves, mask).isnan())
    found = torch.autograd.grad(pooled, hidden, cells.double())[0]
    wanted = torch.autograd.grad(naive(*leaves, mask), hidden, cells.double())[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
