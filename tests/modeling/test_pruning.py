"""Top-k and mass pruning against a loop over rows that computes in fractions, so that it has no rounding."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from milco.modeling.pruning import prune_mass, prune_top_k

SHARES = ["0", "0.1", "0.25", "0.3", "0.5", "0.7", "0.9", "0.95", "1"]


def heaviest_first(row):
    """(column, weight) pairs by falling weight, equal weights by column."""
    pairs = [(column, weight) for column, weight in enumerate(row.tolist()) if weight > 0]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def naive_top_k(rows, k):
    kept = np.zeros_like(rows)
    for place, row in enumerate(rows):
        for column, weight in heaviest_first(row)[:k]:
            kept[place, column] = weight
    return kept


def naive_mass(rows, share):
    """The shortest prefix whose sum reaches the share (a decimal string) of the total."""
    kept = np.zeros_like(rows)
    for place, row in enumerate(rows):
        pairs, reached = heaviest_first(row), Fraction(0)
        wanted = Fraction(share) * sum(Fraction(weight) for _, weight in pairs)
        for column, weight in pairs:
            if reached >= wanted:
                break
            kept[place, column] = weight
            reached += Fraction(weight)
    return kept


def draw(seed, equal=False):
    """Rows of 0 to 30 weights, the first, last and one middle row empty; `equal`: few different weights."""
    random = np.random.default_rng(seed)
    rows = random_array((12, 40), density=random.uniform(0.1, 0.7), rng=random, format="csr").toarray()
    rows = np.where(rows > 0, np.ceil(rows * 3) if equal else rows, 0).astype(np.float32)
    rows[[0, 5, 6, 11]] = 0
    return rows


CASES = [(seed, equal) for seed in range(5) for equal in (False, True)]


@pytest.mark.parametrize(("seed", "equal"), CASES)
@pytest.mark.parametrize("k", [0, 1, 2, 5, 17, 40, 1000])
def test_top_k_keeps_the_k_largest_weights_of_each_row(seed, equal, k):
    rows = draw(seed, equal)
    np.testing.assert_array_equal(prune_top_k(csr_array(rows), k).toarray(), naive_top_k(rows, k))


@pytest.mark.parametrize(("seed", "equal"), CASES)
@pytest.mark.parametrize("share", SHARES)
def test_mass_keeps_the_shortest_prefix_that_reaches_the_share(seed, equal, share):
    rows = draw(seed, equal)
    np.testing.assert_array_equal(prune_mass(csr_array(rows), float(share)).toarray(), naive_mass(rows, share))


@pytest.mark.parametrize("terms", [3, 7, 10, 25, 49, 60])
@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_a_share_that_is_met_exactly_costs_no_further_term(terms, weight):
    # Most of these shares are no binary fractions: share times total differs a little from the sum of the terms.
    rows = csr_array(np.full((2, terms), weight, np.float32))
    for wanted in range(terms + 1):
        assert np.diff(prune_mass(rows, wanted / terms).indptr).tolist() == [wanted] * 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
def test_what_mass_keeps_reaches_the_share_and_would_not_without_its_last_term(seed, share):
    rows = csr_array(draw(seed))
    kept = prune_mass(rows, share)
    for row in range(rows.shape[0]):
        before, after = rows[[row]].data.astype(float), kept[[row]].data.astype(float)
        if len(before):
            assert after.sum() >= share * before.sum() * (1 - 1e-6)
            assert after.sum() - after.min() < share * before.sum()
            assert after.min() >= max(set(before) - set(after), default=0)
        else:
            assert len(after) == 0


@pytest.mark.parametrize("prune", [lambda rows: prune_top_k(rows, 3), lambda rows: prune_mass(rows, 0.6)])
def test_pruning_does_not_depend_on_the_order_of_columns_in_memory_and_leaves_its_input_alone(prune):
    rows = csr_array(draw(1, equal=True))
    shuffled = rows.copy()
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        shuffled.indices[start:end] = rows.indices[start:end][::-1]
        shuffled.data[start:end] = rows.data[start:end][::-1]
    shuffled.has_sorted_indices = False
    before = shuffled.toarray()
    np.testing.assert_array_equal(prune(shuffled).toarray(), prune(rows).toarray())
    np.testing.assert_array_equal(shuffled.toarray(), before)


@pytest.mark.parametrize("shape", [(4, 6), (0, 6)])
def test_rows_without_any_weight_stay_as_they_are(shape):
    rows = csr_array(shape, dtype=np.float32)
    for pruned in (prune_top_k(rows, 2), prune_mass(rows, 0.5)):
        assert pruned.shape == shape and pruned.nnz == 0


def test_nothing_is_lost_at_a_share_of_one_and_pruning_twice_prunes_once():
    rows = csr_array(draw(3))
    assert (prune_mass(rows, 1.0) != rows).nnz == 0
    once = prune_top_k(rows, 4)
    assert (prune_top_k(once, 4) != once).nnz == 0
    assert once.dtype == rows.dtype == prune_mass(rows, 0.5).dtype
