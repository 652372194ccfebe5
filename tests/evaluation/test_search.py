"""Exact search against a loop over all pairs."""

import numpy as np
import pytest
from scipy.sparse import csr_array

import milco.evaluation.search
from milco.evaluation.search import Best, rank_blocks, rank_exactly, top_k


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


@pytest.mark.parametrize("kind", [csr_array, np.asarray])
def test_any_blocks_in_any_order_give_the_same_bits(kind):
    """Weights that float32 cannot add exactly, copies of documents for ties, and empty texts on both sides."""
    random = np.random.default_rng(0)
    queries, documents = ((draw(rows, rows) * random.random((rows, 30))).astype(np.float32) for rows in (300, 90))
    documents[[5, 44, 89]] = documents[7]
    documents[[0, 60]] = queries[3] = 0
    whole = rank_exactly(kind(queries), kind(documents), 20)
    assert kind is np.asarray or whole[3] == []
    for splits in range(40):
        cuts = np.sort(random.choice(91, splits % 13, replace=False))
        order = random.permutation(90) if splits % 2 else np.arange(90)
        blocks = [(places, kind(documents[places])) for places in np.split(order, cuts)]
        assert rank_blocks(kind(queries), blocks, 20) == whole


@pytest.mark.parametrize("size", [1, 7, 40])
@pytest.mark.parametrize("kind", [csr_array, np.asarray])
def test_documents_at_a_time_change_nothing(monkeypatch, size, kind):
    queries, documents = draw(9, 2), draw(40, 3)
    wanted = naive(queries, documents, 7, kind is csr_array)
    monkeypatch.setattr(milco.evaluation.search, "DOCUMENTS_AT_A_TIME", size)
    assert rank_exactly(kind(queries), kind(documents), 7) == wanted


def test_scores_are_those_of_a_product_in_the_order_of_the_terms():
    """The bits of scipy's product of all queries with all documents, as it was searched before there were blocks."""
    random = np.random.default_rng(1)
    queries, documents = (csr_array((draw(50, n) * random.random((50, 30))).astype(np.float32)) for n in (4, 5))
    product = (queries @ documents.T).toarray()
    for query, ranking in enumerate(rank_exactly(queries, documents, 50)):
        assert dict(ranking) == {place: float(score) for place, score in enumerate(product[query]) if score > 0}


def test_no_queries_have_no_rankings_and_no_documents_no_results():
    queries = csr_array(draw(3, 0))
    assert rank_exactly(queries[:0], queries, 5) == []
    assert rank_exactly(queries, queries[:0], 5) == [[], [], []]


def test_top_k_leaves_out_what_is_not_finite():
    scores = np.array([1.0, -np.inf, 3.0, 3.0, -2.0])
    assert top_k(scores, 10) == [(2, 3.0), (3, 3.0), (0, 1.0), (4, -2.0)]
    assert top_k(scores, 2) == [(2, 3.0), (3, 3.0)]
    assert top_k(scores, 0) == []


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_a_score_that_is_no_number_takes_no_other_s_place(k):
    nan, places = np.nan, np.arange(6)
    for scores in ([nan, nan, 1, 2, 3, 0], [1, 2, nan, 3, 0, nan]):
        best = Best(k)
        best.add(places, np.array(scores, np.float32))
        best.add(places + 6, np.full(6, nan, np.float32))
        wanted = sorted(((place, score) for place, score in enumerate(scores) if score == score), key=lambda p: -p[1])
        assert best.ranking() == wanted[:k]
