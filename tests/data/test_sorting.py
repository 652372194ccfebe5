"""Pairs sorted and joined on disk."""

import numpy as np
import pytest

import milco.data.sorting
from milco.data.sorting import Digests, Sorted

EDGES = np.array([3, 4, 50, 90], np.uint64)


def draw(count, seed):
    """Pairs of which many share a key; some keys are edges, and one is as large as can be."""
    pairs = np.random.default_rng(seed).integers(0, 99, (count, 2)).astype(np.uint64)
    pairs[pairs[:, 0] == 98, 0] = 2**64 - 1
    return pairs


@pytest.mark.parametrize("run", [1, 7, 1000])
@pytest.mark.parametrize("cuts", [[], [0, 1, 5, 5, 180]])
def test_pairs_are_by_key_and_those_of_a_part_between_its_edges(monkeypatch, run, cuts):
    monkeypatch.setattr(milco.data.sorting, "RUN", run)
    pairs = draw(200, 0)
    found = Sorted(np.split(pairs, cuts), EDGES)
    parts = list(found.parts())
    assert len(found) == 200 and len(parts) == 5
    assert [(part[:, 0] >= low).all() for part, low in zip(parts[1:], EDGES, strict=True)] == [True] * 4
    assert [(part[:, 0] < high).all() for part, high in zip(parts[:-1], EDGES, strict=True)] == [True] * 4
    together = np.concatenate(parts)
    assert (np.diff(together[:, 0].astype(object)) >= 0).all()
    assert sorted(together.tolist()) == sorted(pairs.tolist())


@pytest.mark.parametrize("counts", [(150, 200), (0, 20), (20, 0)])
def test_a_join_pairs_all_values_of_a_key(monkeypatch, counts):
    monkeypatch.setattr(milco.data.sorting, "RUN", 64)
    here, there = (draw(count, seed) for seed, count in enumerate(counts))
    joined = Sorted([here], EDGES).joined(Sorted([there], EDGES))
    wanted = [(int(one[1]), int(other[1])) for one in here for other in there if one[0] == other[0]]
    assert sorted(map(tuple, np.concatenate(list(joined)).tolist())) == sorted(wanted)


@pytest.mark.parametrize("run", [1, 7, 1000])
@pytest.mark.parametrize("again", [None, 0, 5, 99])
def test_a_digest_that_comes_twice_is_found(monkeypatch, run, again):
    monkeypatch.setattr(milco.data.sorting, "RUN", run)
    numbers = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 100).tolist()
    digests = Digests()
    for number in [*numbers, *(numbers[again : again + 1] if again is not None else [])]:
        digests.add(number)
    assert digests.repeated() == (again is not None)
