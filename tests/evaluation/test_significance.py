"""The randomisation test and the bootstrap, where the answer is known."""

import numpy as np
import pytest

from milco.evaluation.significance import paired_difference


def test_a_difference_on_every_query_is_significant_and_its_interval_holds_it():
    random = np.random.default_rng(1)
    one = random.uniform(size=400)
    found = paired_difference(one + random.normal(0.05, 0.1, 400), one)
    assert found["difference"] == pytest.approx(0.05, abs=0.02) and found["p"] < 0.001
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.1)


def test_chance_is_significant_as_seldom_as_it_should_be():
    random = np.random.default_rng(2)
    values = [paired_difference(*random.uniform(size=(2, 60)), seed=draw)["p"] for draw in range(100)]
    assert 0 <= np.mean(np.array(values) < 0.05) <= 0.12 and np.mean(np.array(values) > 0.5) > 0.3


def test_the_test_is_exact_where_all_permutations_can_be_counted():
    assert paired_difference(np.array([1.0, 2.0, 3.0]), np.zeros(3))["p"] == pytest.approx(2 / 8)


def test_the_order_of_the_systems_turns_the_sign_alone():
    one, other = np.random.default_rng(3).uniform(size=(2, 50))
    there, back = paired_difference(one, other), paired_difference(other, one)
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["p"] == pytest.approx(back["p"], abs=0.02) and there["low"] == pytest.approx(-back["high"], abs=0.02)


def test_systems_that_agree_differ_by_nothing():
    assert paired_difference(np.ones(5), np.ones(5)) == {"difference": 0, "low": 0, "high": 0, "p": 1}


@pytest.mark.filterwarnings("error")
def test_one_query_and_none_are_no_crash():
    found = paired_difference(np.array([0.75]), np.array([0.25]))
    assert (found["difference"], found["p"]) == (0.5, 1.0) and np.isnan([found["low"], found["high"]]).all()
    assert np.isnan(list(paired_difference(np.zeros(0), np.zeros(0)).values())).all()
