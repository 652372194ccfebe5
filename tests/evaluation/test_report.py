"""The report where collections have other measures than the usual ones."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from miniature import ROOT

from milco import config
from milco.data.cuts import CUT
from milco.evaluation.comparison import Comparison
from milco.evaluation.report import Results, _cuts, averages_of, beside_published, language_table, means_of, write
from milco.evaluation.seeds import table_of

SYSTEMS = ["bm25", "distill"]
PUBLISHED = ROOT / "config" / "published.yaml"


def results(rows: list[tuple[str, str, str, str]]) -> Results:
    """One query and one value of 0.5 for each (collection, query language, document language, measure)."""
    columns = ["collection", "query_language", "document_language", "measure"]
    measures = pd.concat([pd.DataFrame(rows, columns=columns).assign(system=system) for system in SYSTEMS])
    index = {"collection": [rows[0][0]], "documents": [2], "bytes": [9], "build_seconds": [0.1], "milliseconds": [0.1]}
    pruning = {"collection": rows[0][0], "query_language": rows[0][1], "document_language": rows[0][2], "bytes": 9}
    pruning |= {"side": ["documents", "queries"], "budget": "none", "active": 3, "measure": "nDCG@10", "value": 0.5}
    pruning |= {"milliseconds": 0.1}
    statistics = {"system": "distill", "collection": [rows[0][0]], "active_query": 3, "active_document": 4}
    return Results(
        measures.assign(query="q", value=0.5),
        pd.DataFrame({**statistics, "empty_query": 0.0}),
        {"distill": pd.DataFrame({"step": [1], "loss": [2.0]})},
        pd.DataFrame({**index, "recall": [1.0], "nDCG@10": [0.5], "exact nDCG@10": [0.5]}),
        pd.DataFrame(pruning),
        pd.DataFrame({"node": ["x"], "s": [1.0], "max_rss": [1.0]}),
        {"pairs": {"de": 1}, "items": 0, "datasets": {"web": {"kept": 1, "script": 9}}, "warnings": ["web: script"]},
        {rows[0][0]: {"queries": 20, "met": 3}, "clean": {"queries": 5, "met": 0}},
        {"datasets": {"own": {"kept": 7, "held out": 2}}, "warnings": ["own: held out"]},
    )


CASES = {
    "none of the usual": [("limit", "en", "en", "R@2"), ("neuclir-fa", "en", "fa", "nDCG@20")],
    "within a language alone": [("miracl-hi", "hi", "hi", "nDCG@10"), ("miracl-hi", "hi", "hi", "R@100")],
    "mixed": [("mkqa-de", "de", "en", "R@100"), ("x-de", "de", "en", "nDCG@10"), ("small", "en", "en", "R@2")],
}


def comparison(found: Results, measure: str = "nDCG@10", names: list[str] | None = None) -> Comparison:
    """The default comparison; the part of a collection's name before the last dash is its source."""
    rows = found.measures.drop_duplicates(["collection", "measure"])
    having = rows[rows.measure == measure]
    across = list(having[having.query_language != having.document_language].collection)
    chosen = names or across or list(having.collection)
    sources = {name: name.rpartition("-")[0] or name for name in rows.collection}
    return Comparison(measure, chosen, chosen == across != [], sources)


def pages(values: dict, found: Results, chosen: Comparison, folder: Path) -> tuple[str, str]:
    """report.html and summary.md."""
    files = [folder / name for name in ("report.html", "metrics.csv", "summary.md")]
    write(config.parse(values), found, chosen, PUBLISHED, *files)
    page, summary = files[0].read_text(encoding="utf-8"), files[2].read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", page + summary)
    return page, summary


@pytest.mark.parametrize("case", CASES)
def test_a_report_is_written_whatever_is_measured(case, values, tmp_path):
    found = results(CASES[case])
    chosen = comparison(found)
    if not chosen.collections:
        found.pruning = found.pruning[:0]
    page, summary = pages(values, found, chosen, tmp_path)
    for said in ("script 9", "held out 2", "<li>web: script</li><li>own: held out</li>"):
        assert said in page
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == len(SYSTEMS) * len(CASES[case])
    assert ("| collection |" in summary) == any(measure == "nDCG@10" for *_, measure in CASES[case])
    nothing = "Nothing is compared: no test collection is measured with nDCG@10"
    assert (nothing in page) == (nothing in summary) == (case == "none of the usual")
    for name, *_, measure in CASES[case]:
        assert measure in summary and measure in page
        assert (f"<th>{name}</th>" in page) == (measure == "nDCG@10" or name == CASES[case][0][0] or "-" not in name)


def with_an_english_teacher() -> Results:
    """Three collections; the teacher was measured on the English one alone."""
    found = results(
        [(f"m-{code}", code, code, "nDCG@10") for code in ("en", "de", "fr")] + [("m-de", "de", "de", "R@9")]
    )
    found.measures["value"] = found.measures.collection.map({"m-en": 0.9, "m-de": 0.6, "m-fr": 0.3})
    english = found.measures[(found.measures.collection == "m-en") & (found.measures.system == "bm25")]
    found.measures = pd.concat([found.measures, english.assign(system="teacher", value=0.7)])
    return found


def test_the_headline_is_over_all_collections_and_a_second_mean_over_what_all_systems_have(values, tmp_path):
    found = with_an_english_teacher()
    found.measures = pd.concat([found.measures, found.measures.assign(query="r")])
    table = language_table(found, "nDCG@10", cross_lingual=False)
    assert table.loc["mean of all 3", ["bm25", "distill"]].tolist() == pytest.approx([0.6, 0.6])
    assert pd.isna(table.loc["mean of all 3", "teacher"])
    assert table.loc["mean of the 1 that all have"].to_dict() == {"bm25": 0.9, "teacher": 0.7, "distill": 0.9}
    averages = averages_of(found.means())
    assert list(averages) == ["nDCG@10", "nDCG@10, the 1 that all have", "R@9, 1 of them"]
    assert averages.loc["distill"].tolist() == pytest.approx([0.6, 0.9, 0.6])
    assert averages.loc["teacher"].fillna(-1).tolist() == [-1, 0.7, -1]
    page, summary = pages(values, found, comparison(found), tmp_path)
    assert "nDCG@10, 3 collections of m; nothing says where" in summary
    assert "| mean of all 3 | 0.600 | – | 0.600 |" in summary
    assert "<b>0.600</b><span>nDCG@10, mean of 3 collections of m, Stage 2</span>" in page
    assert '<tr class="mean"><th>mean of all 3</th>' in page
    assert "<b>0.700</b>" not in page  # the teacher's figure is another collection's


def test_the_comparison_decides_headline_summary_and_tests_and_the_rest_stands_beside_them(values, tmp_path):
    rows = [("miracl-de", "de", "de", "nDCG@10"), ("miracl-sw", "sw", "sw", "nDCG@10"), ("mkqa-de", "de", "en", "R@9")]
    found = results([*rows, ("mldr-de", "de", "de", "nDCG@10"), ("neuclir-fa", "en", "fa", "nDCG@10")])
    found.measures.loc[found.measures.collection.str.startswith("miracl"), "value"] = 0.25
    names = ["miracl-de", "miracl-sw"]
    page, summary = pages(values, found, comparison(found, names=names), tmp_path)
    assert "<b>0.250</b><span>nDCG@10, mean of 2 collections of miracl, Stage 2</span>" in page
    assert "| mean of all 2 | 0.250 | 0.250 |" in summary and "| neuclir-fa |" not in summary
    for line in ("| mkqa | R@9 | 1 | 0.500 | 0.500 |", "| mldr | nDCG@10 | 1 | 0.500 | 0.500 |"):
        assert line in summary
    assert "<th>neuclir-fa</th>" in page and "<th>mldr-de</th>" in page and "<tr><th>mkqa</th><td>R@9</td>" in page
    against = found.against("distill", comparison(found, names=names))
    assert against.queries.to_dict() == {"bm25": 2}


def test_another_measure_may_be_compared(values, tmp_path):
    found = results([("x-de", "de", "en", "R@9"), ("x-fr", "fr", "en", "R@9"), ("x-fr", "fr", "en", "nDCG@10")])
    page, summary = pages(values, found, comparison(found, "R@9"), tmp_path)
    assert "<b>0.500</b><span>R@9, mean of 2 cross-lingual collections, Stage 2</span>" in page
    assert "R@9, 2 cross-lingual collections; nothing says where" in summary and "| x-de | 0.500 | 0.500 |" in summary


def test_systems_that_share_one_query_or_none_are_no_crash(values, tmp_path):
    found = results([("x-de", "de", "en", "nDCG@10")])
    found.measures = pd.concat([found.measures, found.measures.iloc[:1].assign(system="dense", query="other")])
    page, _ = pages(values, found, comparison(found), tmp_path)
    assert found.against("distill", comparison(found)).queries.to_dict() == {"bm25": 1}
    assert "<th>BM25</th><td>1</td><td>1</td><td>+0.000</td><td>–</td><td>1.000</td>" in page


def test_where_all_systems_have_all_collections_there_is_one_mean():
    found = results([("a", "de", "en", "nDCG@10"), ("b", "fr", "en", "nDCG@10")])
    table = language_table(found, "nDCG@10", cross_lingual=True)
    assert list(table.index) == ["a", "b", "mean of all 2"] and table.loc["mean of all 2"].tolist() == [0.5, 0.5]


def test_systems_that_share_no_collection_have_no_common_mean():
    table = means_of(pd.DataFrame({"x": [1.0, None], "y": [None, 3.0], "z": [1.0, 2.0]}))
    assert list(table.index) == ["mean of all 2"]
    assert table.loc["mean of all 2"].fillna(-1).tolist() == [-1, -1, 1.5]


def test_published_figures_stand_beside_ours_where_their_collections_were_measured():
    tables = beside_published(
        PUBLISHED, results([("miracl-sw", "sw", "sw", "nDCG@10"), *CASES["none of the usual"]]).means()
    )
    assert list(tables) == ["arXiv 2510.00671, MIRACL dev, nDCG@10", "arXiv 2510.00671, LIMIT, R@2"]
    miracl, limit = tables.values()
    assert miracl.loc["Stage 2", "miracl-sw"] == 0.5 and miracl.loc["MILCO", "miracl-sw"] == 0.803
    assert pd.isna(miracl.loc["Stage 2", "mean"])  # of 18 languages one was measured
    assert miracl.loc["MILCO", "mean"] == pytest.approx(0.723, abs=5e-4)
    assert miracl.loc["BGE-M3 all", "mean"] == 0.715
    assert limit.loc["Stage 2", "mean"] == 0.5 and limit["from"].tolist() == ["here", "here", "published", "published"]


def test_queries_that_stand_in_the_training_text_are_counted_by_collection(values, tmp_path):
    found = results(CASES["mixed"])
    page, _ = pages(values, found, comparison(found), tmp_path)
    assert "3 of 25 queries of the test collections occur in the training text" in page
    (table,) = re.findall(r"in the training text</th></tr></thead>\s*<tbody>(.*?)</tbody>", page, re.DOTALL)
    assert "mkqa-de</th><td>20</td><td>3</td>" in table and "clean" not in table


def test_texts_that_were_cut_are_counted_by_system_side_and_language(values, tmp_path):
    found = results(CASES["mixed"])
    assert "Texts that were cut" not in pages(values, found, comparison(found), tmp_path)[0]
    rows = []
    for system, cut in (("teacher", {}), ("distill", {"zh": 2})):
        (tmp_path / CUT).write_text(json.dumps({"queries": {"texts": {"zh": 8, "de": 9}, "cut": cut}}))
        rows += _cuts(system, tmp_path / CUT)
    found.cuts = pd.DataFrame(rows)
    page = pages(values, found, comparison(found), tmp_path)[0]
    assert "<th>queries</th><td>zh</td><td>0 of 8</td><td>2 of 8</td>" in page and "of 9<" not in page
    found.cuts = found.cuts[found.cuts.system == "teacher"]
    assert "Texts that were cut" not in pages(values, found, comparison(found), tmp_path)[0]


def with_seeds() -> Results:
    """Two collections, of one and of three queries; Stage 2 is trained with the seeds 7, 1 and 3."""
    found = results([("a", "de", "en", "nDCG@10"), ("b", "fr", "en", "nDCG@10")])
    seeds = {7: (0.5, [0.1, 0.2, 0.3]), 1: (0.7, [0.1, 0.1, 0.1]), 3: (0.6, [0.5, 0.5, 0.2])}
    rows = [
        {
            "system": "distill",
            "seed": seed,
            "collection": name,
            "query": query,
            "measure": "nDCG@10",
            "value": value,
            "query_language": "xx",
            "document_language": "en",
        }
        for seed, (one, three) in seeds.items()
        for name, query, value in [("a", "q0", one), *(("b", f"q{n}", value) for n, value in enumerate(three))]
    ]
    found.seeds = pd.DataFrame([*rows, {**rows[0], "measure": "R@9", "value": 9.0}])
    return found


def test_mean_and_deviation_over_seeds_stand_beside_the_interval_over_queries(values, tmp_path):
    found = with_seeds()
    table = table_of(found.seeds, comparison(found))
    # by seed the mean of both collections' means: (.5 + .2) / 2, (.7 + .1) / 2, (.6 + .4) / 2
    assert table.loc["distill", [7, 1, 3]].tolist() == pytest.approx([0.35, 0.4, 0.5])
    mean = (0.35 + 0.4 + 0.5) / 3
    deviation = (((0.35 - mean) ** 2 + (0.4 - mean) ** 2 + (0.5 - mean) ** 2) / 2) ** 0.5
    assert table.loc["distill", ["mean", "deviation"]].tolist() == pytest.approx([mean, deviation])
    assert table.low["distill"] < mean < table.high["distill"]
    page, summary = pages({**values, "seeds": [7, 1, 3]}, found, comparison(found), tmp_path)
    assert (
        "| system, by training seed | 7 | 1 | 3 | mean over seeds | deviation | 95 % interval over queries |" in summary
    )
    assert "| Stage 2 | 0.350 | 0.400 | 0.500 | 0.417 | 0.0764 | " in summary
    assert "<td>0.417</td><td>0.0764</td>" in page and "With other seeds" in page
    metrics = pd.read_csv(tmp_path / "metrics.csv").set_index(["experiment", "system", "collection", "measure"]).value
    name = values["experiment"]
    assert metrics[f"{name}-seed-1", "distill", "b", "nDCG@10"] == pytest.approx(0.1)
    assert metrics[f"{name}-seed-3", "distill", "b", "nDCG@10"] == pytest.approx(0.4)
    assert f"{name}-seed-7" not in metrics.index.get_level_values("experiment")
    said = "Trained with 3 seeds, Stage 2 has a mean of 0.417 and between them a deviation of 0.0764."
    assert said in page and said in summary and "Another seed may move it" not in page


def test_the_words_of_a_report_are_those_of_the_step_that_was_kept(values, tmp_path):
    found = results([("a", "de", "en", "nDCG@10")])
    looks = [{"step": step, "dev_nDCG@10": value, "examples": {"xx": {"text": "t", "pivot": {word: 1.0}, "source": {}}}}
             for step, value, word in ((10, 0.1, "early"), (20, 0.3, "kept"), (30, 0.2, "late"))]  # fmt: skip
    looks[0]["best"] = looks[1]["best"] = 1
    found.curves = {"distill": pd.DataFrame(looks).assign(loss=1.0)}
    best, last = ({**values, "distill": {**values["distill"], "keep": keep}} for keep in ("best", "last"))
    page, _ = pages(best, found, comparison(found), tmp_path)
    assert "Stage 2 has the weights of step 20, the best on the development" in page and "kept <small>" in page
    assert "late <small>" not in page and "early <small>" not in page
    page, _ = pages(last, found, comparison(found), tmp_path)
    assert "has the weights of step" not in page and "late <small>" in page


def test_without_seeds_another_one_may_move_the_figures(values, tmp_path):
    found = results([("a", "de", "en", "nDCG@10")])
    other = found.measures.assign(query="other")
    found.measures = pd.concat([found.measures, other.assign(value=other.system.map({"bm25": 0.1, "distill": 0.2}))])
    page, summary = pages(values, found, comparison(found), tmp_path)
    assert "Another seed may move it, too." in page and "by training seed" not in page + summary
