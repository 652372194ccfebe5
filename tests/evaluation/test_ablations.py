"""The comparison of experiments: what is paired, what is more than chance, what is said."""

import numpy as np
import pandas as pd
import pytest

from milco.config import parse
from milco.evaluation.ablations import Row, by_collection, compare, differences

QUERIES = 60


def row(name: str, values: dict[str, np.ndarray]) -> Row:
    """One experiment's nDCG@10 by collection and query."""
    parts = [
        pd.DataFrame({"collection": collection, "query": [f"q{n}" for n in range(len(found))], "value": found})
        for collection, found in values.items()
    ]
    active = pd.Series({"active_query": 3.0, "active_document": 9.0})
    return Row(name, {}, [], pd.concat(parts).assign(measure="nDCG@10"), active)


@pytest.fixture
def rows() -> list[Row]:
    chance = np.random.default_rng(0)
    base = chance.uniform(0.3, 0.6, QUERIES)
    noise = chance.normal(0, 0.05, QUERIES)
    return [
        row("base", {"de-en": base, "ja-en": base}),
        row("better", {"de-en": base + 0.1, "ja-en": base + noise}),
        row("chance", {"de-en": base + noise, "ja-en": base - noise}),
        row("german", {"de-en": base - 0.1}),
    ]


def test_differences_are_those_of_queries_that_both_were_asked(rows):
    table = compare(rows)
    assert table.queries.tolist() == [2 * QUERIES, 2 * QUERIES, 2 * QUERIES, QUERIES]
    assert table.difference["german"] == pytest.approx(-0.1) and table.difference["base"] == 0
    assert table.significant.tolist() == [False, True, False, True]
    assert (table.low <= table.difference).all() and (table.difference <= table.high).all()


def test_adjusted_chances_are_no_smaller(rows):
    table = compare(rows)
    assert np.isnan(table.q["base"]) and (table.q >= table.p)[1:].all()


def test_marks_name_the_collection_that_gained_or_lost(rows):
    values, marks = by_collection(rows)
    assert marks.loc["de-en"].tolist() == [0, 1, 0, -1]
    assert marks.loc["ja-en"].tolist() == [0, 0, 0, 0]
    assert np.isnan(values.at["ja-en", "german"])


def test_one_experiment_alone_is_compared_with_nothing(rows):
    assert len(compare(rows[:1])) == 1


def test_changed_keys_are_named_with_their_new_values(values):
    changed = {**values, "experiment": "other", "distill": {**values["distill"], "lambda_d": 0.5}}
    assert differences(parse(values), parse(changed)) == {"distill.lambda_d": 0.5}
