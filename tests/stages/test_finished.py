"""Finished models are measured without a training: the whole evaluation, pruning study and report."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
import torch
import yaml
from miniature import ROOT, Project
from test_authors_layout import LAYOUT

from milco.config import parse
from milco.errors import MilcoError

pytestmark = pytest.mark.slow
MEASURED = {"collections", "encode", "merge", "evaluate", "index", "prune", "report", "all"}


@pytest.fixture
def finished(values, teacher_checkpoint, encoder_checkpoint, tmp_path) -> dict:
    """Settings that measure a model in the authors' layout beside BM25, a fine-tune of it, SPLADE and a BGE-M3."""
    bge = shutil.copytree(encoder_checkpoint, tmp_path / "bge")
    torch.save({"weight": torch.ones(1, 24), "bias": torch.zeros(1)}, bge / "sparse_linear.pt")
    model = shutil.copytree(LAYOUT / "released", tmp_path / "released")
    shutil.copytree(LAYOUT / "encoder", model / "encoder")
    models = {
        "milco-650m": {"uri": f"file:{model}", "format": "transformers"},
        "fine-tune": {"uri": f"file:{shutil.copytree(model, tmp_path / 'fine-tune')}", "format": "transformers"},
        "bge": {"uri": f"file:{bge}", "format": "bge-m3-sparse"},
        "splade": {"uri": f"file:{teacher_checkpoint}", "format": "sentence-transformers"},
    }
    return {
        "experiment": "finished",
        "sources": {"mine": values["sources"]["mine"], **models},
        "model": {"query_max_length": 16, "passage_max_length": 16},
        "evaluate": {
            "model": "milco-650m",
            "baselines": ["bm25", "splade", "bge", "fine-tune"],
            "test_collections": ["mine"],
            "top_k": [2, 5],
            "mass": [0.5],
        },
    }


def test_models_and_collections_are_enough_for_the_whole_report(finished, tmp_path):
    project = Project(tmp_path / "project", finished)
    assert project.planned() == MEASURED
    project.snakemake()
    results = project.folder / "results" / "finished"
    metrics = pd.read_csv(results / "metrics.csv")
    assert list(metrics.system.unique()) == ["bm25", "splade", "bge", "fine-tune", "milco-650m"]
    means = metrics[metrics.measure == "nDCG@10"].set_index("system").value
    assert means["fine-tune"] == means["milco-650m"] > 0  # the same weights
    page, summary = (results / "report.html").read_text(), (results / "summary.md").read_text()
    assert "| collection | BM25 | splade | bge | fine-tune | milco-650m |" in summary
    assert "<th>milco-650m minus</th>" in page and re.search(r"<tr><th>fine-tune</th>.*<td>\+0.000</td>", page)
    for there, heading in {"Pruning": True, "Inverted index": True, "Learning": False, "Training text": False}.items():
        assert (f"<h2>{there}</h2>" in page) == heading
    pruning = pd.read_parquet(project.one("artifacts/prune/*.parquet"))
    assert set(pruning.budget) == {"none", "top-k 2", "top-k 5", "mass 0.5", "top-k 3", "top-k 10", "top-k 20",
                                   "top-k 50", "mass 0.7", "mass 0.8", "mass 0.9", "mass 0.95"}  # fmt: skip
    assert project.planned() == set()


@pytest.mark.parametrize("main", ["splade", "bge"])
def test_a_sparse_model_of_others_has_the_whole_report_too(finished, main, tmp_path):
    asked = {**finished["evaluate"], "model": main, "baselines": ["bm25"]}
    project = Project(tmp_path / "project", {**finished, "evaluate": asked})
    project.snakemake()
    results = project.folder / "results" / "finished"
    assert list(pd.read_csv(results / "metrics.csv").system.unique()) == ["bm25", main]
    assert f"<th>{main} minus</th>" in (results / "report.html").read_text()


def test_a_target_of_a_training_is_refused_in_one_line(finished, tmp_path):
    project = Project(tmp_path / "project", finished)
    done = subprocess.run(project.command("--dry-run", "align"), capture_output=True, text=True)
    said = done.stdout + done.stderr  # a dry run says it on stdout
    assert done.returncode and "target align: evaluate.model names a finished model, and nothing is" in said
    assert "Traceback" not in said


def test_the_released_models_are_planned_offline(tmp_path):
    released = yaml.safe_load((ROOT / "config" / "released.yaml").read_text(encoding="utf-8"))
    assert Project(tmp_path, released).planned() == MEASURED | {"fetch"}


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("align", {"train_datasets": ["mine"]}, "align: nothing is trained where evaluate.model names"),
        ("evaluate", {"model": "fine-tune", "baselines": ["fine-tune"]}, "'fine-tune' occurs twice"),
        ("evaluate", {"model": "nowhere"}, "evaluate.model: no source 'nowhere'"),
        ("evaluate", {"baselines": ["teacher"]}, "evaluate.baselines: teacher needs model.lsr_encoder_checkpoint"),
    ],
)
def test_what_does_not_go_with_a_finished_model_is_named(section, change, message, finished):
    with pytest.raises(MilcoError, match=message):
        parse({**finished, section: {**finished.get(section, {}), **change}})


@pytest.mark.parametrize("section", ["languages", "align", "distill"])
def test_a_training_without_one_of_its_sections_is_named(section, values):
    with pytest.raises(MilcoError, match=f"{section}: missing; to measure a finished model without training, set eval"):
        parse({key: value for key, value in values.items() if key != section})
