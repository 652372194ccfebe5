"""The model card: its licence, its metadata as the Hub reads them, its figures, and that its code runs."""

import json
import re

import pandas as pd
import pytest
from huggingface_hub import ModelCard
from miniature import ROOT
from test_budgets import figures
from test_config import demo
from test_report import PUBLISHED, comparison, results

from milco import config
from milco.evaluation import report
from milco.experiments import Experiment
from milco.tools import card
from milco.tools.export import export

NC = "cc-by-nc-sa-4.0"


@pytest.mark.parametrize(
    ("licences", "wanted"),
    [
        (["Apache-2.0", "MIT"], "apache-2.0"),
        (["MIT", "CC BY-NC-SA 4.0", "Apache-2.0"], NC),
        (["CC BY-NC-SA 4.0", None, "my own"], NC),  # none is more restrictive
        (["MIT", None], "other"),
        (["MIT", "my own"], "other"),
        ([None], "other"),
    ],
)
def test_the_most_restrictive_licence_is_the_model_s_if_all_are_known(licences, wanted):
    assert card.licence_of(licences) == wanted


def test_the_paper_s_model_may_not_be_used_commercially(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = Experiment(config.load(ROOT / "config" / "milco.yaml"))
    fetched = tmp_path / experiment.source("tatoeba")
    fetched.mkdir(parents=True)
    (fetched / "revision.json").write_text(json.dumps({"licence": ["cc-by-2.0", "cc0-1.0"]}))
    sources = card.made_of(experiment)
    found = card.metadata(experiment.config, sources, ["zh", "pt-BR", "mul"])
    assert (found.license, found.language) == (NC, ["en", "zh", "pt", "multilingual"])
    assert found.base_model == ["BAAI/bge-m3-unsupervised", "naver/splade-v3"]
    assert "omai-research/bge-multilingual-distillation-dataset" in found.datasets
    assert {source["name"]: source["licence"] for source in sources}["tatoeba"] == "cc-by-2.0, cc0-1.0"


def write(tmp_path, model_folder, measure: str) -> str:
    settings = config.parse(demo({"publish": {"repo": "owner/name"}}))
    rows = results([("home-assistant-de-en", "de", "en", measure)])
    files = [tmp_path / name for name in ("report.html", "metrics.csv", "summary.md")]
    report.write(settings, rows, comparison(rows), PUBLISHED, *files)
    measured = figures("documents", "de", none=0.5, k20=0.499) + figures("queries", "de", none=0.5, k3=0.1)
    table = pd.DataFrame(measured)
    table[table.measure == measure].to_parquet(tmp_path / "prune.parquet")
    tuned = figures("documents", "de", none=0.5, k20=0.499, k10=0.3) + figures("queries", "de", none=0.5, k3=0.1)
    pd.DataFrame(tuned).to_parquet(tmp_path / "tune.parquet")
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "statistics.json").write_text(json.dumps({"pairs": {"ja": 1234, "de": 45678}}))
    export(model_folder, tmp_path / "model", pruned={"documents": {"all": "top-k 20", "de": "top-k 10"}})
    inputs = [tmp_path / name for name in ("corpora", "model", "metrics.csv", "summary.md", "prune.parquet")]
    card.write(settings, *inputs, ROOT / "CITATION.cff", tmp_path / "card.md", tmp_path / "tune.parquet")
    return (tmp_path / "card.md").read_text(encoding="utf-8")


@pytest.fixture
def written(tmp_path, model_folder) -> str:
    return write(tmp_path, model_folder, "nDCG@10")


def test_a_card_of_a_model_that_is_compared_with_nothing_says_so(tmp_path, model_folder):
    text = write(tmp_path, model_folder, "nDCG@20")
    assert (
        "Nothing is compared: no test collection is measured with nDCG@10" in text and "No budget was measured." in text
    )
    assert "| home-assistant-de | nDCG@20 | 1 | 0.500 | 0.500 |" in text


def test_the_card_says_what_a_user_must_know(written):
    found = ModelCard(written)
    assert found.data.license == "apache-2.0" and found.data.language == ["en", "ja", "de"]
    for part in (
        "English, and by number of training pairs with English: de 45,678, ja 1,234.",
        "| text of Stage 2 | home-assistant, `pypi:homeassistant==2026.2.3` | Apache-2.0 |",
        "| home-assistant-de-en | 0.500 | 0.500 |",
        'This model prunes documents by itself: top-k 20 (all), top-k 10 (de); with `language="de"` in',
        "This model does not prune queries by itself.",
        "the smallest budget for documents that loses less than 1 % of nDCG@10 is top-k 20.",
        "On the test collections it keeps 0.499 of 0.500 nDCG@10, 20.0 of 90.0 terms",
        "On the development collections no budget that was tried for queries saves terms and loses less than 1 %",
        "nDCG@10 by exact search, over 1 collection;",
        "nDCG@10, collection home-assistant-de-en; nothing says where and by which commit it was made",
        "| queries | top-k 3 | 3.0 | 0.100 | 1 | 1.00 |",
        "derived from the data's own alignment",
        "- Trained on, but not measured: ja.",
        "alignment_loss: mass",
        "@inproceedings{nguyen2026milco,",
    ):
        assert part in found.text, part


def test_the_code_of_the_card_runs(written, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", written, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        assert "owner/name" in block
        exec(block.replace("owner/name", str(tmp_path / "model")), {})
