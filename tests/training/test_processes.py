"""What several processes write down is what one of them would."""

import json
import time

import pytest
from processes import in_processes

from milco.config import parse
from milco.data import tokens
from milco.training import align, distill
from milco.training.teacher import write_targets

RUN = {"num_train_epochs": 0.6, "learning_rate": 1e-12, "logging_steps": 1, "eval_steps": 1}


@pytest.fixture(scope="module")
def config(values):
    model = {**values["model"], "dropout": 0.0}
    stage = {**values["distill"], **RUN, "pretrained_alignment_checkpoint": "none", "sparse_reg": "flops"}
    evaluate = {**values["evaluate"], "development_documents": 30, "batch_size": 4}
    return parse({**values, "model": model, "distill": stage, "evaluate": evaluate})


@pytest.fixture(scope="module")
def rows(config, prepared, encoder_checkpoint, teacher_checkpoint, tmp_path_factory):
    """Processes → the rows of metrics.jsonl, in which losses are those of the same weights at every step."""

    def train(processes: int) -> list[dict]:
        folder = tmp_path_factory.mktemp(f"processes-{processes}")
        start = encoder_checkpoint, teacher_checkpoint, prepared[0], folder / "model"
        in_processes(processes, lambda: distill.run(config, *prepared, *start))
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    return {processes: train(processes) for processes in (1, 2, 4)}


@pytest.mark.parametrize("processes", [2, 4])
def test_metrics_are_means_over_all_processes(rows, processes):
    names = {"loss", "agreement", "active_query", "active_document", "empty_query", "loss_distillation"}
    one, several = ([row for row in rows[n] if "loss" in row] for n in (1, processes))
    assert [row["step"] for row in several] == [row["step"] for row in one] == [1, 2, 3] and names <= one[0].keys()
    for wanted, found in zip(one, several, strict=True):
        assert {name: found[name] for name in names} == pytest.approx({name: wanted[name] for name in names}, rel=1e-4)


def test_the_connector_is_fitted_once_for_all_processes_and_not_at_a_resume(
    values, prepared, encoder_checkpoint, teacher_checkpoint, monkeypatch, tmp_path
):
    corpora, length = prepared[0], values["align"]["max_length"]
    tokens.build(corpora, encoder_checkpoint, length, 1, tmp_path / "tokens")
    write_targets(corpora, teacher_checkpoint, length, 4, tmp_path / "targets")
    stage = {**values["align"], **RUN, "num_train_epochs": 0.3}
    config = parse({**values, "model": {**values["model"], "dropout": 0.0}, "align": stage})
    fit = align.fit_connector

    def seen(*arguments) -> float:
        with (tmp_path / "fitted.txt").open("a") as file:
            file.write("fitted\n")
        return fit(*arguments)

    monkeypatch.setattr(align, "fit_connector", seen)

    def train(processes: int) -> list[dict]:
        folder = tmp_path / f"processes-{processes}"
        inputs = tmp_path / "tokens", tmp_path / "targets", encoder_checkpoint, teacher_checkpoint
        in_processes(processes, lambda: align.run(config, corpora, *inputs, corpora, folder / "model"))
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    monkeypatch.setenv("MILCO_DEADLINE", str(time.time()))
    assert {row["step"] for row in train(2)} == {1}  # and a checkpoint
    monkeypatch.delenv("MILCO_DEADLINE")
    rows = train(2)
    assert (tmp_path / "fitted.txt").read_text() == "fitted\n"
    for wanted, found in zip(train(1), rows, strict=True):
        names = {"step"} | {name for name in wanted if name.startswith(("loss", "active", "empty", "dev"))}
        assert {name: found[name] for name in names} == pytest.approx({name: wanted[name] for name in names}, rel=1e-4)
    assert {row["step"] for row in rows} == {1, 2, 3}
