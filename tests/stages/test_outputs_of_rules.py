"""What the rules' programs may replace: nothing, except that a training may replace a model."""

import shutil

import pytest
from typer.testing import CliRunner

from milco.errors import MilcoError
from milco.stages.__main__ import app

PROGRAMS = {
    "corpora": ["--config", "none", "--source", "a=b"],
    "mine": ["--config", "none", "--corpora", "none", "--teacher", "none", "--source", "a=b"],
    "align": [
        word
        for name in ("config", "corpora", "tokens", "targets", "encoder", "lsr", "development")
        for word in (f"--{name}", "x")
    ],
}


def refused(program: str, output) -> bool:
    """Whether a program refuses an output; if not, it goes on and fails for lack of settings."""
    error = CliRunner().invoke(app, [program, *PROGRAMS[program], "--output", str(output)]).exception
    assert isinstance(error, MilcoError) and (
        "no such configuration" in str(error) or "holds something other" in str(error)
    )
    return "holds something other than" in str(error)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_rule_s_program_replaces_nothing(tmp_path, program):
    (tmp_path / "mine").mkdir()
    assert not refused(program, tmp_path / "mine") and not refused(program, tmp_path / "new" / "new")
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert refused(program, tmp_path / "mine") and refused(program, tmp_path / "mine" / "config.json")


def test_a_training_may_replace_a_model(tmp_path, model_folder):
    shutil.copytree(model_folder, tmp_path / "model")
    assert refused("corpora", tmp_path / "model") and not refused("align", tmp_path / "model")


def test_a_process_that_begins_when_the_first_has_finished_is_not_stopped(tmp_path, monkeypatch):
    (tmp_path / "finished").write_text("by the first")
    assert refused("mine", tmp_path / "finished")
    monkeypatch.setenv("RANK", "1")
    assert not refused("mine", tmp_path / "finished")
