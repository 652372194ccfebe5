"""The randomisation test and the bootstrap, where the answer is known."""

import numpy as np
import pandas as pd
import pytest

from milco.evaluation.significance import interval_of_mean, paired_difference


def values(numbers, queries=None) -> pd.Series:
    return pd.Series(numbers, pd.Index(range(len(numbers)) if queries is None else queries, name="query"), float)


def test_a_difference_on_every_query_is_significant_and_its_interval_holds_it():
    random = np.random.default_rng(1)
    one = random.uniform(size=400)
    found = paired_difference(values(one + random.normal(0.05, 0.1, 400)), values(one))
    assert found["difference"] == pytest.approx(0.05, abs=0.02) and found["p"] < 0.001
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.1)


def test_chance_is_significant_as_seldom_as_it_should_be():
    random = np.random.default_rng(2)
    found = [paired_difference(*map(values, random.uniform(size=(2, 60))), seed=draw)["p"] for draw in range(100)]
    assert 0 <= np.mean(np.array(found) < 0.05) <= 0.12 and np.mean(np.array(found) > 0.5) > 0.3


def test_translations_of_a_query_are_no_more_evidence_than_the_query():
    """Fifteen collections ask the same sixty queries, and their gaps differ little: they tell no more than one."""
    random = np.random.default_rng(4)
    one, other = random.uniform(size=(2, 60))
    queries = np.tile(np.arange(60), 15)
    once = paired_difference(values(one), values(other))
    often = paired_difference(values(np.tile(one, 15), queries), values(np.tile(other, 15), queries))
    for key in ("difference", "low", "high", "p"):
        assert often[key] == pytest.approx(once[key]), key
    independent = paired_difference(values(np.tile(one, 15)), values(np.tile(other, 15)))
    assert (once["high"] - once["low"]) / (independent["high"] - independent["low"]) == pytest.approx(15**0.5, rel=0.1)
    assert independent["p"] < 0.05 < once["p"]


def test_chance_is_significant_as_seldom_as_it_should_be_where_queries_recur():
    random, chances, held = np.random.default_rng(5), [], []
    queries = np.repeat(np.arange(30), 8)
    for draw in range(100):
        gaps = np.repeat(random.normal(size=30), 8) + random.normal(size=240)
        found = paired_difference(values(gaps, queries), values(np.zeros(240), queries), seed=draw)
        chances.append(found["p"])
        held.append(found["low"] < 0 < found["high"])
    assert np.mean(np.array(chances) < 0.05) <= 0.12 and np.mean(held) > 0.85


def test_a_query_counts_as_often_as_it_was_asked():
    found = paired_difference(values([1, 0, 0, 1], [7, 7, 7, 8]), values([0, 0, 0, 0], [7, 7, 7, 8]))
    assert found["difference"] == 0.5


def test_the_test_is_exact_where_all_permutations_can_be_counted():
    assert paired_difference(values([1, 2, 3]), values([0, 0, 0]))["p"] == pytest.approx(2 / 8)


def test_the_order_of_the_systems_turns_the_sign_alone():
    one, other = map(values, np.random.default_rng(3).uniform(size=(2, 50)))
    there, back = paired_difference(one, other), paired_difference(other, one)
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["p"] == pytest.approx(back["p"], abs=0.02) and there["low"] == pytest.approx(-back["high"], abs=0.02)


def test_systems_that_agree_differ_by_nothing():
    assert paired_difference(values(np.ones(5)), values(np.ones(5))) == {"difference": 0, "low": 0, "high": 0, "p": 1}


@pytest.mark.filterwarnings("error")
def test_one_query_and_none_are_no_crash():
    found = paired_difference(values([0.75]), values([0.25]))
    assert (found["difference"], found["p"]) == (0.5, 1.0) and np.isnan([found["low"], found["high"]]).all()
    assert np.isnan(list(paired_difference(values([]), values([])).values())).all()


def test_the_interval_of_a_mean_is_as_wide_as_queries_differ_and_every_collection_counts_as_much():
    """A collection of 200 queries, and one of 2,000 others: the small one decides most of the width."""
    random = np.random.default_rng(6)
    names = [("small", n) for n in range(200)] + [("large", 1000 + n) for n in range(2000)]
    index = pd.MultiIndex.from_tuples(names, names=["collection", "query"])
    found = pd.Series(np.concatenate([random.normal(0.2, 0.1, 200), random.normal(0.6, 0.1, 2000)]), index)
    low, high = interval_of_mean(found)
    assert low < found.groupby("collection").mean().mean() < high
    assert np.isnan(interval_of_mean(found[:1])).all()
    width = 2 * 1.96 * 0.5 * 0.1 * (1 / 200 + 1 / 2000) ** 0.5
    assert width < high - low < 2.5 * width  # how many queries of a collection are drawn is chance, too


def test_translations_widen_the_interval_of_a_mean():
    once = pd.MultiIndex.from_product([["a"], range(60)], names=["collection", "query"])
    often = pd.MultiIndex.from_product([list("abcdef"), range(60)], names=["collection", "query"])
    asked = np.random.default_rng(7).uniform(size=60)
    wanted = interval_of_mean(pd.Series(asked, once))
    assert interval_of_mean(pd.Series(np.tile(asked, 6), often)) == pytest.approx(wanted)
