"""Exact search against a loop over all pairs."""

import numpy as np
import pytest
from scipy.sparse import csr_array

import milco.evaluation.search
from milco.evaluation.search import rank_exactly, top_k


def naive(queries, documents, k, sparse):
    """Per query all (document, score) pairs, sorted in Python; zero overlap is no hit for sparse vectors."""
    rankings = []
    for query in queries:
        pairs = [(place, float(query @ document)) for place, document in enumerate(documents)]
        pairs = [pair for pair in pairs if pair[1] > 0 or not sparse]
        rankings.append(sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k])
    return rankings


def draw(rows, seed):
    """Whole numbers, many of them 0: scores are exact and ties abound."""
    random = np.random.default_rng(seed)
    return (random.integers(0, 4, (rows, 30)) * (random.random((rows, 30)) < 0.15)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 5, 40, 1000])
@pytest.mark.parametrize("sparse", [True, False])
def test_results_are_the_best_of_all_pairs_with_ties_in_document_order(k, sparse):
    queries, documents = draw(9, 0), draw(40, 1)
    kind = csr_array if sparse else np.asarray
    found = rank_exactly(kind(queries), kind(documents), k)
    wanted = naive(queries, documents, k, sparse)
    assert any(len({score for _, score in ranking}) < len(ranking) for ranking in wanted) or k == 1
    assert found == wanted


def test_documents_without_a_common_term_are_not_found():
    queries = csr_array(np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], np.float32))
    documents = csr_array(np.array([[0, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0], [0.5, 1, 0, 0]], np.float32))
    assert rank_exactly(queries, documents, 10) == [[(1, 3.0), (3, 0.5)], [], []]


def test_dense_vectors_may_have_scores_of_zero_and_below():
    queries, documents = np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    assert rank_exactly(queries, documents, 10) == [[(2, 2.0), (1, 0.0), (0, -1.0)]]


@pytest.mark.parametrize("at_a_time", [1, 4, 9, 100])
@pytest.mark.parametrize("kind", [csr_array, np.asarray])
def test_queries_at_a_time_change_nothing(monkeypatch, at_a_time, kind):
    queries, documents = draw(9, 2), draw(40, 3)
    wanted = naive(queries, documents, 7, kind is csr_array)
    monkeypatch.setattr(milco.evaluation.search, "QUERIES_AT_A_TIME", at_a_time)
    assert rank_exactly(kind(queries), kind(documents), 7) == wanted


def test_no_queries_have_no_rankings_and_no_documents_no_results():
    queries = csr_array(draw(3, 0))
    assert rank_exactly(queries[:0], queries, 5) == []
    assert rank_exactly(queries, queries[:0], 5) == [[], [], []]


def test_top_k_leaves_out_what_is_not_finite():
    scores = np.array([1.0, -np.inf, 3.0, 3.0, -2.0])
    assert top_k(scores, 10) == [(2, 3.0), (3, 3.0), (0, 1.0), (4, -2.0)]
    assert top_k(scores, 2) == [(2, 3.0), (3, 3.0)]
    assert top_k(scores, 0) == []
