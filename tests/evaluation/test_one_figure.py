"""One figure for one run: of rule `evaluate`, of `milco evaluate`, and of ir-measures on the written files."""

import json

import ir_measures
import numpy as np
import pandas as pd
import pytest
from miniature import write_lines
from scipy.sparse import csr_array
from typer.testing import CliRunner

from milco import config
from milco.data.corpora import build_collections
from milco.data.trec import read_run, write_run
from milco.data.vectors import save_vectors
from milco.errors import MilcoError
from milco.evaluation.evaluate import evaluate
from milco.evaluation.lookup import text_id
from milco.tools.command import app

MEASURES = ["nDCG@10", "RR@10", "R@100", "P@2", "AP"]
HALF = np.float32(0.5)
ABOVE = np.nextafter(HALF, np.float32(1))  # 6 digits do not tell it from a half
# id → weight in the one query term; equal weights are ties. If `ABOVE` were a half, each measure would, by its own
# order of ties, have some names in other places.
WEIGHTS = {"a": ABOVE, "m": HALF, "z": ABOVE, "b b": HALF, "k": np.float32(0.25), "y": np.float32(0)}
JUDGED = {"best": "a", "also best": "z", "tied": "m", "spaced": "b b", "below": "k", "never found": "y", "nothing": "y"}


@pytest.fixture
def searched(values, tmp_path):
    """What rule `evaluate` wrote of a collection whose scores are ties or nearly so."""
    folder, tests = tmp_path / "own", tmp_path / "corpora" / "collections" / "test"
    texts = {name: f"text {name}" for name in WEIGHTS}
    write_lines(folder / "corpus.jsonl", [json.dumps({"_id": k, "text": v}) for k, v in texts.items()])
    write_lines(folder / "queries.jsonl", [json.dumps({"_id": name, "text": name}) for name in JUDGED])
    lines = [f"{query}\t{document}\t{0 if query == 'nothing' else 1}" for query, document in JUDGED.items()]
    write_lines(folder / "qrels" / "test.tsv", [*lines, lines[0]])  # a judgement that is there twice
    write_lines(folder / "qrels" / "dev.tsv", lines)
    source = {**values["sources"]["mine"], "uri": f"file:{folder}", "measures": MEASURES}
    settings = config.parse({**values, "sources": {**values["sources"], "mine": source}})
    build_collections(settings, {"mine": folder}, "test", tmp_path / "corpora")
    asked = [name for name in JUDGED if name != "nothing"]
    rows = {
        "queries": csr_array(np.ones((len(asked), 1), np.float32)),
        "documents": csr_array([[w] for w in WEIGHTS.values()]),
    }
    for side, ids in (("queries", asked), ("documents", texts.values())):
        (tmp_path / "vectors").mkdir(exist_ok=True)
        save_vectors(tmp_path / "vectors" / f"{side}-00000.safetensors", rows[side], [text_id(text) for text in ids])
    evaluate(settings, "distill", tests, tmp_path / "vectors", tmp_path, tmp_path / "runs")
    return folder / "qrels" / "test.tsv", tests / "mine", tmp_path / "runs"


def by_query(rows) -> dict[tuple[str, str], float]:
    return {(query, str(measure)): value for query, measure, value in rows}


def test_all_three_have_the_same_values(searched):
    qrels, collection, runs = searched
    of_rule = by_query(
        pd.read_parquet(runs / "measures.parquet")[["query", "measure", "value"]].itertuples(index=False)
    )
    assert {query for query, _ in of_rule} == JUDGED.keys() - {"nothing"}
    assert of_rule["never found", "nDCG@10"] == 0 < of_rule["below", "nDCG@10"] < 1

    options = [word for name in MEASURES for word in ("--measure", name)]
    for judged in (qrels, collection / "qrels" / "test.tsv"):
        words = ["evaluate", f"{runs}/runs/mine.trec", f"{judged}", *options, "--per-query", "--json"]
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        found = json.loads(done.stdout)
        of_command = {
            (query, name): value for query, rows in found["per_query"].items() for name, value in rows.items()
        }
        assert of_command == of_rule and found["queries"] == len(JUDGED) - 1
        assert ("1 of 7 queries have no relevant document and are left out" in done.stderr) == (judged == qrels)

    run = ir_measures.read_trec_run(str(runs / "runs" / "mine.trec"))
    run = [hit._replace(query_id=ids(hit.query_id), doc_id=ids(hit.doc_id)) for hit in run]
    lines = pd.read_csv(collection / "qrels" / "test.tsv", sep="\t", dtype={"query-id": str, "corpus-id": str})
    judged = [ir_measures.Qrel(*row) for row in lines.itertuples(index=False, name=None)]
    wanted = [ir_measures.parse_measure(name) for name in MEASURES]
    assert by_query(ir_measures.iter_calc(wanted, judged, run)) == of_rule
    means = {str(name): value for name, value in ir_measures.calc_aggregate(wanted, judged, run).items()}
    assert means == pytest.approx(found["mean"], abs=1e-12)


def ids(column: str) -> str:
    """The names of this file as a TREC run has them."""
    return column.removeprefix("UTF-8''").replace("%20", " ")


def test_judgements_without_a_relevant_document_are_refused(tmp_path):
    write_lines(tmp_path / "zero.tsv", ["best\ta\t0", "tied\tm\t-1"])
    write_lines(tmp_path / "run.trec", ["best Q0 a 1 1.0 x"])
    with pytest.raises(MilcoError, match=r"zero.tsv: no grade above 0 in it"):
        CliRunner().invoke(app, ["evaluate", f"{tmp_path}/run.trec", f"{tmp_path}/zero.tsv"], catch_exceptions=False)


def test_scores_come_back_out_of_a_run_as_they_went_in(tmp_path):
    chance = np.random.default_rng(0)
    scores = (chance.lognormal(0, 9, 5000)).astype(np.float32)
    scores = np.unique(np.concatenate([scores, np.nextafter(scores, np.float32(0))]))
    run = {"q": {str(n): float(score) for n, score in enumerate(scores)}}
    with (tmp_path / "run.trec").open("w") as lines:
        write_run(run, "mine", lines)
    found = read_run(tmp_path / "run.trec")["q"]
    np.testing.assert_array_equal(np.array([*found.values()]).astype(np.float32), scores)
    assert sorted(found, key=found.__getitem__) == list(run["q"])
