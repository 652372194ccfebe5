"""The plan of a training: what each step holds, and that it hangs on seed, lengths and batch size alone."""

import numpy as np
import pytest

from milco.batching import POOL, plan_steps
from milco.errors import MilcoError
from milco.training import MicroBatches


def draw_lengths(examples, seed=0):
    return np.random.default_rng(seed).integers(3, 200, examples)


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
    # Sorted as one, every batch would be four neighbours; from a pool of a third of them it spans about nine.
    assert np.median(np.ptp(plan, axis=1)) > 5


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_number_of_processes_shares_the_same_steps(processes):
    lengths = draw_lengths(96)
    plan = plan_steps(lengths, 8, 1, seed=0)
    batches = MicroBatches(plan, 8 // processes // 2, lambda examples, step: {"examples": examples, "step": step})
    accumulated = 8 // (8 // processes // 2) // processes
    for step, wanted in enumerate(plan):
        seen = []
        for process in range(processes):  # process r of W takes the numbers r, r+W, ...
            mine = range(process, len(batches), processes)[step * accumulated : (step + 1) * accumulated]
            assert {batches[number]["step"] for number in mine} == {step}
            seen += [example for number in mine for example in batches[number]["examples"].tolist()]
        assert sorted(seen) == sorted(wanted.tolist())


@pytest.mark.parametrize("together", [1, 2, 4])
def test_so_many_of_a_family_travel_in_one_step(together):
    random = np.random.default_rng(1)
    families = random.permutation(np.repeat(np.arange(60), 4))
    lengths = draw_lengths(60)[families] + random.integers(0, 5, 240)
    plan = plan_steps(lengths, 8, 2, seed=0, families=families, together=together)
    assert sorted(plan[:30].ravel().tolist()) == list(range(240))
    for step in families[plan]:
        _, counts = np.unique(step, return_counts=True)
        assert (counts % together == 0).all()  # blocks of two or four fill a step of eight without a rest


def test_members_of_a_family_beyond_those_that_travel_together_are_spread():
    families = np.repeat(np.arange(100), 12)
    plan = plan_steps(np.full(1200, 10), 12, 1, seed=0, families=families, together=3)
    different = [len(set(families[step].tolist())) for step in plan]
    assert 3.5 < np.mean(different) <= 4


def test_without_families_the_order_is_that_of_families_of_one():
    lengths = draw_lengths(100)
    plan = plan_steps(lengths, 10, 1, seed=0, families=np.arange(100), together=3)
    assert (plan == plan_steps(lengths, 10, 1, seed=0)).all()


def test_the_integer_type_of_the_family_numbers_does_not_matter():
    # A token cache gives uint32. At 131,071 pairs number times pairs passes 2^32, and two families fall together.
    pairs = 2**17 - 1
    families = np.random.default_rng(0).permutation(pairs) // 2
    lengths = np.full(pairs, 10)
    wanted = plan_steps(lengths, 64, 1, seed=0, families=families.astype(np.int64), together=2)
    found = plan_steps(lengths, 64, 1, seed=0, families=families.astype(np.uint32), together=2)
    assert (found == wanted).all()


@pytest.mark.parametrize("examples", [1, 9])
def test_too_few_examples_for_a_batch_are_an_error(examples):
    with pytest.raises(MilcoError, match=r"^global_batch_size: .*10$"):
        plan_steps(draw_lengths(examples), 10, 100, seed=0)
