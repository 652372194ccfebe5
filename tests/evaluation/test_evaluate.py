"""Runs and measures of a system: the ids of a collection come through, whatever they are made of."""

import json
from pathlib import Path

import pandas as pd
import pytest
from miniature import build_corpora, write_lines

from milco import config
from milco.data.beir import read_collection
from milco.data.trec import complete, read_qrels, read_run
from milco.evaluation import budgets, index
from milco.evaluation.encode import encode
from milco.evaluation.evaluate import evaluate, measure

NAMES = [
    "Geneva Durben",
    " Msughter  Perez ",
    "日本語\u3000全角",
    '"O\'Neil"',
    "a%20b",
    "UTF-8''x",
    "x y " * 500,
    "#0 #",
]


@pytest.fixture
def renamed(values, tmp_path) -> Path:
    """The collection of the miniature with names of every kind for ids, as LIMIT has people's."""
    before = read_collection(Path(values["sources"]["mine"]["uri"].removeprefix("file:")))
    # in the order of the former ids: trec_eval ranks equal scores by id
    name = {
        identifier: f" {identifier} {NAMES[n % len(NAMES)]}"
        for n, identifier in enumerate([*before.documents, *before.queries])
    }
    folder = tmp_path / "renamed"
    for file, texts in (("corpus", before.documents), ("queries", before.queries)):
        write_lines(folder / f"{file}.jsonl", [json.dumps({"_id": name[k], "text": v}) for k, v in texts.items()])
    judged = [(name[q], name[d], grade) for q, grades in before.qrels.items() for d, grade in grades.items()]
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, line)) for line in judged)]
    for split in ("test", "dev"):
        write_lines(folder / "qrels" / f"{split}.tsv", lines)
    return folder


def outcome(values: dict, model: Path, encoder: Path, folder: Path) -> dict[str, list]:
    """Everything that is measured on a collection, from its files to its measures."""
    settings = config.parse(values)
    sources = {name: Path(settings.sources[name].uri.removeprefix("file:")) for name in settings.used_datasets()}
    build_corpora(settings, sources, folder / "corpora")
    tests = folder / "corpora" / "collections" / "test"
    encode(settings, "distill", model, tests, folder / "vectors")
    found: dict[str, list] = {}
    for system, vectors in {"bm25": None, "distill": folder / "vectors"}.items():
        evaluate(settings, system, tests, vectors, encoder, folder / system)
        rows = pd.read_parquet(folder / system / "measures.parquet")
        found[system] = rows.value.tolist()
        # whoever reads its run finds the same
        qrels = read_qrels(sources["mine"] / "qrels" / "test.tsv")
        again = measure(qrels, complete(read_run(folder / system / "runs" / "mine.trec"), qrels, folder))
        wanted = rows[rows.measure == "nDCG@10"].set_index("query").value
        assert again.set_index("query").value.to_dict() == wanted.to_dict() and set(wanted.index) == set(qrels)
    index.build_all(settings, tests, folder / "vectors", folder / "index")
    found["index"] = pd.read_parquet(folder / "index" / "seismic.parquet")["nDCG@10"].tolist()
    budgets.sweep(settings, tests, folder / "vectors", folder / "prune.parquet")
    found["prune"] = pd.read_parquet(folder / "prune.parquet").value.tolist()
    return found


def test_ids_of_every_kind_go_from_a_collection_to_its_measures(
    values, renamed, model_folder, encoder_checkpoint, tmp_path
):
    plain = outcome(values, model_folder, encoder_checkpoint, tmp_path / "plain")
    sources = {**values["sources"], "mine": {**values["sources"]["mine"], "uri": f"file:{renamed}"}}
    named = outcome({**values, "sources": sources}, model_folder, encoder_checkpoint, tmp_path / "named")
    assert named == plain and sum(plain["distill"]) > 0
