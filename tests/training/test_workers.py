"""Workers that prepare batches beside a training process: what a signal does to them, and how they are started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from milco.config import parse
from milco.data import tokens
from milco.training.align import Pairs
from milco.training.batching import Steps
from milco.training.recovery import outlive_signals, shield_workers
from milco.training.teacher import Targets, write_targets
from milco.training.trainer import Shares, _share_of_a_step


@pytest.fixture(scope="module")
def shares(prepared, values, teacher_checkpoint, encoder_checkpoint, tmp_path_factory) -> Shares:
    """What the processes of Stage 1 do."""
    corpora, folder = prepared[0], tmp_path_factory.mktemp("stage-1")
    write_targets(corpora, teacher_checkpoint, 16, 8, folder / "targets")
    tokens.build(corpora, encoder_checkpoint, 16, 1, folder / "tokens")
    cache = tokens.TokenCache(folder / "tokens")
    pairs = Pairs(cache, Targets(folder / "targets"), 1, parse(values))
    return Shares(Steps(cache.lengths, cache.families, 8, 1.0, 0), 1, pairs)


def loader(shares: Shares, method: str, workers: int = 2, begin=outlive_signals) -> DataLoader:
    return DataLoader(
        shares, 1, num_workers=workers, collate_fn=_share_of_a_step, worker_init_fn=begin,
        multiprocessing_context=method if workers else None,
    )  # fmt: skip


def begun(shares: Shares) -> Iterator:
    """Batches, of which each worker has made the first: both have prepared for signals."""
    shield_workers()  # other tests have loaded libraries that start threads in them
    batches = iter(loader(shares, "fork"))
    next(batches), next(batches)
    return batches


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_make_the_same_batches_however_they_are_started(shares, method):
    for made, expected in zip(loader(shares, method), loader(shares, method, workers=0), strict=True):
        assert all(np.array_equal(made[name], expected[name]) for name in ("input_ids", "row", "weight", "english"))


def test_a_worker_outlives_the_signals_that_ask_a_training_to_stop_but_not_its_training(shares):
    batches = begun(shares)
    workers = [psutil.Process(process.pid) for process in batches._workers]  # no other test's
    for number in (signal.SIGTERM, signal.SIGINT):
        for worker in workers:  # not from this process: it may end them
            subprocess.run(["sh", "-c", f"kill -{int(number)} {worker.pid}"], check=True)
    time.sleep(0.5)
    assert len(list(batches)) == len(shares) - 2
    assert not psutil.wait_procs(workers, timeout=20)[1]


def begin_late(worker: int) -> None:
    """A worker that is told to end before it has begun."""
    subprocess.run(["sh", "-c", f"kill -TERM {os.getpid()}"], check=True)
    outlive_signals(worker)


def test_a_worker_outlives_a_signal_that_comes_before_it_waits_for_one(shares):
    shield_workers()  # a worker of the second epoch is forked when the training may have been asked already
    assert len(list(loader(shares, "fork", begin=begin_late))) == len(shares)


def test_a_training_that_fails_does_not_wait_for_its_workers_for_ever(shares):
    batches = begun(shares)
    workers = batches._workers
    torch.utils.data._utils.signal_handling._remove_worker_pids(id(batches))  # else their end is an error here
    batches._worker_pids_set = False
    for worker in workers:
        worker.terminate()  # as multiprocessing does when the process exits
        worker.join(timeout=20)
    assert [worker.exitcode for worker in workers] == [0, 0]


SERVER = """
import multiprocessing, os, signal
from multiprocessing import forkserver
from milco.training.recovery import shield_workers
multiprocessing.set_start_method("forkserver")
shield_workers()
for number in (signal.SIGTERM, signal.SIGINT):
    os.kill(forkserver._forkserver._forkserver_pid, number)
connection, other = multiprocessing.Pipe(duplex=False)
multiprocessing.Process(target=other.send, args=["alive"]).start()
other.close()
print(connection.recv(), os.waitpid(forkserver._forkserver._forkserver_pid, os.WNOHANG))
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""


def test_the_server_that_forks_workers_outlives_the_signals_that_ask_a_training_to_stop():
    done = subprocess.run([sys.executable, "-c", SERVER], capture_output=True, text=True, timeout=120)
    assert done.stdout == "alive (0, 0)\n", done.stderr


LIBRARY = """
import subprocess
import grpc
from torch.utils.data import DataLoader
from milco.training.recovery import outlive_signals, shield_workers

channel = grpc.insecure_channel("localhost:1")  # its threads begin anew in each forked process
waiting = grpc.channel_ready_future(channel)
shield_workers()
batches = iter(DataLoader(range(20), 1, num_workers=1, worker_init_fn=outlive_signals))
next(batches)
for _ in range(5):
    subprocess.run(["sh", "-c", f"kill -TERM {batches._workers[0].pid}"], check=True)
print(len(list(batches)))
"""


def test_a_worker_outlives_the_signals_whatever_threads_a_library_starts_in_it():
    done = subprocess.run([sys.executable, "-c", LIBRARY], capture_output=True, text=True, timeout=120)
    assert done.stdout == "19\n", done.stderr
