"""Several training processes in a test, without torchrun: forked, so that nothing is imported again."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from typing import Any

from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.distributed import TCPStore, destroy_process_group, is_initialized

TIMEOUT = 300  # seconds


def in_processes(count: int, work: Callable[[], Any]) -> list[Any]:
    """What `work` gives in each of some processes that have torchrun's environment, in order of their ranks."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def run(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()  # an earlier test's
        try:
            results.put((rank, None, work()))
        except BaseException:
            results.put((rank, traceback.format_exc(), None))
        if is_initialized():
            destroy_process_group()

    started = [context.Process(target=run, args=(rank,), daemon=True) for rank in range(count)]
    for process in started:
        process.start()
    found = {}
    try:
        for _ in started:
            rank, error, value = results.get()
            assert error is None, error
            found[rank] = value
        for process in started:
            process.join(TIMEOUT)
    finally:
        for process in started:
            process.kill()
    return [found[rank] for rank in range(count)]
