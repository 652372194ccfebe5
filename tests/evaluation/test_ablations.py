"""The comparison of experiments: what is paired, what is more than chance, what is said."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from miniature import ROOT

from milco.config import Config, parse, parse_all
from milco.evaluation.ablations import Row, by_collection, compare, differences, write
from milco.evaluation.comparison import Comparison
from milco.experiments import Experiment

QUERIES = 60
BOTH = Comparison("nDCG@10", ["de-en", "ja-en"], True, {})


def row(name: str, values: dict[str, np.ndarray]) -> Row:
    """One experiment's nDCG@10 by collection and query."""
    parts = [
        pd.DataFrame({"collection": collection, "query": [f"q{n}" for n in range(len(found))], "value": found})
        for collection, found in values.items()
    ]
    active = pd.Series({"active_query": 3.0, "active_document": 9.0})
    return Row(name, {}, [], pd.concat(parts).assign(measure="nDCG@10", seed=42), active)


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
    table = compare(rows, BOTH)
    assert table.queries.tolist() == [2 * QUERIES, 2 * QUERIES, 2 * QUERIES, QUERIES]
    assert table.difference["german"] == pytest.approx(-0.1) and table.difference["base"] == 0
    assert table.significant.tolist() == [False, True, False, True]
    assert (table.low <= table.difference).all() and (table.difference <= table.high).all()


def test_a_query_counts_with_its_mean_over_the_seeds_and_the_deviation_is_that_between_them():
    """Three queries; the variant has the seeds 1 and 2, the base the seed 1 alone."""
    base, first, second = (row(name, {"de-en": np.array(found)}) for name, found in [
        ("base", [0.1, 0.2, 0.6]), ("variant", [0.3, 0.4, 0.8]), ("variant", [0.3, 0.2, 0.4]),
    ])  # fmt: skip
    first.measures = pd.concat([first.measures.assign(seed=1), second.measures.assign(seed=2)])
    table = compare([base, first], BOTH)
    assert table.seeds.tolist() == [1, 2] and table.queries.tolist() == [3, 3]
    assert table["nDCG@10"]["variant"] == pytest.approx((0.5 + 0.3) / 2)  # the means of the two seeds
    assert table.deviation["variant"] == pytest.approx((2 * 0.1**2) ** 0.5) and np.isnan(table.deviation["base"])
    assert table.difference["variant"] == pytest.approx((0.2 + 0.1 + 0.0) / 3)
    assert (table.low["variant"], table.high["variant"]) == pytest.approx((0.0, 0.2))  # of three values
    values, _ = by_collection([base, first], BOTH)
    assert values.at["de-en", "variant"] == pytest.approx(0.4)


def test_without_seeds_there_is_no_deviation(rows):
    assert not {"seeds", "deviation"} & {*compare(rows, BOTH)}


def test_adjusted_chances_are_no_smaller(rows):
    table = compare(rows, BOTH)
    assert np.isnan(table.q["base"]) and (table.q >= table.p)[1:].all()


def test_marks_name_the_collection_that_gained_or_lost(rows):
    values, marks = by_collection(rows, BOTH)
    assert marks.loc["de-en"].tolist() == [0, 1, 0, -1]
    assert marks.loc["ja-en"].tolist() == [0, 0, 0, 0]
    assert np.isnan(values.at["ja-en", "german"])


def test_the_first_row_is_no_test_of_its_own_family(rows):
    # one variant on one collection: its only test needs no adjustment; the base's p of 1 would double it
    base, chance = row("base", {"de-en": np.zeros(6)}), row("german", {"de-en": np.array([1.0] * 6)})
    assert compare([base, chance], BOTH).p["german"] == pytest.approx(2 / 2**6)  # below the level, its double is not
    assert by_collection([base, chance], BOTH)[1].loc["de-en"].tolist() == [0, 1]


@pytest.mark.filterwarnings("error")
def test_rows_that_share_no_query_or_one_with_the_first_are_there_and_decide_nothing(rows):
    others = [row("elsewhere", {"fr-en": np.ones(9)}), row("one", {"ja-en": np.ones(1)})]
    table, alone = compare([*rows, *others], BOTH), compare(rows, BOTH)
    assert table.queries.tolist()[-2:] == table.collections.tolist()[-2:] == [0, 1]
    assert table.loc["elsewhere", ["nDCG@10", "difference", "low", "p", "q"]].isna().all()
    assert table.p["one"] == 1 and np.isnan(table.low["one"]) and table.difference["one"] > 0
    # the family has four tests, without the others three: Benjamini and Hochberg multiply the smallest p by no more
    assert (table.q[["better", "german"]] <= 4 / 3 * alone.q[["better", "german"]] + 1e-9).all()
    values, marks = by_collection([*rows, *others], BOTH)
    assert list(values.index) == ["de-en", "ja-en"] and (marks[["elsewhere", "one"]] == 0).all(axis=None)
    assert by_collection([*rows, *others[:1]], BOTH)[1].loc["de-en"].tolist() == [0, 1, 0, -1, 0]


MIRACL = ["miracl-ar", "miracl-en", "miracl-sw"]
ASKED = {  # collection → languages, measures
    **{name: (name[-2:], name[-2:], ["nDCG@10", "R@100"]) for name in MIRACL},
    "neuclir-2023-fas": ("en", "fa", ["nDCG@20"]),
    "mkqa-de": ("de", "en", ["R@100"]),
    "mldr-de": ("de", "de", ["nDCG@10"]),
    "limit": ("en", "en", ["R@2"]),
}


def measured(config: Config, collections: dict) -> Experiment:
    """An experiment with everything that a comparison reads; its values grow with the length of a system's name."""
    experiment = Experiment(config)
    sources = {name: next(s for s in config.sources if f"{name}-".startswith(f"{s}-")) for name in collections}
    for name, (query, document, _) in collections.items():
        folder = Path(experiment.collections.path) / "collections" / "test" / name
        folder.mkdir(parents=True, exist_ok=True)
        about = {"query_language": query, "document_language": document, "source": sources[name]}
        (folder / "collection.json").write_text(json.dumps(about))
    english = [name for name, (_, document, _) in collections.items() if document == "en"]
    for system in config.systems():
        asked = english if system == "teacher" and english else list(collections)
        rows = [
            {"query": f"q{n}", "measure": measure, "value": n / 20 + 0.01 * len(system), "collection": name,
             "query_language": query, "document_language": document}
            for name, (query, document, measures) in collections.items() for measure in measures for n in range(8)
            if name in asked
        ]  # fmt: skip
        runs = Path(experiment.runs[system].path)
        runs.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_parquet(runs / "measures.parquet")
        active = {} if system == "bm25" else {"active_query": 5.0, "active_document": 40.0}
        (runs / "statistics.json").write_text(json.dumps([{"collection": name, **active} for name in collections]))
    return experiment


def written(experiments: list[Experiment], folder: Path) -> tuple[str, pd.DataFrame, str]:
    files = [folder / name for name in ("page.html", "table.csv", "summary.md")]
    write(experiments, ROOT / "config" / "published.yaml", *files)
    page, summary = files[0].read_text(encoding="utf-8"), files[2].read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", page + summary)
    return page, pd.read_csv(files[1], index_col="experiment"), summary


def test_the_paper_s_variants_are_compared_on_miracl_beside_published_figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = [yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()) for name in ("milco", "ablations")]
    whole = values[0] | values[1] | {key: values[0][key] | values[1][key] for key in ("sources", "evaluate")}
    whole["experiments"] = {name: whole["experiments"][name] for name in ("no-lexecho", "no-connector")}
    experiments = [measured(config, ASKED) for config in parse_all(whole)]
    page, table, summary = written(experiments, tmp_path)
    assert table.queries["no-connector"] == table.queries["BM25"] == 8 * len(MIRACL)
    assert table.loc["English teacher", ["queries", "collections"]].tolist() == [8, 1]
    assert table["nDCG@10"]["Stage 2"] == pytest.approx(3.5 / 20 + 0.01 * len("distill"))
    assert "nDCG@10, 3 collections of miracl; differences" in summary and "| miracl-sw |" in summary
    assert "neuclir" not in summary and "mldr" not in summary and "mean over the\nqueries that" in page
    assert "Published: arXiv 2510.00671, MIRACL dev, nDCG@10" in page and "InfoNCE instead of distillation" in page
    assert "Published: arXiv 2510.00671, NeuCLIR" in page or "Published: arXiv 2510.00671, LIMIT" in page


CASES = {  # what is measured → what the page says
    "cross-lingual ones, by default": ({"x-de": ("de", "en", ["nDCG@10"]), "x-en": ("en", "en", ["nDCG@10"])}, "x-de"),
    "all, if none is cross-lingual": ({"x-de": ("de", "de", ["nDCG@10"])}, "collection x-de"),
    "nothing": ({"x-de": ("de", "en", ["nDCG@20"])}, "Nothing is compared: no test collection is measured with nDCG"),
}  # fmt: skip


@pytest.mark.parametrize(
    "variants", [{}, {"flops": {"distill": {"sparse_reg": "flops"}}}], ids=["alone", "one variant"]
)
@pytest.mark.parametrize("case", CASES)
def test_there_is_a_page_whatever_was_measured(values, tmp_path, monkeypatch, case, variants):
    monkeypatch.chdir(tmp_path)
    collections, words = CASES[case]
    source = {**values["sources"]["mine"], "measures": collections["x-de"][2]}
    evaluate = {**values["evaluate"], "test_collections": ["x"]}
    whole = {**values, "sources": {**values["sources"], "x": source}, "evaluate": evaluate, "experiments": variants}
    whole["export"] = {}
    page, table, summary = written([measured(config, collections) for config in parse_all(whole)], tmp_path)
    assert words in page and words in summary
    assert (table.queries == 0).all() == (case == "nothing") and "x-en" not in summary
    assert len(table) == 6 + len(variants)


def test_the_page_has_the_deviation_between_seeds(values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = {**values, "seeds": [1, 2], "experiments": {"flops": {"distill": {"sparse_reg": "flops"}, "seeds": [1]}}}
    experiments, asked = [Experiment(config) for config in parse_all(whole)], {"mine": ("xx", "en", ["nDCG@10"])}
    for experiment in experiments:
        measured(experiment.config, asked)
    second = measured(experiments[0].seeds[2].config, asked)
    path = Path(second.runs["distill"].path) / "measures.parquet"
    pd.read_parquet(path).assign(value=lambda rows: rows.value + 0.1).to_parquet(path)
    page, table, summary = written(experiments, tmp_path)
    assert table.seeds.to_dict() | {"Stage 2": 2, "flops": 1, "BM25": 1} == table.seeds.to_dict()
    assert table["nDCG@10"]["Stage 2"] == pytest.approx(3.5 / 20 + 0.07 + 0.1 / 2)
    assert table.deviation["Stage 2"] == pytest.approx(0.1 / 2**0.5) and np.isnan(table.deviation["flops"])
    assert table.difference["flops"] == pytest.approx(-0.1 / 2)
    assert "| nDCG@10 | seeds | deviation |" in summary and "| 0.295 | 2 | 0.0707 |" in summary
    assert "<td>2</td><td>0.0707</td>" in page and "<td>1</td><td>–</td>" in page and "these trainings" in page


def test_one_experiment_alone_is_compared_with_nothing(rows):
    assert len(compare(rows[:1], BOTH)) == 1


def test_changed_keys_are_named_with_their_new_values(values):
    changed = {**values, "experiment": "other", "distill": {**values["distill"], "lambda_d": 0.5}}
    assert differences(parse(values), parse(changed)) == {"distill.lambda_d": 0.5}


def test_the_page_draws_what_minutes_of_training_buy(values, tmp_path, monkeypatch):
    """Stage 1 is shared; a row has the minutes of both of its trainings, what is not trained has none."""
    monkeypatch.chdir(tmp_path)
    whole = {**values, "experiments": {"longer": {"distill": {"num_train_epochs": 3}}}}
    base, longer = (measured(config, {"mine": ("xx", "en", ["nDCG@10"])}) for config in parse_all(whole))
    took = {base.align: ("align", 60), base.distill: ("distill", 120), longer.distill: ("distill", 600)}
    for node, (stage, seconds) in took.items():
        size = getattr(base.config, stage).global_batch_size
        rows = [{"step": 10, "loss": 1.0, "examples_per_second": 99.0}]
        rows += [
            {"step": 20, "loss": 1.0, "examples_per_second": 20 * size / seconds},
            {"step": 20, "dev_nDCG@10": 0.5},
        ]
        Path(node.path).parent.mkdir(parents=True)
        Path(node.path).with_name("metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page, table, summary = written([base, longer], tmp_path)
    minutes = table.minutes.dropna().round(6).to_dict()
    assert minutes == {"Stage 1": 1, "Stage 2": 3, "Stage 2, pivot view alone": 3, "longer": 11}
    assert "What training buys" in page and page.count("<svg") == 1 and ">longer</" in page
    assert re.findall(r">(Stage 2[^<]*|longer)</text>", page) == ["Stage 2", "longer"]  # names in the drawing
    assert "minutes of training |" in summary and re.search(r"\| longer .*\| 11 \|", summary)
    for rows in ([], [{"step": 3, "dev_nDCG@10": 0.5}]):  # of fewer steps than logging_steps
        Path(longer.distill.path).with_name("metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        table = written([base, longer], tmp_path)[1]
        assert table.minutes.dropna().round(6).to_dict() == {k: v for k, v in minutes.items() if k != "longer"}
