"""What systems, budgets of pruning and experiments are compared on: `evaluate.compared_collections` and
`evaluate.compared_measure`, or what they leave to the collections that there are."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from milco.config import Config
from milco.data.beir import read_about

ASKED = ["collection", "query"]  # what a value is of
FEW = 3  # sources that a sentence names


class Comparison(NamedTuple):
    """The choice of an experiment.

    measure: as `measures.parquet` names it.
    collections: names of the test collections; none, if none is measured so.
    across: whether all of them are cross-lingual.
    sources: test collection → its source, of all of them.
    """

    measure: str
    collections: list[str]
    across: bool
    sources: dict[str, str]

    @classmethod
    def of(cls, config: Config, collections: Path, split: str = "test") -> "Comparison":
        """That of a configuration, with the folder of its test collections; of the split `dev` with that of its
        development collections, on which budgets are chosen."""
        said = {folder.name: read_about(folder) for folder in sorted(collections.iterdir())}
        sources = {name: about["source"] for name, about in said.items()}
        having = [name for name, source in sources.items() if source in config.compared_sources(split)]
        across = [name for name in having if said[name]["query_language"] != said[name]["document_language"]]
        chosen = having if config.evaluate.compared_collections else across or having
        return cls(config.evaluate.compared_measure, chosen, bool(chosen) and chosen == across, sources)

    def rows(self, measures: pd.DataFrame) -> pd.DataFrame:
        """Of rows with the columns collection and measure those that are compared."""
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
