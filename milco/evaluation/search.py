"""Exact search over sparse or dense vectors."""

import numpy as np
import scipy.sparse

Ranking = list[tuple[int, float]]
QUERIES_AT_A_TIME = 256


def rank_exactly(queries, documents, k: int) -> list[Ranking]:
    """The k best documents of each query by inner product, best first.

    Args:
        queries: Q×V, sparse (CSR) or dense; documents: N×V, of the same kind.
        k: how many at the most. For sparse vectors a document that shares no term with the query is never found.

    Returns:
        Per query (document row, score) pairs; equal scores in document order.
    """
    found = []
    transposed = documents.T.tocsc() if scipy.sparse.issparse(documents) else documents.T
    for start in range(0, queries.shape[0], QUERIES_AT_A_TIME):
        scores = queries[start : start + QUERIES_AT_A_TIME] @ transposed
        if scipy.sparse.issparse(scores):
            scores = scores.toarray()
            scores[scores <= 0] = -np.inf
        found += [top_k(row, k) for row in scores]
    return found


def top_k(scores: np.ndarray, k: int) -> Ranking:
    """Places and values of the k largest finite scores, largest first, ties in order of place."""
    places = np.arange(len(scores))
    if k < len(scores):  # ordering a few is quicker than ordering all
        places = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
    best = places[np.argsort(-scores[places], kind="stable")[:k]]
    return [(int(place), float(scores[place])) for place in best if np.isfinite(scores[place])]
