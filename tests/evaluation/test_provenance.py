"""Where the stages of an experiment were made, and what the pages say of it."""

import json
from pathlib import Path

import pytest
from test_ablations import ASKED, CASES, measured, written
from test_report import comparison, pages, results

from milco import config
from milco.evaluation.provenance import Provenance
from milco.experiments import Experiment

HERE = {
    "python": "3.11.2", "packages": {"torch": "2.13.0", "numpy": "2.4.0", "snakemake": None}, "code": "f00",
    "commit": "abc1234", "processor": "Some CPU", "cores": 2, "devices": ["cpu"],
}  # fmt: skip
THERE = {**HERE, "cores": 64, "devices": ["NVIDIA H200"] * 8}


@pytest.fixture
def made(values, tmp_path, monkeypatch):
    """An experiment whose stages say that they were made `HERE`, but for some of them."""
    monkeypatch.chdir(tmp_path)
    experiment = Experiment(config.parse(values))

    def make(**elsewhere) -> Experiment:
        for node in experiment.nodes:
            path = Path(node.path)
            place = path.parent if node.rule in ("align", "distill") else path
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                note = path.with_suffix(".environment.json")
            else:
                path.mkdir(parents=True, exist_ok=True)
                note = place / "environment.json"
            note.write_text(json.dumps(elsewhere.get(node.rule, HERE)))
        return experiment

    return make


def test_stages_that_were_made_alike_are_one_line(made):
    found = Provenance.of([made()])
    assert str(found) == "commit abc1234, Some CPU, 2 cores" and not found.mixture
    assert found.rows[1:] == [["all", "abc1234", "Some CPU", "2", "–", "as below"]]
    assert found.versions == "Python 3.11.2, torch 2.13.0, numpy 2.4.0"


def test_another_number_of_cores_and_devices_is_told_and_no_mixture(made):
    found = Provenance.of([made(align=THERE, distill=THERE)])
    assert str(found) == "commit abc1234, Some CPU, 2 to 64 cores, 8 × NVIDIA H200" and not found.mixture
    assert ["align, distill", "abc1234", "Some CPU", "64", "8 × NVIDIA H200", "as below"] in found.rows


def test_other_code_packages_or_processors_are_a_mixture(made):
    other = {
        **THERE,
        "commit": "def5678+f00",
        "packages": {"torch": "2.12.0", "numpy": "2.4.0"},
        "processor": "Another",
    }
    found = Provenance.of([made(prune=other)])
    said = ["commits abc1234, def5678+f00", "processors Some CPU, Another", "torch 2.13.0, 2.12.0"]
    assert found.mixture == said and str(found) == f"a mixture: {'; '.join(said)}"
    assert found.rows[-1] == ["prune", "def5678+f00", "Another", "64", "8 × NVIDIA H200", "torch 2.12.0"]
    assert found.rows[1][-1] == "torch 2.13.0" and found.versions == "Python 3.11.2, numpy 2.4.0"


def test_a_training_that_was_resumed_by_other_code_is_a_mixture_of_its_own(made):
    found = Provenance.of([made(align={**HERE, "earlier": [{**HERE, "commit": "old0000"}]})])
    assert found.mixture == ["commits abc1234, old0000"] and found.rows[-1][:2] == ["align", "old0000"]


def test_stages_that_wrote_nothing_down_are_named_and_those_that_are_gone_are_not(made):
    experiment = made()
    Path(experiment.triples.path).with_suffix(".environment.json").unlink()
    tokens = Path(experiment.tokens.path)
    (tokens / "environment.json").unlink()
    tokens.rmdir()
    found = Provenance.of([experiment])
    assert found.mixture == ["commits abc1234, not recorded", "processors Some CPU, not recorded"]
    assert found.rows[-1][:2] == ["mine", "not recorded"]
    assert "tokenize" not in found.rows[1][0] and "teacher, pack" in found.rows[1][0]


def test_pages_tell_where_the_stages_were_made_not_where_the_pages_are(made, values, tmp_path):
    made(prune={**HERE, "commit": "def5678"})
    found = results([("x-de", "de", "en", "nDCG@10")])
    for text in pages(values, found, comparison(found), tmp_path):
        assert "a mixture: commits abc1234, def5678" in text
        assert "Versions: Python 3.11.2, torch 2.13.0, numpy 2.4.0." in text


def test_ablations_name_the_variant_of_a_stage(values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collections, _ = CASES["cross-lingual ones, by default"]
    source = {**values["sources"]["mine"], "measures": ASKED["mldr-de"][2]}
    evaluate = {**values["evaluate"], "test_collections": ["x"]}
    whole = {**values, "sources": {**values["sources"], "x": source}, "evaluate": evaluate, "export": {}}
    whole["experiments"] = {"flops": {"distill": {"sparse_reg": "flops"}}}
    experiments = [measured(one, collections) for one in config.parse_all(whole)]
    for experiment, commit in zip(reversed(experiments), ("def5678", "abc1234"), strict=True):
        for run in experiment.runs.values():
            (Path(run.path) / "environment.json").write_text(json.dumps({**HERE, "commit": commit}))
    page, _, summary = written(experiments, tmp_path)
    assert "A mixture:" in page and "flops: evaluate distill" in page
    assert "| flops: evaluate distill, flops: evaluate distill-pivot | def5678 |" in summary


def test_other_devices_and_another_state_of_one_commit_are_a_mixture(made):
    found = Provenance.of([made(align=THERE, distill={**THERE, "devices": ["NVIDIA A100"] * 4})])
    assert found.mixture == ["devices NVIDIA H200, NVIDIA A100"]
    one, other = ({**HERE, "commit": f"abc1234+{state * 7}", "code": state} for state in "12")
    found = Provenance.of([made(align=one, distill=other)])
    assert found.mixture == ["commits abc1234, abc1234+1111111, abc1234+2222222"]
