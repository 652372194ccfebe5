"""Losses and regularizers against loops over their formulas."""

import math

import numpy as np
import pytest
import torch

from milco.modeling.losses import (
    SLOPE,
    alignment_loss,
    contrastive_loss,
    distillation_loss,
    own_scores,
    source_scores,
    sparse_regularizer,
    stored_scores,
)

KINDS = ["active", "mass"]


def draw_logits(seed=0, texts=6, terms=15):
    """Raw pooled logits of a student, and of a teacher as a positives-only cache gives them back."""
    random = np.random.default_rng(seed)
    pooled = random.normal(-0.3, 1.5, (texts, terms))
    target = np.maximum(random.normal(-0.5, 1.5, (texts, terms)), 0)
    return torch.tensor(pooled, dtype=torch.float32, requires_grad=True), torch.tensor(target, dtype=torch.float32)


def naive_active(student, teacher):
    """Mean of (r - t)² over the terms with r > 0 or t > 0."""
    squares = [(r - t) ** 2 for r, t in zip(student, teacher, strict=True) if r > 0 or t > 0]
    return sum(squares) / len(squares) if squares else 0.0


def naive_mass(student, teacher):
    """Squared distance of the pivot weights over the same terms, per unit of the teacher's weight."""
    total = 0.0
    for r, t in zip(student, teacher, strict=True):
        if r > 0 or t > 0:
            weight = math.log1p(r) if r > 0 else SLOPE * r
            total += (weight - math.log1p(t)) ** 2
    return total / max(1.0, sum(math.log1p(t) for t in teacher))


@pytest.mark.parametrize(("kind", "naive"), [("active", naive_active), ("mass", naive_mass)])
@pytest.mark.parametrize("seed", range(3))
def test_alignment_loss_equals_its_formula(kind, naive, seed):
    pooled, target = draw_logits(seed)
    wanted = [naive(r, t) for r, t in zip(pooled.tolist(), target.tolist(), strict=True)]
    np.testing.assert_allclose(alignment_loss(pooled, target, kind).tolist(), wanted, rtol=1e-5)


def test_the_paper_s_alignment_loss_is_the_default():
    pooled, target = draw_logits()
    assert torch.equal(alignment_loss(pooled, target), alignment_loss(pooled, target, "active"))
    assert not torch.allclose(alignment_loss(pooled, target), alignment_loss(pooled, target, "mass"))


def test_gradient_of_the_active_loss_is_that_of_its_formula():
    pooled, target = draw_logits()
    (found,) = torch.autograd.grad(alignment_loss(pooled, target, "active").sum(), pooled)
    active = (pooled > 0) | (target > 0)
    wanted = 2 * (pooled - target) * active / active.sum(dim=1, keepdim=True)
    torch.testing.assert_close(found, wanted.detach())


def test_gradient_of_the_mass_loss_equals_finite_differences_of_its_formula():
    pooled, target = draw_logits()
    (found,) = torch.autograd.grad(alignment_loss(pooled, target, "mass").sum(), pooled)
    rows, step = target.tolist(), 1e-6
    for text, row in enumerate(pooled.tolist()):
        for term in range(len(row)):
            up, down = list(row), list(row)
            up[term] += step
            down[term] -= step
            slope = (naive_mass(up, rows[text]) - naive_mass(down, rows[text])) / (2 * step)
            assert found[text, term].item() == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wanted_term_has_a_gradient_while_it_is_inactive_and_an_unwanted_one_has_none(kind):
    pooled = torch.tensor([[-2.0, -2.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(alignment_loss(pooled, torch.tensor([[1.5, 0.0]]), kind).sum(), pooled)
    assert gradient[0, 0] < 0
    assert gradient[0, 1] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_without_active_terms_costs_nothing_and_has_no_gradient(kind):
    pooled = torch.tensor([[-1.0, -2.0, 0.0], [1.0, -1.0, 2.0]], requires_grad=True)
    target = torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    losses = alignment_loss(pooled, target, kind)
    assert losses[0] == 0 and losses[1] > 0
    (gradient,) = torch.autograd.grad(losses.sum(), pooled)
    assert (gradient[0] == 0).all()
    assert torch.isfinite(gradient).all() and (gradient[1] != 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_equal_student_costs_nothing(kind):
    _, target = draw_logits()
    losses = alignment_loss(torch.where(target > 0, target, -1.0), target, kind)
    np.testing.assert_allclose(losses, 0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_alignment_in_bfloat16_is_reckoned_in_float32(kind):
    pooled, target = draw_logits()
    pooled = pooled.detach().bfloat16()
    assert torch.equal(alignment_loss(pooled, target, kind), alignment_loss(pooled.float(), target, kind))


def draw_source(seed=0, queries=3, documents=12, query_length=5, document_length=9, ids=6):
    """Few ids, so that they repeat within texts; a third of the weights is 0, as at pads and special tokens."""
    random = torch.Generator().manual_seed(seed)
    parts = []
    for shape in ((queries, query_length), (documents, document_length)):
        weights = torch.rand(shape, generator=random) * (torch.rand(shape, generator=random) > 0.33)
        parts += [torch.randint(ids, shape, generator=random), weights.requires_grad_()]
    return parts


def explicit_source_scores(query_ids, query_weights, document_ids, document_weights, ids=6):
    """The views with all V_m columns, each the sum of the weights of its id, and their inner products."""

    def views(text_ids, weights):
        return (torch.nn.functional.one_hot(text_ids, ids) * weights[:, :, None]).sum(dim=1)

    queries, documents = views(query_ids, query_weights), views(document_ids, document_weights)
    return torch.stack([torch.stack([query @ document for document in documents]) for query in queries])


@pytest.mark.parametrize("seed", range(3))
def test_source_scores_are_inner_products_of_views_with_all_columns(seed):
    parts = draw_source(seed)
    torch.testing.assert_close(source_scores(*parts), explicit_source_scores(*parts))


def test_gradients_of_source_scores_are_those_of_views_with_all_columns():
    parts = draw_source()
    cells = torch.randn(3, 12, generator=torch.Generator().manual_seed(5))
    leaves = [parts[1], parts[3]]
    ours, plain = (
        torch.autograd.grad((function(*parts) * cells).sum(), leaves)
        for function in (source_scores, explicit_source_scores)
    )
    torch.testing.assert_close(ours, plain)


def test_more_padding_changes_no_source_score():
    query_ids, query_weights, document_ids, document_weights = draw_source()
    wanted = source_scores(query_ids, query_weights, document_ids, document_weights)
    pad = torch.nn.functional.pad  # the pads of both sides have the same id and must not meet
    padded = source_scores(
        pad(query_ids, (0, 2), value=1),
        pad(query_weights, (0, 2)),
        pad(document_ids, (0, 3), value=1),
        pad(document_weights, (0, 3)),
    )
    torch.testing.assert_close(padded, wanted)


def test_scores_of_stored_texts_are_products_with_their_dense_views_and_have_their_gradients():
    """Five texts, of which the second and the last have no term."""
    random = np.random.default_rng(3)
    dense = torch.from_numpy(random.random((5, 9)) * (random.random((5, 9)) < 0.4))
    dense[1] = dense[4] = 0
    row, term = dense.nonzero(as_tuple=True)
    views = [torch.from_numpy(random.random((4, 9))).requires_grad_() for _ in range(2)]
    views[1].data.copy_(views[0].data)
    scores = stored_scores(views[0], row, term, dense[row, term], len(dense)), views[1] @ dense.T
    torch.testing.assert_close(*scores)
    wanted = torch.from_numpy(random.random((4, 5)))
    for found in scores:
        (found * wanted).sum().backward()
    torch.testing.assert_close(views[0].grad, views[1].grad)


@pytest.mark.parametrize(("queries", "per_query"), [(1, 4), (3, 1), (3, 4)])
def test_own_scores_are_those_of_a_query_with_the_documents_in_its_row(queries, per_query):
    scores = torch.rand(queries, queries * per_query, generator=torch.Generator().manual_seed(0))
    wanted = [[float(scores[b, b * per_query + n]) for n in range(per_query)] for b in range(queries)]
    assert own_scores(scores).tolist() == wanted


def naive_contrastive(scores, documents):
    """Minus the logarithm of the positive's share among itself and all other texts of the batch."""
    per_query, losses = len(documents) // len(scores), []
    for b, row in enumerate(scores):
        positive = b * per_query
        others = [score for d, score in enumerate(row) if documents[d] != documents[positive]]
        losses.append(-math.log(math.exp(row[positive]) / sum(map(math.exp, [row[positive], *others]))))
    return losses


@pytest.mark.parametrize("per_query", [1, 2, 4])
def test_contrastive_loss_equals_its_formula(per_query):
    scores = torch.randn(3, 3 * per_query, generator=torch.Generator().manual_seed(0))
    documents = torch.arange(3 * per_query)
    positive = torch.arange(3) * per_query
    losses = contrastive_loss(scores, positive, documents)
    np.testing.assert_allclose(losses, naive_contrastive(scores.tolist(), documents.tolist()), rtol=1e-5)


def test_copies_of_its_positive_are_no_negatives_of_a_query_but_stay_those_of_the_others():
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    documents = torch.tensor([7, 1, 7, 2, 3, 7])  # text 7: positive of two queries and negative of the third
    losses = contrastive_loss(scores, torch.tensor([0, 2, 4]), documents)
    np.testing.assert_allclose(losses.detach(), naive_contrastive(scores.tolist(), documents.tolist()), rtol=1e-5)
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    assert torch.isfinite(gradient).all()
    assert (gradient == 0).tolist() == [
        [False, False, True, False, False, True],
        [True, False, False, False, False, True],
        [False, False, False, False, False, False],
    ]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_distillation_loss_is_the_divergence_that_torch_knows(temperature):
    random = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(4, 6, generator=random), 5 * torch.randn(4, 6, generator=random)
    losses = distillation_loss(student, teacher, temperature)
    wanted = torch.nn.functional.kl_div(
        torch.log_softmax(student, dim=1), torch.softmax(teacher / temperature, dim=1), reduction="none"
    ).sum(dim=1)
    torch.testing.assert_close(losses, wanted)
    batchmean = torch.nn.functional.kl_div(
        torch.log_softmax(student, dim=1), torch.softmax(teacher / temperature, dim=1), reduction="batchmean"
    )
    torch.testing.assert_close(losses.mean(), batchmean)


def test_distillation_loss_is_zero_for_equal_scores_and_positive_for_others():
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([[3.0], [0.0], [-1.0], [50.0]])  # of all scores of a query: the ranking is the same
    torch.testing.assert_close(distillation_loss(scores + shift, scores), torch.zeros(4), rtol=0, atol=1e-5)
    assert (distillation_loss(scores.flip(1), scores) > 0.01).all()


def test_gradient_of_the_distillation_loss_is_the_difference_of_the_softmaxes():
    random = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(4, 6, generator=random).requires_grad_(), torch.randn(4, 6, generator=random)
    (found,) = torch.autograd.grad(distillation_loss(student, teacher).sum(), student)
    torch.testing.assert_close(found, torch.softmax(student.detach(), dim=1) - torch.softmax(teacher, dim=1))


def test_a_teacher_score_far_below_the_others_gives_a_finite_loss():
    student = torch.zeros(1, 3, requires_grad=True)
    loss = distillation_loss(student, torch.tensor([[1000.0, 0.0, -1000.0]])).sum()
    assert loss.item() == pytest.approx(math.log(3), rel=1e-5)
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_l1_is_the_mean_over_texts_of_the_sum_of_weights():
    pivot = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.5]])
    assert sparse_regularizer(pivot, "l1").item() == pytest.approx((3.0 + 0.5) / 2)


def test_flops_is_the_sum_over_terms_of_the_squared_mean_weight():
    pivot = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.5]])
    assert sparse_regularizer(pivot, "flops").item() == pytest.approx(0.5**2 + 1.25**2)
