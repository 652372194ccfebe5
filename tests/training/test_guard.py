"""Trainings that collapse or blow up are stopped with advice; sound ones are left alone."""

from types import SimpleNamespace

import pytest

from milco.errors import MilcoError
from milco.training.guard import MARK, Guard, refuse_if_stopped

SOUND = {"loss": 1.0, "active_query": 120.0, "empty_query": 0.02}
ARGUMENTS = SimpleNamespace(warmup_steps=10)


@pytest.fixture
def train(tmp_path):
    """Rows of a training, a step each, and the guard's answer to them."""
    guard = Guard(tmp_path, "distill", width=1000)

    def run(*rows: dict, first: int = 11) -> list[dict]:
        for step, row in enumerate(rows, first):
            state = SimpleNamespace(global_step=step)
            guard.on_step_begin(ARGUMENTS, state, None)
            guard.on_log(ARGUMENTS, state, None, logs=row)
        guard.on_train_end(ARGUMENTS, None, None)
        return list(rows)

    return run


def test_a_sound_training_is_left_alone(train, tmp_path):
    train(*({**SOUND, "loss": 5.0 / step} for step in range(1, 50)))
    refuse_if_stopped(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"empty_query": 1.0, "active_query": 0.0}, "no active dimensions any more .empty_query 100%.; lower lambda_q"),
        ({"active_query": 950.0}, "nearly every term is active .active_query 950 of 1000.; raise lambda_q"),
    ],
)
def test_what_lasts_stops_the_training_for_good(train, tmp_path, change, message):
    with pytest.raises(MilcoError, match=rf"distill was stopped at step 14: .*{message}"):
        train(SOUND, *[{**SOUND, **change}] * 3, SOUND)
    with pytest.raises(MilcoError, match=rf"step 14.*delete .*{MARK}"):
        refuse_if_stopped(tmp_path)
    (tmp_path / MARK).unlink()
    refuse_if_stopped(tmp_path)


@pytest.mark.parametrize(("rows", "first"), [(2, 11), (9, 1)])
def test_an_odd_row_or_a_warm_up_stops_nothing(train, rows, first):
    train(*[{**SOUND, "active_query": 990.0}] * rows, SOUND, first=first)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_at_once_even_in_the_warm_up(train, loss):
    with pytest.raises(MilcoError, match="step 2: the loss is no number any more; lower learning_rate"):
        train(SOUND, {**SOUND, "loss": loss}, SOUND, first=1)


def test_a_collapse_in_the_last_step_gives_no_model(train):
    with pytest.raises(MilcoError, match="stopped at step 13"):
        train(*[{**SOUND, "empty_query": 1.0}] * 3)


def test_a_spike_of_the_loss_is_marked_in_its_row(train):
    rows = train(*(dict(SOUND) for _ in range(5)), {**SOUND, "loss": 3.5}, dict(SOUND))
    assert ["spike" in row for row in rows] == [False] * 5 + [True, False]
