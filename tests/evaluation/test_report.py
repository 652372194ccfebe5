"""The report where collections have other measures than the usual ones."""

import pandas as pd
import pytest
from miniature import ROOT

from milco import config
from milco.evaluation.report import Results, averages_of, beside_published, language_table, means_of, write

SYSTEMS = ["bm25", "distill"]
PUBLISHED = ROOT / "config" / "published.yaml"


def results(rows: list[tuple[str, str, str, str]]) -> Results:
    """One query and one value of 0.5 for each (collection, query language, document language, measure)."""
    columns = ["collection", "query_language", "document_language", "measure"]
    measures = pd.concat([pd.DataFrame(rows, columns=columns).assign(system=system) for system in SYSTEMS])
    index = {"collection": [rows[0][0]], "documents": [2], "bytes": [9], "build_seconds": [0.1], "milliseconds": [0.1]}
    pruning = {"collection": rows[0][0], "query_language": rows[0][1], "document_language": rows[0][2], "bytes": 9}
    pruning |= {"side": ["documents", "queries"], "budget": "none", "active": 3, "nDCG@10": 0.5, "milliseconds": 0.1}
    statistics = {"system": "distill", "collection": [rows[0][0]], "active_query": 3, "active_document": 4}
    return Results(
        measures.assign(query="q", value=0.5),
        pd.DataFrame({**statistics, "empty_query": 0.0}),
        {"distill": pd.DataFrame({"step": [1], "loss": [2.0]})},
        pd.DataFrame({**index, "recall": [1.0], "nDCG@10": [0.5], "exact nDCG@10": [0.5]}),
        pd.DataFrame(pruning),
        pd.DataFrame({"node": ["x"], "s": [1.0], "max_rss": [1.0]}),
        {"pairs": {"de": 1}, "items": 0, "datasets": {"web": {"kept": 1, "script": 9}}, "warnings": ["web: script"]},
        {"datasets": {"own": {"kept": 7, "held out": 2}}, "warnings": ["own: held out"]},
    )


CASES = {
    "none of the usual": [("limit", "en", "en", "R@2"), ("neuclir-fa", "en", "fa", "nDCG@20")],
    "within a language alone": [("miracl-hi", "hi", "hi", "nDCG@10"), ("miracl-hi", "hi", "hi", "R@100")],
    "mixed": [("mkqa-de", "de", "en", "R@100"), ("x-de", "de", "en", "nDCG@10"), ("small", "en", "en", "R@2")],
}


@pytest.mark.parametrize("case", CASES)
def test_a_report_is_written_whatever_is_measured(case, values, tmp_path):
    files = [tmp_path / name for name in ("report.html", "metrics.csv", "summary.md")]
    write(config.parse(values), results(CASES[case]), PUBLISHED, *files)
    page, summary = files[0].read_text(encoding="utf-8"), files[2].read_text(encoding="utf-8")
    assert "nan" not in page and "nan" not in summary
    for said in ("script 9", "held out 2", "<li>web: script</li><li>own: held out</li>"):
        assert said in page
    assert len(pd.read_csv(files[1])) == len(SYSTEMS) * len(CASES[case])
    assert ("| collection |" in summary) == any(measure == "nDCG@10" for *_, measure in CASES[case])
    asked_across = any(query != document for _, query, document, _ in CASES[case])
    for name, query, document, measure in CASES[case]:
        assert (measure in summary) == (query != document or not asked_across)
        assert (f"<th>{name}</th>" in page) == (measure == "nDCG@10" or name == CASES[case][0][0])


def test_a_mean_is_over_what_all_systems_have(values, tmp_path):
    found = results(
        [(f"m-{code}", code, code, "nDCG@10") for code in ("en", "de", "fr")] + [("m-de", "de", "de", "R@9")]
    )
    scores = {"m-en": 0.9, "m-de": 0.6, "m-fr": 0.3}
    found.measures["value"] = found.measures.collection.map(scores)
    # the English teacher reads English documents alone
    english = found.measures[(found.measures.collection == "m-en") & (found.measures.system == "bm25")]
    found.measures = pd.concat([found.measures, english.assign(system="teacher", value=0.7)])
    found.measures = pd.concat([found.measures, found.measures.assign(query="r")])
    table = language_table(found, cross_lingual=False)
    assert table.loc["mean"].to_dict() == {"bm25": 0.9, "teacher": 0.7, "distill": 0.9}
    assert table.loc["mean of all 3", ["bm25", "distill"]].tolist() == pytest.approx([0.6, 0.6])
    assert pd.isna(table.loc["mean of all 3", "teacher"])
    averages = averages_of(found.means())
    assert list(averages) == ["nDCG@10", "nDCG@10, all 3", "R@9"]
    assert averages.loc["distill"].tolist() == pytest.approx([0.9, 0.6, 0.6])
    assert averages.loc["teacher"].fillna(-1).tolist() == [0.7, -1, -1]
    write(config.parse(values), found, PUBLISHED, *(tmp_path / name for name in ("report.html", "metrics.csv", "s.md")))
    summary = (tmp_path / "s.md").read_text(encoding="utf-8")
    assert "| mean of all 3 | 0.600 | – | 0.600 |" in summary and "nan" not in summary
    assert '<tr class="mean"><th>mean of all 3</th>' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_where_all_systems_have_all_collections_there_is_one_mean():
    table = language_table(results([("a", "de", "en", "nDCG@10"), ("b", "fr", "en", "nDCG@10")]), cross_lingual=True)
    assert list(table.index) == ["a", "b", "mean"] and table.loc["mean"].tolist() == [0.5, 0.5]


def test_systems_that_share_no_collection_have_no_common_mean():
    table = means_of(pd.DataFrame({"x": [1.0, None], "y": [None, 3.0], "z": [1.0, 2.0]}))
    assert table.loc["mean"].isna().all() and table.loc["mean of all 2"].fillna(-1).tolist() == [-1, -1, 1.5]


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
