"""What every stage of the rehearsed experiment saw, and what came out of it: `make rehearsal`."""

import json
import os
import re
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
import run
import standins
import yaml
from safetensors.torch import load_file
from test_standins import SCRIPTS
from transformers import AutoModel

from milco.config import load
from milco.data.beir import read_collection
from milco.data.trec import read_run
from milco.experiments import Experiment
from milco.modeling.texts import composed

pytestmark = pytest.mark.rehearsal
MIRACL = 18  # languages


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """The finished project; MILCO_REHEARSAL names a folder that is kept, in which an earlier run goes on."""
    kept = os.environ.get("MILCO_REHEARSAL")
    folder = Path(kept).resolve() if kept else tmp_path_factory.mktemp("rehearsal")
    assert run.rehearse(folder, run.TARGETS) == 0, f"see the log above; what was made lies in {folder}"
    return folder / "project"


@pytest.fixture(scope="session")
def experiments(project) -> list[Experiment]:
    """The experiment and its variants, the experiment first."""
    found = [Experiment(load(path)) for path in sorted(project.glob("results/milco*/config.yaml"))]
    assert [one.name for one in found][:1] == ["milco"]
    return found


@pytest.fixture(scope="session")
def statistics(project, experiments) -> dict:
    """What `corpora` says of the experiment's text."""
    return json.loads((project / experiments[0].corpora.path / "statistics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def base(experiments) -> Experiment:
    return experiments[0]


def test_every_variant_was_rehearsed(experiments):
    wanted = yaml.safe_load((run.ROOT / "config" / "ablations.yaml").read_text(encoding="utf-8"))["experiments"]
    assert {one.name for one in experiments} == {"milco", *(f"milco-{name}" for name in wanted)}


def test_every_dataset_is_trained_on_and_every_loss_has_a_reason(base, statistics):
    tables = {name: len(standins.mixed_rows(name)) for name in standins.MIXED}
    assert statistics["datasets"].keys() == set(base.config.align.train_datasets)
    for name, counted in statistics["datasets"].items():
        assert counted["kept"] > 0, name
        assert counted.keys() <= {"kept", "held out", "duplicate", "in an earlier corpus"}, (name, counted)
        if name in tables:
            assert sum(counted.values()) == tables[name], name
    assert statistics["warnings"] == []


def test_every_language_and_script_is_trained_on(project, base, statistics):
    assert set(base.config.languages) < set(statistics["pairs"])
    pairs = pd.read_parquet(project / base.corpora.path / "parallel.parquet")
    text = "".join(pairs.non_english[pairs.language == "mul"])
    found = {unicodedata.name(letter, "").split(" ")[0] for letter in text}
    assert found >= SCRIPTS, SCRIPTS - found


def test_no_test_string_is_trained_on(project, base):
    corpora = project / base.corpora.path
    english = pd.read_parquet(corpora / "english.parquet").english
    pairs = pd.read_parquet(corpora / "parallel.parquet")
    left = set(zip(pairs.english_id.map(english), pairs.non_english, strict=True))
    assert not {pair for leaks in standins.LEAKS.values() for pair in leaks} & left
    assert {(text, composed(other)) for text, other in standins.PROSE} <= left


def test_every_system_is_measured_on_every_collection(project, base):
    found = {
        system: set(pd.read_parquet(project / base.runs[system].path / "measures.parquet").collection)
        for system in base.config.systems()
    }
    everything = {folder.name for folder in (project / base.collections.path / "collections" / "test").iterdir()}
    assert sum(name.startswith("miracl-") for name in everything) == MIRACL and "limit" in everything
    english = {"miracl-en", "mldr-en", "mkqa-en"}
    assert english < found["teacher"] and found.pop("teacher") < everything
    assert all(collections == everything for collections in found.values())


def test_ids_of_people_are_those_of_the_collection(project, base):
    runs = project / base.runs["distill"].path
    measures = pd.read_parquet(runs / "measures.parquet")
    assert (measures[measures.collection == "limit"].value > 0).any()
    found = {document for documents in read_run(runs / "runs" / "limit.trec").values() for document in documents}
    collection = read_collection(project / base.collections.path / "collections" / "test" / "limit")
    assert found <= collection.documents.keys() and any(" " in name for name in found)


def test_every_variant_is_compared_on_miracl_with_published_figures_beside_it(project, experiments):
    results = project / "results" / "milco"
    summary = (results / "ablations.md").read_text(encoding="utf-8")
    assert summary.startswith(f"nDCG@10, {MIRACL} collections of miracl;")
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")] for line in summary.splitlines()
            if line.startswith("| ")}  # fmt: skip
    for one in experiments[1:]:
        cells = rows[one.name.removeprefix("milco-")]
        assert 0 < float(cells[4]) < 1 and cells[10] == str(MIRACL), cells
    page = (results / "ablations.html").read_text(encoding="utf-8")
    published = page[page.index("InfoNCE instead of distillation") :]
    assert "0.701" in published[:500]


def test_the_last_pages_are_there_and_the_model_loads(project):
    results = project / "results" / "milco"
    for name in ("report.html", "summary.md", "metrics.csv", "ablations.html", "card.md"):
        text = (results / name).read_text(encoding="utf-8")
        assert len(text) > 200 and not re.search(r"\bnan\b", text), name
    model = AutoModel.from_pretrained(results / "model", trust_remote_code=True)
    assert model.encode_query(["Where is the river?"]).nnz > 0


def test_the_authors_recipe_runs_to_its_report(project):
    """In the same folder: what is downloaded is there."""
    assert run.rehearse(project.parent, ["all"], run.AUTHORS_CODE) == 0
    theirs = Experiment(load(project / "results" / "authors-code" / "config.yaml"))
    settings = json.loads((project / theirs.distill.path / "config.json").read_text(encoding="utf-8"))
    assert settings["echo_scale_trained"] and settings["special_token_ids"] == []
    weights = load_file(project / theirs.distill.path / "model.safetensors")
    assert weights["echo_scale"].isfinite().all() and weights["echo_scale"] != 1  # it has learnt
    collection = read_collection(project / theirs.collections.path / "collections" / "test" / "hard-miracl-de")
    assert all(text == text.lower() for text in [*collection.documents.values(), *collection.queries.values()])
    measured = pd.read_parquet(project / theirs.runs["distill"].path / "measures.parquet")
    assert measured.collection.nunique() == MIRACL
    assert (project / theirs.results / "report.html").exists()
