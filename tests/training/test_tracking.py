"""Trainings are shown where the configuration says, with everything that metrics.jsonl has."""

import json
import os
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from milco.config import parse
from milco.errors import MilcoError
from milco.training import distill
from milco.training.tracking import trackers

VARIABLES = ("TENSORBOARD_LOGGING_DIR", "TRACKIO_DIR", "WANDB_DIR", "WANDB_MODE", "WANDB_PROJECT")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What trackers leave in the environment goes with the test."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


def test_tensorboard_has_all_numbers_of_the_metrics(prepared, values, encoder_checkpoint, teacher_checkpoint, tmp_path):
    stage = {"pretrained_alignment_checkpoint": "none", "logging_steps": 3, "eval_steps": 4}
    config = parse({**values, "tracking": "tensorboard", "distill": {**values["distill"], **stage}})
    distill.run(config, *prepared, encoder_checkpoint, teacher_checkpoint, prepared[0], tmp_path / "model")

    shown = EventAccumulator(str(tmp_path / "tracking"))
    shown.Reload()
    found = {(tag, event.step): event.value for tag in shown.Tags()["scalars"] for event in shown.Scalars(tag)}
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = [row for row in rows if "loss" in row]
    assert [row["step"] for row in logged] == [3, 6, 9]
    for row in logged:
        numbers = {(f"train/{name}", row["step"]): value for name, value in row.items() if name != "step"}
        assert {key: found[key] for key in numbers} == pytest.approx(numbers, rel=1e-5)
    looks = [row["dev_nDCG@10"] for row in rows if "dev_nDCG@10" in row]  # at 4, 8, and 10; shown with the next row
    assert [found["train/dev_nDCG@10", step] for step in (6, 9, 10)] == pytest.approx(looks)


def test_a_package_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [])  # where it may be installed
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(MilcoError, match=r"^tracking: wandb is not installed; `pip install wandb`, or set .* none$"):
        trackers("wandb", tmp_path / "tracking")
    assert not (tmp_path / "tracking").exists()


def test_by_default_nothing_is_shown(tmp_path):
    assert trackers("none", tmp_path / "tracking") == []
    assert not (tmp_path / "tracking").exists() and not set(VARIABLES) & os.environ.keys()


def test_what_the_user_has_set_counts(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "online")
    trackers("tensorboard", tmp_path)
    assert os.environ["WANDB_MODE"] == "online" and os.environ["WANDB_DIR"] == str(tmp_path)
