"""The collections and the measure on which systems, pruning budgets and experiments are compared
(`evaluate.compared_collections`, `compared_measure`). Default: the cross-lingual collections with this measure, or all
collections with it."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from milco.config import Config
from milco.data.beir import read_about

ASKED = ["collection", "query"]  # columns that say what a value is of
FEW = 3  # sources that a sentence names


class Comparison(NamedTuple):
    """What an experiment's results are compared on.

    measure: as `measures.parquet` names it.
    collections: names of the test collections; none, if none has this measure.
    across: whether all of them are cross-lingual.
    sources: test collection → its source, for all test collections.
    """

    measure: str
    collections: list[str]
    across: bool
    sources: dict[str, str]

    @classmethod
    def of(cls, config: Config, collections: Path, split: str = "test") -> "Comparison":
        """Make it from a configuration and the folder of its test collections, or, for the split `dev`, of its
        development collections, on which budgets are chosen."""
        said = {folder.name: read_about(folder) for folder in sorted(collections.iterdir())}
        sources = {name: about["source"] for name, about in said.items()}
        having = [name for name, source in sources.items() if source in config.compared_sources(split)]
        across = [name for name in having if said[name]["query_language"] != said[name]["document_language"]]
        chosen = having if config.evaluate.compared_collections else across or having
        return cls(config.evaluate.compared_measure, chosen, bool(chosen) and chosen == across, sources)

    def rows(self, measures: pd.DataFrame) -> pd.DataFrame:
        """The rows that are compared, of a table with the columns collection and measure."""
        return measures[(measures.measure == self.measure) & measures.collection.isin(self.collections)]

    def __str__(self) -> str:
        """The collections in words, or why there are none."""
        if not self.collections:
            return f"no test collection is measured with {self.measure} (evaluate.compared_measure)"
        if len(self.collections) == 1:
            return f"collection {self.collections[0]}"
        if self.across:
            return f"{len(self.collections)} cross-lingual collections"
        sources = list(dict.fromkeys(self.sources[name] for name in self.collections))
        of = ", ".join(sources) if len(sources) <= FEW else f"{len(sources)} sources"
        return f"{len(self.collections)} collections of {of}"
