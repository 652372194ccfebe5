"""The plan of a training: what each step holds, and that it depends on seed, lengths and batch size alone."""

from itertools import pairwise

import numpy as np
import pytest

from milco.errors import MilcoError
from milco.training.batching import POOL, Steps, passes, places_in_random_order
from milco.training.trainer import Shares


def plan_steps(lengths, size, epochs, seed, families=None, together=1):
    """All steps, one below the other."""
    steps = Steps(lengths.__getitem__, families or [(1, len(lengths))], size, epochs, seed, together)
    return np.stack([steps[number] for number in range(len(steps))])


def draw_lengths(examples, seed=0):
    return np.random.default_rng(seed).integers(3, 200, examples)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 17, 64, 65, 1000, 4097])
def test_a_random_order_has_every_place_once(count):
    places = places_in_random_order(np.arange(count), count, 1, 2)
    assert sorted(places.tolist()) == list(range(count))
    assert (places_in_random_order(np.arange(count)[::-1], count, 1, 2)[::-1] == places).all()


def test_a_random_order_is_random():
    places = places_in_random_order(np.arange(4096), 5000, 7)
    assert abs(np.corrcoef(places, np.arange(4096))[0, 1]) < 0.05
    assert abs(np.diff(places)).mean() == pytest.approx(5000 / 3, rel=0.05)
    assert abs(np.corrcoef(places, places_in_random_order(np.arange(4096), 5000, 8))[0, 1]) < 0.05


@pytest.mark.parametrize(("examples", "size"), [(40, 4), (43, 4), (7, 7), (1000, 8)])
def test_an_epoch_shows_each_example_at_most_once(examples, size):
    steps = plan_steps(draw_lengths(examples), size, epochs=3, seed=0)
    per_epoch = examples // size
    assert steps.shape[1] == size
    for epoch in range(len(steps) // per_epoch):
        shown = steps[epoch * per_epoch : (epoch + 1) * per_epoch].ravel()
        assert len(set(shown.tolist())) == per_epoch * size
        assert shown.min() >= 0 and shown.max() < examples


def test_an_epoch_shows_every_example_if_they_fill_its_batches():
    steps = plan_steps(draw_lengths(40), 4, epochs=1, seed=0)
    assert sorted(steps.ravel().tolist()) == list(range(40))


def test_an_example_that_fills_no_batch_comes_in_another_epoch():
    steps = plan_steps(draw_lengths(43), 4, epochs=10, seed=0)
    assert set(steps.ravel().tolist()) == set(range(43))


@pytest.mark.parametrize(("epochs", "wanted"), [(0.001, 1), (0.3, 3), (0.5, 5), (1, 10), (1.5, 15), (2.3, 23), (3, 30)])
def test_a_fraction_of_an_epoch_is_as_many_steps(epochs, wanted):
    assert len(plan_steps(draw_lengths(40), 4, epochs, seed=0)) == wanted


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    lengths = draw_lengths(100)
    plan = plan_steps(lengths, 10, 2, seed=5)
    assert (plan == plan_steps(lengths, 10, 2, seed=5)).all()
    assert (plan != plan_steps(lengths, 10, 2, seed=6)).any()


def test_each_epoch_has_an_order_of_its_own():
    steps = 4 * POOL  # what fits into one pool is sorted as a whole, which gives the same batches every time
    plan = plan_steps(draw_lengths(10 * steps), 10, 2, seed=0)
    first, second = ({frozenset(step.tolist()) for step in part} for part in (plan[:steps], plan[steps:]))
    assert not first & second


def test_more_epochs_only_add_steps():
    lengths = draw_lengths(105)
    longer = plan_steps(lengths, 10, 4, seed=0)
    for epochs in (0.5, 1, 2.5):
        shorter = plan_steps(lengths, 10, epochs, seed=0)
        assert (longer[: len(shorter)] == shorter).all()


def test_a_step_goes_from_short_to_long():
    lengths = draw_lengths(500)
    plan = plan_steps(lengths, 20, 2, seed=0)
    assert (np.diff(lengths[plan], axis=1) >= 0).all()


def test_examples_of_a_step_are_of_like_length_but_steps_come_in_random_order():
    lengths = draw_lengths(1000)
    planned = lengths[plan_steps(lengths, 10, 1, seed=0)]
    shuffled = np.random.default_rng(0).permutation(lengths).reshape(-1, 10)
    padding, usual = ((part.max(axis=1, keepdims=True) - part).sum() for part in (planned, shuffled))
    assert padding < usual / 5
    longest = planned.max(axis=1)
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.4


def test_more_examples_than_a_pool_holds_are_not_all_sorted_together():
    size = 4
    lengths = np.arange(3 * POOL * size)
    plan = plan_steps(lengths, size, 1, seed=0)
    # If all were sorted together, a batch would be four neighbours; from a pool of a third, it spans about nine.
    assert np.median(np.ptp(plan, axis=1)) > 5


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_number_of_processes_shares_the_same_steps(processes):
    lengths = draw_lengths(96)
    steps = Steps(lengths.__getitem__, [(1, 96)], 8, 1, 0)
    shares = Shares(steps, processes, lambda examples, step: [{"examples": examples, "step": step}])
    assert len(shares) == 12 * processes
    for step in range(len(steps)):
        # Process r of W takes the numbers r, r+W, ...
        seen = [shares[step * processes + process] for process in range(processes)]
        assert {part["step"] for (part,) in seen} == {step}
        assert {len(part["examples"]) for (part,) in seen} == {8 // processes}
        assert np.concatenate([part["examples"] for (part,) in seen]).tolist() == steps[step].tolist()


FAMILIES = [(1, 37), (2, 40), (5, 30), (7, 20), (13, 9)]
FAMILY = np.repeat(np.arange(136), np.repeat(*zip(*FAMILIES, strict=True)))


@pytest.mark.parametrize("together", [1, 3, 4, 20])
def test_an_epoch_of_families_shows_every_example_once(together):
    lengths = draw_lengths(len(FAMILY))
    plan = plan_steps(lengths, 4, 3, 0, FAMILIES, together)
    per_epoch = len(FAMILY) // 4
    for epoch in range(3):
        assert sorted(plan[epoch * per_epoch : (epoch + 1) * per_epoch].ravel().tolist()) == list(range(len(FAMILY)))


@pytest.mark.parametrize("together", [1, 2, 4])
def test_so_many_of_a_family_travel_in_one_step(together):
    families = np.repeat(np.arange(60), 4)
    lengths = draw_lengths(60)[families] + np.random.default_rng(1).integers(0, 5, 240)
    plan = plan_steps(lengths, 8, 2, 0, [(4, 60)], together)
    assert sorted(plan[:30].ravel().tolist()) == list(range(240))
    for step in families[plan]:
        _, counts = np.unique(step, return_counts=True)
        assert (counts % together == 0).all()  # blocks of two or four fill a step of eight without a rest


def test_those_that_travel_together_are_neighbours():
    plan = plan_steps(draw_lengths(240), 8, 1, 0, [(4, 60)], 4)
    assert (plan.reshape(-1, 4) // 4 == plan.reshape(-1, 4)[:, :1] // 4).all()


def test_other_members_of_a_family_travel_together_in_the_next_epoch():
    plan = plan_steps(draw_lengths(600), 6, 2, 0, [(6, 100)], 3)
    first, second = ({frozenset(block) for block in part.reshape(-1, 3).tolist()} for part in (plan[:100], plan[100:]))
    assert not first & second


def test_members_of_a_family_beyond_those_that_travel_together_are_spread():
    plan = plan_steps(np.full(1200, 10), 12, 1, 0, [(12, 100)], 3)
    different = [len(set((step // 12).tolist())) for step in plan]
    assert 3.5 < np.mean(different) <= 4


def test_a_step_of_a_huge_corpus_is_found_at_once():
    asked = []

    def lengths(examples):
        asked.append(len(examples))
        return examples % 100 + 3

    steps = Steps(lengths, [(1, 10**8), (13, 4 * 10**7)], 64, 2, 0, together=4)
    assert len(steps) == round(2 * 62 * 10**7 / 64)
    found = steps[len(steps) // 2 + 1]
    assert len(set(found.tolist())) == 64 and found.max() < 62 * 10**7
    assert asked == [POOL * 64]


def test_a_step_that_does_not_exist_is_an_error():
    steps = Steps(draw_lengths(40).__getitem__, [(1, 40)], 4, 1, 0)
    for step in (-1, 10):
        with pytest.raises(IndexError):
            steps[step]


@pytest.mark.parametrize("examples", [1, 9])
def test_too_few_examples_for_a_batch_are_an_error(examples):
    with pytest.raises(MilcoError, match=r"^global_batch_size: .*10$"):
        plan_steps(draw_lengths(examples), 10, 100, seed=0)


def cost(runs, cost_of_a_pass):
    return sum(len(places) * longest + cost_of_a_pass for places, longest in runs)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cost_of_a_pass", [0, 10, 1000])
def test_passes_are_the_cheapest_cut(seed, cost_of_a_pass):
    lengths = np.random.default_rng(seed).integers(3, 40, 9)
    budget = 60
    runs = passes(lengths, budget, cost_of_a_pass)
    assert sorted(place for places, _ in runs for place in places.tolist()) == list(range(9))
    assert all(longest == lengths[places].max() for places, longest in runs)
    assert all(len(places) * longest <= budget for places, longest in runs)
    ordered = np.sort(lengths)
    cheapest = min(
        cost(
            [(range(start, end), int(ordered[end - 1])) for start, end in pairwise(cut)],
            cost_of_a_pass,
        )
        for inside in range(2**8)
        for cut in [[0, *(place + 1 for place in range(8) if inside >> place & 1), 9]]
        if all((end - start) * ordered[end - 1] <= budget for start, end in pairwise(cut))
    )
    assert cost(runs, cost_of_a_pass) == cheapest


def test_a_text_beyond_the_budget_has_a_pass_of_its_own():
    runs = passes(np.array([100, 3, 3]), 10, 0)
    assert [(places.tolist(), longest) for places, longest in runs] == [([1, 2], 3), ([0], 100)]
