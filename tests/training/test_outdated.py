"""When a training begins anew, and where what it made before is kept."""

import json
import os
from pathlib import Path

import pytest

from milco.environment import environment
from milco.files import write_json
from milco.training.recovery import begin_anew, finish, put_outdated_aside, wait_for_others


@pytest.fixture
def inputs(tmp_path) -> list[Path]:
    """What a training reads: a file and a folder."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (tmp_path / "triples.parquet").write_text("rows")
    return [folder, tmp_path / "triples.parquet"]


@pytest.fixture
def run(tmp_path, inputs) -> Path:
    """A run folder with a checkpoint and a finished model, made of the inputs."""
    folder = tmp_path / "run"
    for path in ("checkpoints/checkpoint-4/model", ".trained/model", "metrics.jsonl"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    write_json(folder / "environment.json", environment())
    put_outdated_aside(folder, inputs)
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_newer_times_and_stray_files_leave_everything_where_it_is(run, inputs):
    before = files(run)
    os.utime(inputs[0])
    os.utime(inputs[1], (2e9, 2e9))
    (inputs[0] / ".nfs0001").touch()
    (inputs[0] / "README.md").touch()
    put_outdated_aside(run, inputs)
    assert files(run) == before


def test_an_input_that_has_moved_is_the_same_input(run, inputs):
    before = files(run)
    put_outdated_aside(run, [inputs[0].rename(inputs[0].with_name("elsewhere")), inputs[1]])
    assert files(run) == before


def test_other_content_moves_aside_what_was_made_of_it_and_deletes_nothing(run, inputs, capsys):
    for number in (1, 2):
        (inputs[0] / "config.json").write_text(f"[{number}]")
        put_outdated_aside(run, inputs)
        aside = run / f"outdated-{number}"
        assert files(aside) == {"checkpoints/checkpoint-4/model", "trained/model", "metrics.jsonl"}
        assert f"{inputs[0]} changed; training starts anew, what was made before lies in {aside.name}" in (
            capsys.readouterr().out
        )
        for path in aside.iterdir():
            hidden = "." if path.name == "trained" else ""
            os.rename(path, run / f"{hidden}{path.name}")  # as if it had trained again
    put_outdated_aside(run, inputs)
    assert not (run / "outdated-3").exists()


def test_other_code_leaves_everything_where_it_is(run, inputs):
    before, path = files(run), run / "environment.json"
    write_json(path, {**json.loads(path.read_text()), "code": "of yesterday"})
    os.utime(inputs[0])
    put_outdated_aside(run, inputs)
    assert files(run) == before


def test_a_forced_run_begins_anew_once_and_deletes_nothing(run, capsys):
    before = files(run)
    begin_anew(run)
    assert not (run / ".trained").exists() and not (run / "checkpoints").exists()
    assert len(files(run)) == len(before) + 2  # .lock and the mark
    (run / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    stopped = files(run)
    begin_anew(run)  # the same command again, since it was stopped
    assert files(run) == stopped and (run / "checkpoints" / "checkpoint-2").exists()
    finish(run, run / "model", lambda draft: (draft / "weights").write_text("new"))
    begin_anew(run)
    assert not (run / ".trained").exists() and (run / "outdated-2" / "trained" / "weights").read_text() == "new"


def test_a_run_that_is_at_work_is_not_forced_to_begin_anew(run):
    with wait_for_others(run):
        before = files(run)
        begin_anew(run)
        assert files(run) == before


def test_a_run_that_never_began_has_nothing_to_forget(tmp_path):
    begin_anew(tmp_path / "none")
    assert not (tmp_path / "none").exists()
