"""Significance of differences between two systems, from their values on the same queries.

A query that occurs in several collections, such as a title with its translations, is one sample. Bootstrap and
randomisation test therefore resample a query with all its values.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, false_discovery_control, permutation_test

DRAWS = 9999
LEVEL = 0.05  # of q, below which a difference counts as more than chance
KEYS = ["difference", "low", "high", "p"]


def paired_difference(one: pd.Series, other: pd.Series, seed: int = 0) -> dict[str, float]:
    """Mean of `one` minus `other`, with its 95 % bootstrap interval and Fisher's two-sided randomisation test.

    Args:
        one, other: values with the same index, whose level `query` says which of them belong together (Smucker, Allan,
            Carterette 2007; by clusters: Davison, Hinkley 1997, section 3.8).

    Returns:
        difference, low, high, p. Systems that agree on every query have p = 1. With one query there is no interval
        (NaN), and p = 1, since either sign is as likely; without queries there is no difference either.
    """
    gaps = (one - other).groupby(level="query")
    totals, sizes = gaps.sum().to_numpy(float), gaps.size().to_numpy(float)
    nan = float("nan")
    if not len(totals):
        return dict.fromkeys(KEYS, nan)
    difference = totals.sum() / sizes.sum()
    if len(totals) == 1:
        return {"difference": difference, "low": nan, "high": nan, "p": 1.0}
    if not totals.any():
        return {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    how = {"n_resamples": DRAWS, "vectorized": True, "batch": 200, "rng": np.random.default_rng(seed)}
    low, high = _interval(totals, sizes, how)
    test = permutation_test((totals, np.zeros_like(totals)), _mean_gap, permutation_type="samples", **how)
    return {"difference": difference, "low": low, "high": high, "p": test.pvalue}


def interval_of_mean(values: pd.Series, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval over queries of a mean in which every collection counts as much.

    Args:
        values: with the index levels `collection` and `query`.

    Returns:
        low, high; NaN where there are not two queries.
    """
    weights = 1 / values.groupby(level="collection").transform("size")
    totals, sizes = (part.groupby(level="query").sum().to_numpy(float) for part in (values * weights, weights))
    if len(totals) < 2:
        return float("nan"), float("nan")
    how = {"n_resamples": DRAWS, "vectorized": True, "batch": 200, "rng": np.random.default_rng(seed)}
    return _interval(totals, sizes, how)


def _interval(totals: np.ndarray, sizes: np.ndarray, how: dict[str, Any]) -> tuple[float, float]:
    interval = bootstrap((totals, sizes), _mean, paired=True, method="percentile", **how).confidence_interval
    return interval.low, interval.high


def adjusted(chances: pd.Series) -> pd.Series:
    """The p of a family of tests, adjusted (Benjamini and Hochberg 1995). Tests without a p (NaN) do not count and are
    not in the result."""
    made = chances.dropna()
    return pd.Series(false_discovery_control(made) if len(made) else [], index=made.index, dtype=float)


def interval(low: float, high: float, form: str = "+.3f") -> str:
    """The ends of an interval, for a reader."""
    return "–" if np.isnan(low) else f"{low:{form}} … {high:{form}}"


def chance(value: float) -> str:
    """A p or q, for a reader."""
    return "–" if np.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _mean(totals: np.ndarray, sizes: np.ndarray, axis: int) -> np.ndarray:
    return totals.sum(axis) / sizes.sum(axis)


def _mean_gap(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(one - other, axis=axis)
