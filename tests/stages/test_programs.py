"""What all programs behind the rules have in common."""

from pathlib import Path

import pytest
import typer

from milco.config import parse
from milco.errors import MilcoError
from milco.experiments import Experiment
from milco.stages.__main__ import app

PROGRAMS = typer.main.get_command(app).commands
OTHER = "0123456789"  # a key of no settings


def arguments(name: str, settings: Path, output: str) -> list[str]:
    """A call of a program in which nothing but settings and output is there."""
    said = {"config": str(settings), "output": output}
    wanted = [option for option in PROGRAMS[name].params if option.required]
    return [name, *(word for option in wanted for word in (option.opts[0], said.get(option.name, "a=nowhere")))]


@pytest.mark.parametrize(
    "name", [name for name, program in PROGRAMS.items() if {"config", "output"} <= {p.name for p in program.params}]
)
def test_a_job_that_finds_other_settings_than_those_of_its_key_ends_in_one_line(values, tmp_path, name):
    settings = tmp_path / "config.yaml"
    parse(values).save(settings)
    with pytest.raises(MilcoError) as error:
        app(arguments(name, settings, f"artifacts/{name}/{OTHER}"), standalone_mode=False)
    assert str(error.value).startswith(
        f"results/miniature/config.yaml: artifacts/{name}/{OTHER} does not belong to these settings; they were "
    )
    assert "start the workflow again" in str(error.value) and "\n" not in str(error.value)


def test_what_an_earlier_job_has_made_meanwhile_is_used_as_it_is(values, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    parse(values).save(tmp_path / "config.yaml")
    made = Path(Experiment(parse(values)).corpora.path)
    made.mkdir(parents=True)
    (made / "english.parquet").write_text("made")
    assert app(arguments("corpora", tmp_path / "config.yaml", str(made)), standalone_mode=False) == 0
    assert capsys.readouterr().out == f"{made}: an earlier job has made it meanwhile; it is used as it is\n"
    assert (made / "english.parquet").read_text() == "made"


def test_every_node_and_what_people_name_themselves_goes_on(values):
    experiment = Experiment(parse(values))
    for node in experiment.nodes:
        experiment.check_key(Path(node.path))
        other = Path(node.path.replace(node.key, OTHER))
        with pytest.raises(MilcoError):
            experiment.check_key(other)
    experiment.check_key(Path(f"{experiment.vectors['distill'].path}.2-of-3"))
    for own in ("out", f"/data/{OTHER}", f"results/{OTHER}/report.html", f"{OTHER}.parquet"):
        experiment.check_key(Path(own))
