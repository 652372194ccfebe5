"""When processes ask each other whether to stop, and that all of them stop together."""

import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from processes import in_processes
from torch import distributed

from milco.training import recovery


def steps(seconds: float, signalled: int) -> tuple[int, int]:
    """The step at which a training of 60 steps of so many seconds stops, and how often it has asked the others; the
    second process is sent a signal in one of the steps."""
    distributed.init_process_group("gloo")
    asked = 0

    def all_reduce(*arguments, **how) -> None:
        nonlocal asked
        asked += 1
        distributed.all_reduce(*arguments, **how)

    recovery.all_reduce = all_reduce
    interruption = recovery.Interruption()
    args, control = SimpleNamespace(device=torch.device("cpu")), SimpleNamespace(should_training_stop=False)
    state = SimpleNamespace(global_step=0, max_steps=60)
    interruption.on_train_begin(args, state, control)
    while state.global_step < state.max_steps and not control.should_training_stop:
        time.sleep(seconds)
        state.global_step += 1
        if state.global_step == signalled and distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        interruption.on_step_end(args, state, control)
    return state.global_step, asked


def test_quick_steps_are_not_held_up_to_ask_for_signals():
    (stopped, asked), other = in_processes(2, lambda: steps(0.02, signalled=0))
    assert (stopped, asked) == other and stopped == 60
    assert asked < 20


def test_all_stop_at_the_same_step_soon_after_one_is_asked():
    (stopped, _), other = in_processes(2, lambda: steps(0.02, signalled=3))
    assert stopped == other[0] and 3 <= stopped < 60


@pytest.mark.parametrize("signalled", [1, 2])
def test_slow_steps_are_asked_for_each_time(signalled, monkeypatch):
    monkeypatch.setattr(recovery, "ASK_AFTER", 0.05)
    (stopped, asked), other = in_processes(2, lambda: steps(0.1, signalled))
    assert (stopped, asked) == other == (signalled, signalled)
