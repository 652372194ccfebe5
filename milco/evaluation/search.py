"""Exact search over sparse or dense vectors, block by block."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import scipy.sparse

Ranking = list[tuple[int, float]]
Block = tuple[np.ndarray, scipy.sparse.csr_array | np.ndarray]  # places of documents in their collection, their rows
Scorer = Callable[..., Iterator[np.ndarray]]
DOCUMENTS_AT_A_TIME = 65_536
TILE = 256, 1024  # queries and documents of one dense product


def rank_exactly(queries, documents, k: int) -> list[Ranking]:
    """The k best documents of each query by inner product, best first.

    Args:
        queries: Q×V, sparse (CSR) or dense; documents: N×V, of the same kind.
        k: maximum number of results. With sparse vectors, documents that share no term with the query are not returned.

    Returns:
        Per query (document row, score) pairs; equal scores in document order.
    """
    starts = range(0, documents.shape[0], DOCUMENTS_AT_A_TIME)
    parts = ((start, documents[start : start + DOCUMENTS_AT_A_TIME]) for start in starts)
    return rank_blocks(queries, ((start + np.arange(rows.shape[0]), rows) for start, rows in parts), k)


def rank_blocks(queries, blocks: Iterable[Block], k: int) -> list[Ranking]:
    """The same over documents that come in blocks of any size and order: equal scores are in the order of places."""
    search = Search(queries, k)
    for places, rows in blocks:
        search.add(places, scorer(rows))
    return search.rankings()


class Search:
    """Some queries, and the k best documents of each among those that were added.

    A score is summed in the order of the query's terms, whatever block its document is in, so that rankings are the
    same to the last bit for any blocks.
    """

    def __init__(self, queries, k: int):
        worst = 0.0 if scipy.sparse.issparse(queries) else -np.inf  # documents that share no term are never found
        self.queries, self.best = queries, [Best(k, worst) for _ in range(queries.shape[0])]

    def add(self, places: np.ndarray, score: Scorer) -> None:
        """Add a block of n documents: their n positions, and the function that `scorer` made for them."""
        for best, scores in zip(self.best, score(self.queries), strict=True):
            best.add(places, scores)

    def rankings(self) -> list[Ranking]:
        return [best.ranking() for best in self.best]


class Best:
    """The k best documents among those that it has seen, of scores above `worst`: largest first, ties by place."""

    def __init__(self, k: int, worst: float = -np.inf):
        self.k, self.worst, self.places, self.scores = k, worst, np.empty(0, np.int64), np.empty(0, np.float32)

    def add(self, places: np.ndarray, scores: np.ndarray) -> None:
        """Add n documents and their scores, both of length n; NaN scores are skipped."""
        if self.k == 0:
            return
        # Most documents score below the k best so far and are rejected by one comparison.
        if len(self.scores) == self.k:
            near = np.flatnonzero(scores >= self.scores[-1])
        elif len(scores) > self.k:  # ordering a few is quicker than ordering all
            numbers = np.where(np.isnan(scores), -np.inf, scores)  # NaN would be the largest
            near = np.flatnonzero((scores >= np.partition(numbers, -self.k)[-self.k]) & (scores > self.worst))
        else:
            near = np.flatnonzero(scores > self.worst)
        places, scores = places[near], scores[near]
        places, scores = np.concatenate([self.places, places]), np.concatenate([self.scores, scores])
        order = np.lexsort((places, -scores))[: self.k]
        self.places, self.scores = places[order], scores[order]

    def ranking(self) -> Ranking:
        return list(zip(self.places.tolist(), self.scores.tolist(), strict=True))


def scorer(rows) -> Scorer:
    """A block of documents (N×V, sparse or dense) → a function: queries Q×V → for each query its N scores."""
    if scipy.sparse.issparse(rows):
        return partial(_sparse_scores, scipy.sparse.csr_array(rows.T.tocsr()))
    return partial(_dense_scores, rows)


def _sparse_scores(postings: scipy.sparse.csr_array, queries: scipy.sparse.csr_array) -> Iterator[np.ndarray]:
    """Scores from the postings of one query at a time. A product of sparse matrices would hold and sort nearly all
    scores, since nearly every document shares a term with a query."""
    for start, end in pairwise(queries.indptr.tolist()):
        yield postings[queries.indices[start:end]].T @ queries.data[start:end]


def _dense_scores(rows: np.ndarray, queries: np.ndarray) -> Iterator[np.ndarray]:
    """Scores from products of one shape, since the order in which BLAS sums depends on the shape."""
    height, width = TILE
    for top in range(0, len(queries), height):
        asked = _padded(queries[top : top + height], height)
        parts = [asked @ _padded(rows[left : left + width], width).T for left in range(0, len(rows), width)]
        scores = np.concatenate(parts, axis=1)[:, : len(rows)] if parts else np.empty((height, 0), rows.dtype)
        yield from scores[: len(queries) - top]


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    return np.pad(rows, ((0, length - len(rows)), (0, 0)))


def top_k(scores: np.ndarray, k: int) -> Ranking:
    """Places and values of the k largest finite scores, largest first, ties in order of place."""
    best = Best(k)
    best.add(np.arange(len(scores)), scores)
    return best.ranking()
