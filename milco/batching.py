"""Which examples form which optimizer step: random, by length, and known in advance.

The plan depends on the seed, the lengths and the global batch size alone, never on how many processes share the
work, and any step of it can be looked up directly, so that a resumed run goes on where it stopped.
"""

import math

import numpy as np

from milco.errors import MilcoError

POOL = 50  # global batches that are sorted by length together: more means less padding and less random batches


def plan_steps(
    lengths: np.ndarray,
    global_batch_size: int,
    epochs: float,
    seed: int,
    families: np.ndarray | None = None,
    together: int = 1,
) -> np.ndarray:
    """Examples of every optimizer step.

    Each epoch is a new random order, in which pools of `POOL` batches are sorted by length, cut into batches and
    the batches shuffled. The examples that do not fill a last batch wait for the next epoch's order.

    Args:
        lengths: tokens of each example.
        global_batch_size: examples per step over all processes.
        epochs: passes over the data; a fraction is allowed.
        families: examples with the same number share a text (for pairs: the English one).
        together: so many examples of a family travel together, so that the shared text is encoded once for them.

    Returns:
        steps × global_batch_size example numbers; within a step from short to long.

    Raises:
        MilcoError: there are fewer examples than one step takes.
    """
    per_epoch = len(lengths) // global_batch_size
    steps = max(1, round(epochs * len(lengths) / global_batch_size))
    if per_epoch == 0:
        raise MilcoError(f"global_batch_size: {len(lengths)} examples do not fill one step of {global_batch_size}")
    # A token cache numbers its English texts in uint32, in which the blocks' numbers would overflow.
    families = np.arange(len(lengths)) if families is None else families.astype(np.int64)
    epoch_plans = [
        _plan_epoch(lengths, global_batch_size, families, together, np.random.default_rng([seed, epoch]))
        for epoch in range(math.ceil(steps / per_epoch))
    ]
    return np.concatenate(epoch_plans)[:steps]


def _plan_epoch(
    lengths: np.ndarray, size: int, families: np.ndarray, together: int, random: np.random.Generator
) -> np.ndarray:
    order = _random_blocks(families, together, random)
    order = order[: len(order) // size * size]
    pools = [order[start : start + POOL * size] for start in range(0, len(order), POOL * size)]
    by_length = np.concatenate([_sort_blocks(pool, lengths, families) for pool in pools])
    steps = random.permutation(by_length.reshape(-1, size))
    return np.take_along_axis(steps, np.argsort(lengths[steps], axis=1, kind="stable"), axis=1)


def _random_blocks(families: np.ndarray, together: int, random: np.random.Generator) -> np.ndarray:
    """All examples in random order, up to `together` of a family in a row."""
    order = random.permutation(len(families))
    order = order[np.argsort(families[order], kind="stable")]
    first = np.searchsorted(families[order], families[order], side="left")
    block = families[order] * (len(families) + 1) + (np.arange(len(order)) - first) // together
    _, block = np.unique(block, return_inverse=True)
    return order[np.argsort(random.permutation(block.max() + 1)[block], kind="stable")]


def _sort_blocks(pool: np.ndarray, lengths: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Neighbours of one family stay together; the rest is ordered by the longest example of the family's run."""
    starts = np.flatnonzero(np.r_[True, families[pool][1:] != families[pool][:-1]])
    run = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(pool)]))
    longest = np.maximum.reduceat(lengths[pool], starts)
    return pool[np.argsort(longest[run], kind="stable")]
