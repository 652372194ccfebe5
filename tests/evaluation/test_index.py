"""The Seismic index beside exact search, on few documents but more columns than 16 bits can count."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from milco.evaluation.evaluate import mean_ndcg
from milco.evaluation.index import PASSES, TIMED, Index, median, recall
from milco.evaluation.search import rank_exactly

COLUMNS = 151_000


def draw(rows, seed, per_row=12, empty=()):
    """Rows of a few weights between 0.1 and 2. The columns lie all over the range, 200 of them in use."""
    used = np.sort(np.random.default_rng(99).choice(COLUMNS, 200, replace=False))
    used[-1] = COLUMNS - 1
    random = np.random.default_rng(seed)
    dense = np.zeros((rows, len(used)), np.float32)
    for row in set(range(rows)) - set(empty):
        dense[row, random.choice(len(used), per_row, replace=False)] = random.uniform(0.1, 2, per_row)
    at, place = dense.nonzero()
    return csr_array((dense[at, place], (at, used[place])), shape=(rows, COLUMNS))


# Seismic skips blocks of documents that seem not to reach the result; with a factor of 0 it skips none and is exact,
# so that any other difference is ours.
EVERY_BLOCK = {"heap_factor": 0.0}


def assert_exact(found, queries, documents, k):
    """The scores of exact search at every rank, and each found document has the score that it should have.

    Seismic rounds weights to 16 bits, so documents whose scores differ by less may change places.
    """
    scores = (queries @ documents.T).toarray()
    for query, (hits, wanted) in enumerate(zip(found, rank_exactly(queries, documents, k), strict=True)):
        rows = [row for row, _ in hits]
        assert len(set(rows)) == len(rows)
        np.testing.assert_allclose([score for _, score in hits], [score for _, score in wanted], rtol=2e-3)
        np.testing.assert_allclose([score for _, score in hits], scores[query, rows], rtol=2e-3)


def test_an_index_that_skips_nothing_finds_what_exact_search_finds():
    documents, queries = draw(150, 0), draw(20, 1, per_row=6)
    assert documents.indices.max() > 65_535
    found, milliseconds = Index.build(documents).search(queries, 10, **EVERY_BLOCK)
    assert_exact(found, queries, documents, 10)
    assert sum(map(len, found)) > 150
    assert 0 < milliseconds < 1000


def test_an_index_as_it_is_set_finds_nearly_all_with_scores_that_are_exact():
    documents, queries = draw(150, 0), draw(100, 1, per_row=6)
    found, _ = Index.build(documents).search(queries, 10)
    assert recall(found, rank_exactly(queries, documents, 10)) > 0.95
    scores = (queries @ documents.T).toarray()
    for query, hits in enumerate(found):
        assert len(hits) == len({row for row, _ in hits}) <= 10
        for row, score in hits:
            assert score == pytest.approx(scores[query, row], rel=2e-3)
        assert [score for _, score in hits] == sorted((score for _, score in hits), reverse=True)


def test_only_the_heaviest_terms_of_a_long_query_are_looked_up_but_all_count():
    columns, weights = np.array([10, 20, 80_000]), np.array([0.1, 3.0, 2.0], np.float32)
    query = csr_array((weights, columns, np.array([0, 3])), shape=(1, COLUMNS))
    documents = csr_array(np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1]], np.float32))
    documents = csr_array((documents.data, columns[documents.indices], documents.indptr), shape=(3, COLUMNS))
    found, _ = Index.build(documents).search(query, 10, query_cut=2, **EVERY_BLOCK)
    # Document 0 has the lightest term alone and is missed; document 2 has it beside another, and it counts.
    assert [row for row, _ in found[0]] == [1, 2]
    assert [score for _, score in found[0]] == pytest.approx([3.0, 2.1], rel=2e-3)


def test_documents_without_terms_are_never_found_and_shift_no_other():
    documents, queries = draw(60, 2, empty=[0, 1, 30, 59]), draw(10, 3, per_row=8)
    found, _ = Index.build(documents).search(queries, 60, **EVERY_BLOCK)
    assert_exact(found, queries, documents, 60)
    assert not {row for hits in found for row, _ in hits} & {0, 1, 30, 59}


def test_query_terms_that_no_document_has_change_nothing():
    documents, queries = draw(60, 4), draw(10, 5, per_row=6).tolil()
    index = Index.build(documents)
    unknown = np.setdiff1d(np.arange(COLUMNS), index.columns)
    queries[:, unknown[[0, 500, -1]]] = 5.0
    queries[3] = 0
    queries[3, unknown[7]] = 1.0  # nothing but the unknown
    queries[4] = 0  # nothing at all
    queries = csr_array(queries)
    found, _ = index.search(queries, 10, **EVERY_BLOCK)
    assert_exact(found, queries, documents, 10)
    assert found[3] == found[4] == []


def test_more_results_than_documents_cannot_be_found():
    documents = draw(5, 6, per_row=150)
    found, _ = Index.build(documents).search(documents, 100, **EVERY_BLOCK)
    assert_exact(found, documents, documents, 100)
    assert [len(hits) for hits in found] == [5] * 5


def test_the_order_of_columns_in_memory_does_not_matter():
    documents, queries = draw(60, 7), draw(10, 8, per_row=6)
    shuffled = documents.copy()
    for start, end in zip(documents.indptr[:-1], documents.indptr[1:], strict=True):
        shuffled.indices[start:end] = documents.indices[start:end][::-1]
        shuffled.data[start:end] = documents.data[start:end][::-1]
    shuffled.has_sorted_indices = False
    found, _ = Index.build(shuffled).search(queries, 10, **EVERY_BLOCK)
    assert_exact(found, queries, documents, 10)


def test_a_saved_index_finds_the_same(tmp_path):
    documents, queries = draw(60, 9), draw(10, 10, per_row=6)
    built = Index.build(documents)
    size = built.save(tmp_path / "de-xx-en")
    assert {path.name for path in tmp_path.iterdir()} == {"de-xx-en.index.seismic", "de-xx-en.columns.npy"}
    assert size == (tmp_path / "de-xx-en.index.seismic").stat().st_size > documents.nnz
    loaded = Index.load(tmp_path / "de-xx-en")
    assert loaded.search(queries, 10)[0] == built.search(queries, 10)[0]


def test_indices_with_a_dot_in_their_name_are_kept_apart(tmp_path):
    first, second = draw(20, 11), draw(30, 12)
    Index.build(first).save(tmp_path / "v1.0")
    Index.build(second).save(tmp_path / "v1.5")
    found, _ = Index.load(tmp_path / "v1.0").search(first, 1)
    assert [hits[0][0] for hits in found] == [hits[0][0] for hits in rank_exactly(first, first, 1)]


def test_recall_is_the_share_of_the_exact_results_that_were_found():
    exact = [[(1, 3.0), (2, 2.0)], [(5, 1.0)], []]
    assert recall([[(2, 2.0), (9, 1.0)], [(5, 1.0)], []], exact) == pytest.approx((0.5 + 1) / 2)
    assert recall(exact, exact) == 1
    assert recall([[], [], []], exact) == 0


def test_mean_ndcg_counts_a_query_that_found_nothing():
    qrels = {"q1": {"d1": 1}, "q2": {"d2": 1}}
    assert mean_ndcg(qrels, {"q1": {"d1": 2.0, "d9": 1.0}, "q2": {}}) == pytest.approx(0.5)
    assert mean_ndcg(qrels, {"q1": {"d1": 1.0, "d9": 2.0}, "q2": {"d2": 1.0}}) == pytest.approx(
        (1 / np.log2(3) + 1) / 2
    )


def test_a_deeper_search_leaves_out_fewer_blocks():
    documents, queries = draw(4000, 0, per_row=8), draw(30, 1, per_row=12)
    index, exact = Index.build(documents), rank_exactly(queries, documents, 300)
    shallow, deep = (recall(index.search(queries, 300, **how)[0], exact) for how in ({"heap_factor": 0.7}, {}))
    assert deep > 0.999 > shallow


def test_times_are_those_of_warm_passes_over_some_queries(monkeypatch):
    documents, queries = draw(60, 13), draw(TIMED + 20, 14)
    index, asked = Index.build(documents), []
    durations = iter([99.0, 3.0, 1.0, 2.0, 5.0, 4.0])  # the first pass is cold
    monkeypatch.setattr(index, "search", lambda some, k: (asked.append((some.shape[0], k)), next(durations)))
    assert median(index.times(queries, 7)) == {"milliseconds": 3.0, "milliseconds_spread": 4.0}
    assert asked == [(TIMED, 7)] * (PASSES + 1)
    monkeypatch.undo()
    times = index.times(queries[:3], 7)
    assert len(times) == PASSES and (times > 0).all()
