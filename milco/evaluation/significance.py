"""Whether a difference between two systems is more than chance, from their values of the same queries."""

import numpy as np
from scipy.stats import bootstrap, permutation_test

DRAWS = 9999
KEYS = ["difference", "low", "high", "p"]


def paired_difference(one: np.ndarray, other: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Mean of `one` minus `other`, with its 95 % bootstrap interval and Fisher's two-sided randomisation test.

    Args:
        one, other: a value of each query, in the same order (Smucker, Allan, Carterette 2007).

    Returns:
        difference, low, high, p. Systems that agree on every query have p = 1. One query has no interval (NaN), and
        p = 1, since its sign is as likely as the other one; no query has no difference either.
    """
    gaps = np.asarray(one, float) - np.asarray(other, float)
    if len(gaps) < 2:
        nan = float("nan")
        return {"difference": gaps[0], "low": nan, "high": nan, "p": 1.0} if len(gaps) else dict.fromkeys(KEYS, nan)
    if not gaps.any():
        return {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    random = np.random.default_rng(seed)
    how = {"n_resamples": DRAWS, "vectorized": True, "batch": 200, "rng": random}
    interval = bootstrap((gaps,), np.mean, method="percentile", **how).confidence_interval
    test = permutation_test((gaps, np.zeros_like(gaps)), _mean_gap, permutation_type="samples", **how)
    return {"difference": gaps.mean(), "low": interval.low, "high": interval.high, "p": test.pvalue}


def _mean_gap(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(one - other, axis=axis)
