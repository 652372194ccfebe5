"""What a fine-tuning gained, and what it lost."""

import numpy as np
import pandas as pd
import pytest
from test_config import MISSING, OWN_COLLECTION, demo

from milco.config import parse
from milco.evaluation.forgetting import OTHERS, TUNED, forgotten, in_words

# language of the queries → what the fine-tuning changes of each query on average
CHANGES = {"de": 0.2, "ja": -0.1, "en": 0.0}


def config(**changes):
    return parse(demo(OWN_COLLECTION | {"languages": MISSING, "eval_languages": MISSING} | changes))


@pytest.fixture
def measures() -> pd.DataFrame:
    """50 queries of three collections by three systems; the baseline has not measured all."""
    random, rows = np.random.default_rng(0), []
    for language, change in CHANGES.items():
        start = random.uniform(0.3, 0.6, 50)
        values = {"start": start, "distill": start + change + random.normal(0, 0.05, 50), "bm25": start[:10]}
        for system, column in values.items():
            for query, value in enumerate(column):
                rows.append((system, f"{language}-en", f"q{query}", language, "nDCG@10", value))
    rows.append(("start", "de-en", "q0", "de", "R@100", 1.0))
    return pd.DataFrame(rows, columns=["system", "collection", "query", "query_language", "measure", "value"])


def test_gains_and_losses_are_told_by_language_those_trained_on_first(measures):
    table = forgotten(config(), measures)
    assert list(table.index) == [TUNED, OTHERS, "de-en", "ja-en", "en-en"]
    assert table.tuned.tolist() == [True, False, True, False, False]
    assert table.queries.tolist() == [50, 100, 50, 50, 50]
    np.testing.assert_allclose(table.difference, [0.2, -0.05, 0.2, -0.1, 0.0], atol=0.03)
    np.testing.assert_allclose(table.now - table.start, table.difference)
    assert (table.low < table.difference).all() and (table.difference < table.high).all()
    assert in_words(table) == ("Of 3 collections gained beyond chance: de-en; lost beyond chance: ja-en (q < 0.05).")


def test_without_the_start_among_the_baselines_nothing_is_told(measures):
    assert forgotten(config(**{"evaluate/baselines": ["bm25"]}), measures).empty
    assert forgotten(parse(demo()), measures).empty
    assert forgotten(config(**{"evaluate/compared_measure": "R@100"}), measures[measures.measure == "nDCG@10"]).empty


def test_where_the_language_of_the_training_is_not_asked_all_are_others(measures):
    table = forgotten(config(), measures[measures.query_language != "de"])
    assert list(table.index) == [OTHERS, "ja-en", "en-en"]
