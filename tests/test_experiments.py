"""Experiments, their variants and what they share."""

import pytest

from milco.config import parse, parse_all
from milco.errors import MilcoError
from milco.experiments import Experiment


def variants(values: dict, **experiments: dict) -> list[Experiment]:
    return [Experiment(config) for config in parse_all({**values, "experiments": experiments})]


def test_a_variant_is_the_experiment_with_its_changes(values):
    base, variant = variants(values, flops={"distill": {"sparse_reg": "flops"}})
    assert (base.name, variant.name) == ("miniature", "miniature-flops")
    changed = {**values, "experiment": "miniature-flops", "distill": {**values["distill"], "sparse_reg": "flops"}}
    assert variant.config == parse(changed)


def test_lists_are_replaced_and_sources_merged(values):
    more = {"uri": "file:other.tsv", "format": "pairs", "language": "yy"}
    (_, variant) = variants(values, more={"sources": {"more": more}, "align": {"train_datasets": ["more"]}})
    assert variant.config.align.train_datasets == ["more"]
    assert variant.config.sources.keys() == {*values["sources"], "more"}


def test_what_a_variant_does_not_change_lies_where_the_experiment_has_it(values):
    base, no_echo, longer = variants(
        values, **{"no-echo": {"model": {"echo": False}}, "longer": {"align": {"num_train_epochs": 3}}}
    )
    shared = {name for name in base.places if base.places[name] == no_echo.places.get(name)}
    assert {"corpora", "tokens", "teacher", "triples", "align", "runs-align", "runs-bm25", "encoder"} <= shared
    assert {"distill", "runs-distill", "index", "prune", "results", "settings"} & shared == set()
    assert base.places["tokens"] == longer.places["tokens"] and base.places["align"] != longer.places["align"]


def test_without_an_echo_there_is_no_source_view_to_weigh(values):
    weighed = {**values, "evaluate": {**values["evaluate"], "source_weights": [0.5]}}
    base, no_echo = variants(weighed, **{"no-echo": {"model": {"echo": False}}})
    assert base.config.systems()[-3:] == ["distill", "distill-pivot", "distill-source-0.5"]
    assert no_echo.config.systems()[-1] == "distill"
    assert base.places["vectors-distill-source-0.5"] == base.places["vectors-distill"]
    assert base.places["runs-distill-source-0.5"] != base.places["runs-distill"]


@pytest.mark.parametrize(
    ("experiments", "message"),
    [
        ({"x": {"model": {"ecko": False}}}, r"experiments\.x: model\.ecko: unknown key"),
        ({"x": {"distill": 3}}, r"experiments\.x: distill: .*valid dictionary"),
        ({"Große Gruppe": {}}, r"experiments\.Große Gruppe"),
        ({"x": {"align": {"train_datasets": ["nowhere"]}}}, r"experiments\.x: align\.train_datasets: no source"),
    ],
)
def test_a_wrong_variant_is_named(values, experiments, message):
    with pytest.raises(MilcoError, match=message):
        parse_all({**values, "experiments": experiments})
