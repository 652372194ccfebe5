"""`keep: best` and `patience`, also after an interruption."""

import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import in_processes
from safetensors.torch import load_file

from milco.config import parse
from milco.data import tokens
from milco.modeling.model import MilcoModel
from milco.training import align, distill, trainer
from milco.training.development import Development
from milco.training.teacher import write_targets

pytestmark = pytest.mark.slow

STEPS, EPOCH = 12, 10  # steps of a training, and of an epoch
# The rate is so high that the model soon gets worse, and constant, so that a shorter training is its beginning.
LEARNING = {"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.0, "warm_start_texts": 0, "logging_steps": 1}
BEST, PATIENT = {"keep": "best"}, {"keep": "best", "patience": 3}


@pytest.fixture(scope="module")
def inputs(prepared, encoder_checkpoint, teacher_checkpoint, tmp_path_factory) -> list[Path]:
    """What Stage 1 reads: corpora, tokens, targets, both checkpoints, development collections."""
    folder, corpora = tmp_path_factory.mktemp("inputs"), prepared[0]
    tokens.build(corpora, encoder_checkpoint, 16, 1, folder / "tokens")
    write_targets(corpora, teacher_checkpoint, 16, 4, folder / "targets")
    return [corpora, folder / "tokens", folder / "targets", encoder_checkpoint, teacher_checkpoint, corpora]


@pytest.fixture(scope="module")
def train(values, inputs) -> Callable[..., Path]:
    """Trains Stage 1 in a folder and gives it back."""

    def run(folder: Path, steps: int = STEPS, **changes: Any) -> Path:
        settings = {**values["align"], **LEARNING, "num_train_epochs": steps / EPOCH, "eval_steps": 1, **changes}
        align.run(parse({**values, "align": settings}), *inputs, folder / "model")
        return folder

    return run


@pytest.fixture(scope="module")
def undisturbed(train, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("undisturbed"), **BEST)


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def looks(run: Path) -> list[float]:
    """What each look saw."""
    return [row["dev_nDCG@10"] for row in rows(run) if "dev_nDCG@10" in row]


def best(run: Path) -> int:
    """The step of the best look, the first of equal ones."""
    return looks(run).index(max(looks(run))) + 1


def same(one: Path, other: Path) -> bool:
    first, second = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def forked(work: Callable[[], object]) -> int:
    """Exit status of a process that does some work."""
    if (child := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(work: Callable[[], object], place: Any, name: str, time: int = 1) -> None:
    """Do some work in a process that is killed when it calls a function for so many times."""
    calls, real = 0, getattr(place, name)

    def called(*arguments, **how):
        nonlocal calls
        calls += 1
        return os.kill(os.getpid(), signal.SIGKILL) if calls == time else real(*arguments, **how)

    def patched() -> None:
        setattr(place, name, called)
        work()

    assert forked(patched) == -signal.SIGKILL


def test_the_best_look_is_kept_though_it_is_not_the_last_and_later_checkpoints_were_written(
    undisturbed, train, tmp_path
):
    kept = best(undisturbed)
    assert kept < STEPS - 4 and len(looks(undisturbed)) == STEPS  # save_steps is 4: two checkpoints came after it
    assert same(undisturbed, train(tmp_path / "shorter", kept))
    assert not same(undisturbed, train(tmp_path / "whole"))
    assert [row["step"] for row in rows(undisturbed) if row.get("best")][-1] == kept
    assert not (undisturbed / "checkpoints").exists()


def test_what_is_looked_at_is_an_input_where_it_decides(undisturbed, train, inputs, tmp_path):
    read = [json.loads((run / "inputs.json").read_text()) for run in (undisturbed, train(tmp_path, 1))]
    assert [len(found) for found in read] == [5, 5] and str(inputs[-1]) in read[0]  # the miniature's are its corpora


def test_a_training_that_is_cut_off_after_every_step_keeps_the_same(undisturbed, train, tmp_path, monkeypatch):
    monkeypatch.setenv("MILCO_DEADLINE", "0")
    for step in range(1, STEPS):
        assert forked(lambda: train(tmp_path, **BEST)) == 0
        assert not (tmp_path / "model").exists() and (tmp_path / "checkpoints" / f"checkpoint-{step}").exists()
        assert len(list(tmp_path.glob("checkpoints/checkpoint-*"))) <= 4
    monkeypatch.delenv("MILCO_DEADLINE")
    assert same(train(tmp_path, **BEST), undisturbed)
    assert looks(tmp_path) == looks(undisturbed)


@pytest.mark.parametrize("look", [2, 6, 7, 12])
def test_a_training_that_is_killed_in_a_look_keeps_the_same(undisturbed, train, tmp_path, look):
    killed(lambda: train(tmp_path, **BEST), Development, "look", look)
    assert same(train(tmp_path, **BEST), undisturbed)
    assert looks(tmp_path) == looks(undisturbed)


def test_a_checkpoint_whose_best_one_is_broken_is_not_gone_on_from(undisturbed, train, tmp_path, capsys):
    kept = best(undisturbed)
    killed(lambda: train(tmp_path, **BEST), Development, "look", kept + 3)
    last = sorted(tmp_path.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name[11:]))[-1]
    assert last.name != f"checkpoint-{kept}"
    with (tmp_path / "checkpoints" / f"checkpoint-{kept}" / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    assert same(train(tmp_path, **BEST), undisturbed)
    words = f"{last}: broken (checkpoint-{kept}, the best until then: model.safetensors changed or cut off); removed"
    assert words in capsys.readouterr().out


def test_a_training_ends_after_looks_without_a_gain(undisturbed, train, tmp_path, capsys):
    kept = best(undisturbed)
    assert same(train(tmp_path / "best", **PATIENT), undisturbed)
    assert looks(tmp_path / "best") == looks(undisturbed)[: kept + 3]
    assert f"align: ended at step {kept + 3} of {STEPS}; its model is that of step {kept}" in capsys.readouterr().out
    last = train(tmp_path / "last", patience=3)
    assert same(last, train(tmp_path / "shorter", kept + 3)) and not same(last, undisturbed)


@pytest.mark.parametrize("changes", [BEST, PATIENT, {"patience": 3}], ids=str)
def test_a_training_that_had_ended_does_not_go_on_when_it_is_started_again(train, tmp_path, changes):
    changes = {**changes, "save_steps": 1}
    wanted = train(tmp_path / "undisturbed", **changes)
    killed(lambda: train(tmp_path / "killed", **changes), trainer, "finish")
    assert same(train(tmp_path / "killed", **changes), wanted)
    assert looks(tmp_path / "killed") == looks(wanted)
    assert (len(looks(wanted)) < STEPS) == ("patience" in changes)


def test_several_processes_end_together_and_keep_the_same_look(train, tmp_path):
    in_processes(2, lambda: str(train(tmp_path, **PATIENT)))
    seen = looks(tmp_path)
    assert len(seen) == min(STEPS, best(tmp_path) + 3)
    assert [row["step"] for row in rows(tmp_path) if row.get("best")][-1] == best(tmp_path)
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_stage_2_keeps_its_best_look_too(undisturbed, values, prepared, teacher_checkpoint, tmp_path):
    changes = {"learning_rate": 3e-2, "num_train_epochs": 2.0, "eval_steps": 1, "keep": "best", "logging_steps": 1}
    config = parse({**values, "distill": {**values["distill"], **changes}})
    corpora, triples = prepared
    distill.run(config, corpora, triples, undisturbed / "model", teacher_checkpoint, corpora, tmp_path / "model")
    assert best(tmp_path) < len(looks(tmp_path))
    model = MilcoModel.from_pretrained(tmp_path / "model").eval()
    assert Development(config, corpora, model).look()["dev_nDCG@10"] == max(looks(tmp_path))


def test_a_training_in_which_only_the_last_step_has_a_look_says_so(train, tmp_path, capsys):
    train(tmp_path, 2, keep="best", eval_steps=5)
    assert "align: note: only the last of 2 steps is evaluated; lower align.eval_steps" in capsys.readouterr().out
