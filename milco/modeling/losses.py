"""Losses of both stages, and the regularizers that keep the pivot view sparse."""

import torch
from torch import Tensor

SLOPE = 0.3  # of the `mass` loss below 0: 1 learns as fast but leaves twice the terms active, 0.1 learns more slowly


def alignment_loss(pooled: Tensor, target: Tensor, kind: str = "active") -> Tensor:
    """Distance between a student's pivot view and its teacher's, over the terms that either of them uses.

    Args:
        pooled: B×V_e raw pooled logits of the student.
        target: B×V_e raw pooled logits of the teacher, 0 where they are not positive (`target: clamped`), or all as
            they are (`target: raw`, for `active`).
        kind: `active`, the paper's: per text the mean of (r - t)² over the terms with r > 0 or t > 0.
            `mass`: the squared distance of the pivot weights (log1p) over the same terms, summed and divided by the
            sum of the teacher's weights. The cost of a wrongly active term does not depend on the number of active
            terms, which makes short trainings sparse. Below 0 the student's log1p is continued as a line, so an
            inactive term that the teacher uses keeps a gradient.

    Returns:
        B losses; 0 for a text in which neither side has an active term (paper's code: NaN).
    """
    if kind == "active":
        squares, terms = squared_distances(pooled, target)
        return squares / terms.clamp(min=1)
    student, teacher, terms = _active(pooled, target)
    student, teacher = torch.log1p(student.relu()) + SLOPE * student.clamp(max=0), torch.log1p(teacher)
    return _sums((student - teacher).square(), terms) / _sums(teacher, terms).clamp(min=1)


def squared_distances(pooled: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """For each text the sum of (r - t)² over its active terms, and their number; a mean over any texts follows from
    both. Arguments as in `alignment_loss`."""
    student, teacher, terms = _active(pooled, target)
    return _sums((student - teacher).square(), terms), terms


def _active(pooled: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of both sides for the terms that either side uses, text by text, and how many terms these are.

    Few cells are active, and only these enter the loss.
    """
    active = (pooled > 0) | (target > 0)
    return pooled[active].float(), target[active].float(), active.sum(dim=1)


def _sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of runs of neighbouring values; `lengths` says how long each run is."""
    return torch.segment_reduce(values, "sum", lengths=lengths)


def source_scores(query_ids: Tensor, query_weights: Tensor, document_ids: Tensor, document_weights: Tensor) -> Tensor:
    """Inner products of source views, of all queries with all documents or of each with its own.

    A token that occurs several times has the sum of its weights. Only the queries get dense columns, for the ids that
    occur (at most V_m): nothing here has a cell for every pair of positions.

    Args:
        query_ids, query_weights: Q×L_q.
        document_ids, document_weights: D×L_d; or Q×N×L_d, the N documents of each query.

    Returns:
        Q×D scores; or Q×N.
    """
    ids = torch.cat([query_ids.flatten(), document_ids.flatten()])
    found, columns = torch.unique(ids, return_inverse=True)
    of_queries, of_documents = columns.tensor_split([query_ids.numel()])
    rows = torch.arange(len(query_ids), device=ids.device)[:, None]
    empty = query_weights.new_zeros(len(found), len(query_ids))
    views = empty.index_put((of_queries.view_as(query_ids), rows), query_weights, accumulate=True)
    if document_ids.dim() == 3:
        matched = views[of_documents.view(len(query_ids), -1), rows].view_as(document_weights)
        return (matched * document_weights).sum(dim=2)
    bags = of_documents.view_as(document_ids)
    return torch.nn.functional.embedding_bag(bags, views, per_sample_weights=document_weights, mode="sum").T


def stored_scores(pivot: Tensor, row: Tensor, term: Tensor, weight: Tensor, count: int) -> Tensor:
    """Inner products of pivot views with texts whose terms are stored.

    Args:
        pivot: B×V_e.
        row, term, weight: the stored terms, sorted by text: index of the text, index of the term, weight.
        count: D, of the texts.

    Returns:
        B×D scores.
    """
    lengths = torch.bincount(row, minlength=count)
    starts = lengths.cumsum(0) - lengths
    weight = weight.to(pivot.dtype)
    return torch.nn.functional.embedding_bag(term, pivot.T, starts, per_sample_weights=weight, mode="sum").T


def own_scores(scores: Tensor) -> Tensor:
    """B×(B·N) scores of every query with every document → B×N scores with its own documents."""
    own = torch.arange(len(scores), device=scores.device)
    return scores.view(len(scores), len(scores), -1)[own, own]


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) per query, over B×N scores; returns B losses.

    Args:
        temperature: divides the teacher's scores; above 1 it softens the target.
    """
    wanted = torch.log_softmax(teacher.float() / temperature, dim=1)
    given = torch.log_softmax(student.float(), dim=1)
    return (wanted.exp() * (wanted - given)).sum(dim=1)


def contrastive_loss(scores: Tensor, positive: Tensor, documents: Tensor) -> Tensor:
    """InfoNCE with in-batch negatives: each query should score its positive above all other documents of the batch.

    Args:
        scores: B×D scores of every query with every document.
        positive: B columns, of each query's positive.
        documents: D numbers of the documents; a second copy of a query's positive is no negative.

    Returns:
        B losses.
    """
    copy = documents[None, :] == documents[positive][:, None]
    copy[torch.arange(len(scores), device=scores.device), positive] = False
    return torch.nn.functional.cross_entropy(scores.float().masked_fill(copy, -torch.inf), positive, reduction="none")


def sparse_regularizer(pivot: Tensor, kind: str) -> Tensor:
    """Penalty on the active terms of B×V_e pivot views.

    Args:
        kind: `l1`, the sum of the weights of a text, mean over texts; or `flops`, the sum over terms of the
            squared mean weight (Paria et al. 2020), which is the cost of a search in an inverted index.
    """
    if kind == "l1":
        return pivot.sum(dim=1).mean()
    return pivot.mean(dim=0).square().sum()
