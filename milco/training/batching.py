"""Assign examples to optimizer steps, and texts to encoder passes.

The order is random, grouped by length, and deterministic: it depends only on the seed, the lengths and the global batch
size, not on the number of processes. Any step is computed directly, at a cost that does not grow with the corpus, so a
run can resume at any step.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from milco.errors import MilcoError

POOL = 50  # global batches that are sorted by length together: more means less padding and less random batches
# Starting one more forward and backward pass takes as long as so many tokens.
COST_OF_A_PASS = 4096 if torch.cuda.is_available() else 24
Batch = dict[str, Any]  # what the model is given in one step
ROUNDS = 4  # of the Feistel network; three make it a good random permutation (Luby and Rackoff 1988)


def places_in_random_order(places: np.ndarray, count: int, *key: int) -> np.ndarray:
    """Elements of a random permutation of 0 … count-1 at the given positions, without building the permutation.

    A Feistel network permutes the next power of four; what falls outside of `count` goes through it again.
    """
    half = np.uint64(max(1, -(-(count - 1).bit_length() // 2)))
    low = np.uint64((1 << int(half)) - 1)
    keys = np.random.default_rng(key).integers(2**63, size=ROUNDS, dtype=np.uint64)
    found = places.astype(np.uint64)
    again = np.ones(len(found), bool)
    while again.any():
        left, right = found[again] >> half, found[again] & low
        for round_key in keys:
            left, right = right, left ^ (_mixed(right ^ round_key) & low)
        found[again] = left << half | right
        again &= found >= count
    return found.astype(np.int64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64: every bit of the result depends on all bits of the value."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


class Steps:
    """Examples of every optimizer step: `steps[n]` holds the numbers of those of step n, from short to long.

    Each epoch has a new random order. Pools of `POOL` steps of it are sorted by length and cut into steps, and the
    steps are shuffled. Examples that do not fill a last step are used in the next epoch.

    Args:
        lengths: numbers of examples → their tokens.
        families: (size, how many) of runs of neighbouring examples that share a text (for pairs: the English one).
        global_batch_size: examples per step over all processes.
        epochs: passes over the data; a fraction is allowed.
        together: number of examples of a family that stay together as a block, so that their shared text is encoded
            once.

    Raises:
        MilcoError: there are fewer examples than one step takes.
    """

    def __init__(
        self,
        lengths: Callable[[np.ndarray], np.ndarray],
        families: list[tuple[int, int]],
        global_batch_size: int,
        epochs: float,
        seed: int,
        together: int = 1,
    ):
        self.lengths, self.size, self.seed, self.together = lengths, global_batch_size, seed, together
        self.examples = sum(size * count for size, count in families)
        self.per_epoch = self.examples // global_batch_size
        if self.per_epoch == 0:
            raise MilcoError(f"global_batch_size: {self.examples} examples do not fill one step of {global_batch_size}")
        self.count = max(1, round(epochs * self.examples / global_batch_size))
        self.pools = math.ceil(self.per_epoch / POOL)
        self.kinds = _kinds_of_blocks(families, together)
        self.last: tuple[tuple[int, int], np.ndarray] | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> np.ndarray:
        if not 0 <= step < self.count:
            raise IndexError(step)
        epoch, step = divmod(step, self.per_epoch)
        pool = step // POOL
        if self.last is None or self.last[0] != (epoch, pool):
            self.last = (epoch, pool), self._pool(epoch, pool)
        return self.last[1][step % POOL]

    def _pool(self, epoch: int, pool: int) -> np.ndarray:
        first, end = pool * POOL * self.size, min((pool + 1) * POOL, self.per_epoch) * self.size
        share = min(self.pools - 1, first * self.pools // self.examples + 1)
        while self._before(share) > first:
            share -= 1
        start, parts = self._before(share), []
        while self._before(share) < end:
            parts.append(self._share(epoch, share))
            share += 1
        examples = np.concatenate([found for found, _ in parts])[first - start : end - start]
        blocks = np.concatenate([sizes for _, sizes in parts])
        block = np.repeat(np.arange(len(blocks)), blocks)[first - start : end - start]
        starts = np.flatnonzero(np.r_[True, block[1:] != block[:-1]])
        longest = np.maximum.reduceat(self.lengths(examples), starts)
        by_length = examples[np.argsort(np.repeat(longest, np.diff(np.r_[starts, len(block)])), kind="stable")]
        return np.random.default_rng([self.seed, epoch, pool]).permutation(by_length.reshape(-1, self.size))

    def _before(self, share: int) -> int:
        """Examples before a share of the epoch; every share has the same mix of block sizes."""
        return sum(size * (kind[-1][1] * share // self.pools) for size, kind in self.kinds.items())

    def _share(self, epoch: int, share: int) -> tuple[np.ndarray, np.ndarray]:
        """Examples of a share of the epoch, block by block in random order, and the sizes of the blocks."""
        members, sizes = [], []
        for size, kind in self.kinds.items():
            count = kind[-1][1]
            places = np.arange(count * share // self.pools, count * (share + 1) // self.pools)
            blocks = places_in_random_order(places, count, self.seed, epoch, size)
            members.append(self._members(epoch, size, np.array(kind), blocks).ravel())
            sizes.append(np.full(len(blocks), size))
        ordered = np.concatenate(sizes)
        start = np.cumsum(ordered) - ordered
        order = np.random.default_rng([self.seed, epoch, self.pools, share]).permutation(len(ordered))
        ordered, start = ordered[order], start[order]
        place = np.repeat(start - (np.cumsum(ordered) - ordered), ordered) + np.arange(ordered.sum())
        return np.concatenate(members)[place], ordered

    def _members(self, epoch: int, size: int, kind: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """Examples of each block, blocks × size; in another epoch a family is cut elsewhere."""
        row = kind[np.searchsorted(kind[:, 1], blocks, side="right")]
        first_block, _, first_example, family_size, per_family, skipped = row.T
        family, number = np.divmod(blocks - first_block, per_family)
        turned = epoch + (skipped + number) * self.together
        first = first_example + family * family_size
        return first[:, None] + (turned[:, None] + np.arange(size)) % family_size[:, None]


def _kinds_of_blocks(families: list[tuple[int, int]], together: int) -> dict[int, list[tuple]]:
    """Size of a block → where such blocks come from: rows of (first block, end, first example of these families, their
    size, blocks of this size in each of them, blocks before those)."""
    kinds: dict[int, list[tuple]] = {}
    example = 0
    for family_size, count in families:
        whole, rest = divmod(family_size, together)
        for size, per_family, skipped in ((together, whole, 0), (rest, 1, whole)):
            if size and per_family:
                rows = kinds.setdefault(size, [])
                first = rows[-1][1] if rows else 0
                rows.append((first, first + per_family * count, example, family_size, per_family, skipped))
        example += family_size * count
    return kinds


def passes(lengths: np.ndarray, budget: int, cost_of_a_pass: int) -> list[tuple[np.ndarray, int]]:
    """Partition texts into encoder passes at the lowest cost.

    Texts are sorted by length and cut into runs, each padded to its longest text. The cut with the fewest tokens is
    taken, counting those of the texts, the pads, and `cost_of_a_pass` for every run.

    Args:
        lengths: tokens of each text.
        budget: padded tokens that one run may have; a single longer text has a run of its own.

    Returns:
        (places of the texts, tokens of the longest) of each run.
    """
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    best = np.zeros(len(order) + 1)
    cut = np.zeros(len(order) + 1, int)
    for end in range(1, len(order) + 1):
        longest = int(ordered[end - 1])
        first = max(0, end - max(1, budget // longest))
        starts = np.arange(first, end)
        costs = best[starts] + (end - starts) * longest + cost_of_a_pass
        cut[end] = first + int(costs.argmin())
        best[end] = costs.min()
    runs, end = [], len(order)
    while end:
        runs.append((order[cut[end] : end], int(ordered[end - 1])))
        end = cut[end]
    return runs[::-1]


def collate_texts(texts: list[np.ndarray], pad_id: int, budget: int) -> Batch:
    """Token ids of N texts → inputs of the model.

    Args:
        budget: tokens whose states a process keeps (`max_tokens_per_device`).

    Returns:
        input_ids and attention_mask (N×L, padded on the right), passes (see there) and recompute: whether the texts do
        not fit into the budget together, so that each pass is encoded again in the backward pass.
    """
    lengths = np.array([len(text) for text in texts])
    ids = pad_sequence([torch.from_numpy(text.astype(np.int64)) for text in texts], True, pad_id)
    together = passes(lengths, budget, COST_OF_A_PASS)
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(ids.shape[1]) < torch.from_numpy(lengths)[:, None]).long(),
        "passes": [(torch.from_numpy(rows), length) for rows, length in together],
        "recompute": len(together) > 1 and int(lengths.sum()) > budget,
    }
