"""Split a search over several jobs, one shard of the documents each, and merge their results.

A job writes `{name}.parquet` (search, and the places and scores of the best documents; a row for each query) and
`{name}.json` (numbers that add up over the shards). Exact search gives bit-identical results for any number of jobs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from milco.evaluation.search import Ranking
from milco.files import finished_file, write_json


class Shard(NamedTuple):
    """One of so many shards, counted from 0."""

    number: int = 0
    shards: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read it as the workflow names it, from 1: `2-of-8`."""
        number, shards = map(int, text.split("-of-"))
        return cls(number - 1, shards)

    def of(self, length: int) -> range:
        """The places of this shard among `length` places."""
        return range(*(length * edge // self.shards for edge in (self.number, self.number + 1)))


ALL = Shard()


@dataclass
class Found:
    """What some searches found in a shard of the documents.

    Args:
        rankings: by the name of the search, one for each query.
        sums: numbers, or lists of numbers, that add up over the shards.
    """

    rankings: dict[str, list[Ranking]]
    sums: dict[str, Any]

    def save(self, path: Path) -> None:
        """Save sums, then rankings: if a rankings file exists, its sums exist as well."""
        write_json(path.with_name(f"{path.name}.json"), self.sums)
        rows = [
            (search, [place for place, _ in ranking], [score for _, score in ranking])
            for search, rankings in self.rankings.items()
            for ranking in rankings
        ]
        with finished_file(path.with_name(f"{path.name}.parquet")) as draft:
            pd.DataFrame(rows, columns=["search", "places", "scores"]).to_parquet(draft, index=False)


def put_together(paths: Sequence[Path], depths: Mapping[str, int]) -> Found:
    """What all shards found, from what `Found.save` wrote of each.

    Args:
        depths: search → how many documents to keep for each query.
    """
    tables = [pd.read_parquet(path.with_name(f"{path.name}.parquet")) for path in paths]
    numbers = [json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8")) for path in paths]
    sums = {name: np.sum([shard[name] for shard in numbers], axis=0).tolist() for name in numbers[0]}
    rankings = {}
    for search, depth in depths.items():
        answers = zip(*(table[table.search == search].itertuples() for table in tables), strict=True)
        rankings[search] = [_best(hits, depth) for hits in answers]
    return Found(rankings, sums)


def _best(hits: tuple, depth: int) -> Ranking:
    """The best documents of a query among those of all shards, ties in the order of places."""
    places, scores = (np.concatenate([getattr(hit, name) for hit in hits]) for name in ("places", "scores"))
    best = np.lexsort((places, -scores))[:depth]
    return list(zip(places[best].tolist(), scores[best].tolist(), strict=True))
