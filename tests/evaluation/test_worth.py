"""The line above the main table: whose labels, and what one point means."""

import pandas as pd
import pytest
from test_config import demo
from test_report import comparison, pages, results

from milco import config
from milco.evaluation.comparison import Comparison
from milco.evaluation.report import worth_of

NOTHING = pd.DataFrame()  # no other system, or no other seed


@pytest.fixture
def settings():
    own = {"uri": "file:x", "format": "beir", "language": "de", "document_language": "en"}
    return config.parse(demo({"sources/own": own}))


def against(*reaches: float) -> pd.DataFrame:
    return pd.DataFrame([{"queries": 90, "different": 30, "low": 0.1 - r, "high": 0.1 + r, "p": 0.1} for r in reaches])


@pytest.mark.parametrize(
    ("reaches", "verdict"),
    [
        ([0.011, 0.02], "cannot be told from chance"),
        ([0.005, 0.02], "may be chance"),
        ([0.005, 0.009], "is more than chance"),
    ],
)
def test_one_point_is_held_against_the_intervals(settings, reaches, verdict):
    said = worth_of(
        settings, Comparison("nDCG@10", ["de-en"], True, {"de-en": "home-assistant"}), against(*reaches), NOTHING
    )
    assert f"reaches {reaches[0]:.3f} to {reaches[1]:.3f} to either side, over 30 different queries" in said
    assert f"a difference of one point (0.01) {verdict}." in said


def test_labels_are_derived_or_given(settings):
    sources = {"de-en": "home-assistant", "own": "own"}
    both = worth_of(settings, Comparison("nDCG@10", ["de-en", "own"], True, sources), NOTHING, NOTHING)
    assert "labels of home-assistant are derived" in both and "labels of own are the judgements" in both
    assert "one point" not in both
    assert "derived" not in worth_of(settings, Comparison("nDCG@10", ["own"], True, sources), NOTHING, NOTHING)


def test_where_nothing_is_trained_no_seed_moves_the_figures(settings):
    compared = Comparison("nDCG@10", ["own"], True, {"own": "own"})
    assert "Another seed" in worth_of(settings, compared, against(0.02), NOTHING)
    finished = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"model": "own"})})
    assert "seed" not in worth_of(finished, compared, against(0.02), NOTHING)


def test_it_stands_above_the_first_table_of_both_pages(values, tmp_path):
    found = results([("mine-de", "de", "en", "nDCG@10")])
    page, summary = pages(values, found, comparison(found), tmp_path)
    said = "The labels of mine are the judgements that came with the collections."
    assert page.index(said) < page.index("<table") and summary.index(said) < summary.index("| collection |")
