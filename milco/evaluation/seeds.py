"""Variation over training seeds: the same systems, trained with several seeds and measured on the same queries."""

from pathlib import Path

import pandas as pd

from milco.evaluation.comparison import Comparison
from milco.evaluation.significance import interval_of_mean
from milco.experiments import Node


def measures_of(runs: dict[int, Node]) -> pd.DataFrame:
    """What rule `evaluate` measured of one system with each training seed: a row per seed, collection, query and
    measure."""
    found = [pd.read_parquet(Path(node.path) / "measures.parquet").assign(seed=seed) for seed, node in runs.items()]
    return pd.concat(found, ignore_index=True)


def table_of(measures: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """One row per system: for each seed the mean over the compared collections, then `mean` and `deviation` of these
    (of a sample), then `low` and `high`, the 95 % interval over queries of that mean. Empty where nothing is compared.

    Args:
        measures: a row per system, seed, collection, query and measure.
    """
    rows = comparison.rows(measures) if len(measures) else measures
    if rows.empty:
        return pd.DataFrame()
    collections = rows.groupby(["system", "seed", "collection"], sort=False).value.mean()
    table = collections.groupby(["system", "seed"], sort=False).mean().unstack("seed")[rows.seed.unique()]
    queries = rows.groupby(["system", "collection", "query"]).value.mean()
    intervals = {system: interval_of_mean(queries[system]) for system in table.index}
    figures = {"mean": table.mean(axis=1), "deviation": table.std(axis=1)}
    ends = pd.DataFrame.from_dict(intervals, orient="index", columns=["low", "high"])
    return table.assign(**figures).join(ends)
