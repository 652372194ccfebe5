"""A finished model is trained on: from every form of data to a report in which its start stands beside it."""

import json
import re
import shutil
import subprocess
from functools import reduce
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from miniature import ROOT, Project
from test_authors_layout import LAYOUT
from test_home_assistant import core_files, write_wheel

from milco.config.reading import merge

pytestmark = pytest.mark.slow
TRAINED = {"corpora", "mine", "pack", "development", "distill"}
MEASURED = {"collections", "overlap", "encode", "merge", "evaluate", "index", "prune", "report", "export", "all"}


@pytest.fixture
def tuning(values, tmp_path, cross_encoder_checkpoint) -> dict:
    """Settings that train a model in the authors' layout on a judged collection in the language xx, and ask in yy, too:
    no parallel text, no Stage 1, no checkpoint but the model and a cross-encoder."""
    start = shutil.copytree(LAYOUT / "released", tmp_path / "released")
    shutil.copytree(LAYOUT / "encoder", start / "encoder")
    shutil.copytree(LAYOUT / "splade", start / "pivot_tokenizer")
    given = values["sources"]["mine"]
    folder = shutil.copytree(given["uri"].removeprefix("file:"), tmp_path / "questions")
    (folder / "qrels" / "train.tsv").write_text("".join(f"q{n}\td{n}\t1\n" for n in range(16)), encoding="utf-8")
    triples = values["sources"]["triples"]
    training = {key: value for key, value in values["distill"].items() if key != "train_datasets"}
    return {
        "experiment": "tuned",
        "sources": {
            "start": {"uri": f"file:{start}", "format": "transformers"},
            "reranker": {"uri": f"file:{cross_encoder_checkpoint}", "format": "transformers"},
            "questions": {**given, "uri": f"file:{folder}"},
            "mine": given,
            "yy": {**given, "language": "yy"},
            "triples": triples,
        },
        "model": {"query_max_length": 16, "passage_max_length": 16},
        "distill": {
            **training,
            "pretrained_alignment_checkpoint": "start",
            "train_datasets": ["questions"],
            "miner": "start",
            "scorer": "reranker",
            "hard_negatives": 4,
            "random_negatives": 2,
        },
        "evaluate": {
            "baselines": ["bm25", "start"],
            "test_collections": ["mine", "yy"],
            "top_k": [2],
            "mass": [0.5],
            "query_top_k": [2],
            "query_mass": [0.5],
        },
    }


def test_a_released_model_is_trained_on_a_collection_and_stands_beside_what_became_of_it(tuning, tmp_path):
    project = Project(tmp_path / "project", tuning)
    assert project.planned() == TRAINED | MEASURED
    project.snakemake()
    results = project.folder / "results" / "tuned"
    metrics = pd.read_csv(results / "metrics.csv")
    assert set(metrics.system) == {"bm25", "start", "distill", "distill-pivot"}
    means = metrics[metrics.measure == "nDCG@10"].set_index(["collection", "system"]).value
    page, summary = (results / "report.html").read_text(), (results / "summary.md").read_text()
    assert "<h2>Gained and forgotten</h2>" in page
    for row in ("trained on", "other languages", "mine", "yy"):
        start, now = (means["mine" if row == "trained on" else "yy" if row == "other languages" else row, system]
                      for system in ("start", "distill"))  # fmt: skip
        found = re.search(rf"^\| {row} \| 20 \| {start:.3f} \| {now:.3f} \|", summary, re.MULTILINE)
        assert found, summary
    made = json.loads((results / "model" / "config.json").read_text())
    assert made["query_max_length"] == 16 and (results / "model" / "pivot_tokenizer").is_dir()
    assert project.planned() == set()
    said = subprocess.run(project.command("--dry-run", "align"), capture_output=True, text=True).stdout
    assert "target align: distill.pretrained_alignment_checkpoint names a finished model, and nothing needs it" in said
    project.snakemake("card")
    assert "Those of start, fine-tuned on xx." in (results / "card.md").read_text()


def pairs_of(values: dict, folder: Path) -> dict:
    """Changes that train on parallel text with the scores of the English teacher."""
    return {
        "sources": {"pairs": values["sources"]["pairs"], "lsr": values["sources"]["lsr"]},
        "languages": ["xx"],
        "model": {"lsr_encoder_checkpoint": "lsr"},
        "distill": {"train_datasets": ["pairs"], "scorer": "teacher"},
    }


def known_items_of(values: dict, folder: Path) -> dict:
    """Changes that train on known items in German."""
    wheel = write_wheel(folder / "homeassistant-1-py3-none-any.whl", core_files())
    items = {"uri": f"file:{wheel}", "format": "home-assistant"}
    return pairs_of(values, folder) | {
        "sources": {"items": items, "lsr": values["sources"]["lsr"]},
        "languages": ["de"],
        "distill": {"train_datasets": ["items"], "scorer": "teacher"},
    }


def documents_of(values: dict, folder: Path) -> dict:
    """Changes that train on documents alone, each with a title."""
    corpus = folder / "questions" / "corpus.jsonl"
    rows = [json.loads(line) for line in corpus.read_text("utf-8").splitlines()]
    titled = [{**row, "title": f"{row['text']} {row['_id']}"} for row in rows]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in titled), "utf-8")
    (folder / "questions" / "queries.jsonl").unlink()
    return {"distill": {"positives": "titles"}}


FORMS = {
    "triples": lambda values, folder: {
        "distill": {"train_datasets": ["triples"], "miner": "teacher", "scorer": "teacher"}
    },
    "queries and documents": lambda values, folder: {"distill": {"positives": "scored"}},
    "documents": documents_of,
    "pairs": pairs_of,
    "known items": known_items_of,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_model_of_ours_is_trained_on_each_form_of_data(form, tuning, values, model_folder, tmp_path):
    (Path(tuning["sources"]["questions"]["uri"].removeprefix("file:")) / "qrels" / "train.tsv").unlink()
    tuning["sources"]["start"]["uri"] = f"file:{model_folder}"
    project = Project(tmp_path / "project", tuning)
    project.configure(**FORMS[form](values, tmp_path))
    assert project.planned("distill") == TRAINED | ({"teacher"} if form in ("pairs", "known items") else set())
    project.snakemake("distill")
    triples = pd.read_parquet(path := project.one("artifacts/triples/*.parquet"))
    queries = {"triples": 40, "queries and documents": 20, "documents": 40, "pairs": 80, "known items": 26}[form]
    assert len(triples) == queries
    assert json.loads(pq.read_metadata(path).metadata[b"statistics"])["warnings"] == []
    steps = project.one("artifacts/distill/*/metrics.jsonl").read_text().splitlines()
    assert any("loss_distillation" in json.loads(line) for line in steps)


def read(*names: str) -> dict:
    """Configurations of the project, each over the one before it."""
    return reduce(merge, [yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text("utf-8")) for name in names])


def test_the_demo_s_start_has_seen_all_of_its_languages_but_the_one_of_the_fine_tuning(tmp_path):
    demo, unseen, tuned = read("demo"), read("demo", "demo-unseen"), read("demo", "demo-finetune")
    for key in ("languages", "eval_languages"):
        assert set(demo[key]) - set(unseen[key]) == set(tuned["languages"]) and set(unseen[key]) < set(demo[key])
    assert tuned["sources"]["demo-unseen"]["uri"] == f"file:results/{unseen['experiment']}/model"
    project = Project(tmp_path, tuned)
    done = subprocess.run(project.command("--dry-run"), capture_output=True, text=True)
    assert "sources.demo-unseen.uri: 'results/demo-unseen/model' does not exist" in done.stdout + done.stderr
    (tmp_path / "results" / "demo-unseen" / "model").mkdir(parents=True)
    assert project.planned() == TRAINED | MEASURED | {"fetch", "convert", "teacher"}


def test_the_recipe_is_planned_offline(tmp_path):
    values = read("finetune")
    for source in values["sources"].values():
        if source["uri"].startswith("file:"):
            (tmp_path / source["uri"].removeprefix("file:")).mkdir(parents=True)
    assert Project(tmp_path, values).planned() == TRAINED | MEASURED | {"fetch"}
