"""Recovery of interrupted trainings: time limits, signals, full disks, broken checkpoints, concurrent runs.

A run folder belongs to one training at a time (`.lock`). Each checkpoint stores the checksums of its files, by which
damage is detected. The finished model lies in `.trained`, hard-linked to the output: if the workflow does not know that
a training has finished, it gets the model instead of training again.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError
from torch.distributed import ReduceOp, TCPStore, all_reduce, is_initialized
from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from milco.content import sample_of
from milco.environment import environment
from milco.errors import MilcoError, leave_last_words
from milco.files import finished_folder, lock, wait_for_lock, write_json

SEAL = "sealed.json"
MADE = ["checkpoints", ".trained", "metrics.jsonl"]  # what a training makes in its run folder, beside the model
FORCED = ".forced"  # marks a run that --forcerun began
KEPT_CHECKPOINTS = 2
PATIENCE = timedelta(days=30)  # how long processes wait for the first one, which may itself wait for another training
ASK_AFTER = 1.0  # seconds of training after which processes ask each other again
UNKNOWN_SAVE = 60.0  # seconds that a checkpoint may take, before the first one is written


def first_decides(decide: Callable[[], str]) -> str:
    """Run a decision in the first process and broadcast the result."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return decide()
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    if int(os.environ["RANK"]) == 0:
        store.set("decision", decide())
    store.wait(["decision"], PATIENCE)
    return store.get("decision").decode()


def wait_for_others(folder: Path) -> IO:
    """Lock a run folder until the process ends."""
    file = (folder / ".lock").open("w")
    wait_for_lock(file, folder, "trains")
    return file


def seal(checkpoint: Path) -> None:
    """Write down the checksum of every file of a checkpoint."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    write_json(checkpoint / SEAL, {str(path.relative_to(checkpoint)): _checksum(path) for path in files})


def damage(checkpoint: Path) -> str | None:
    """Damage of a checkpoint; None if it matches its checksums."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        broken = [name for name, checksum in sealed.items() if _checksum(checkpoint / name) != checksum]
    except (OSError, ValueError) as error:
        return str(error)
    return f"{', '.join(broken)} changed or cut off" if broken else None


def last_checkpoint(folder: Path, keep: str = "last") -> Path | None:
    """The last sound checkpoint of a run; with `keep: best` the best one until then must be sound, too. Broken ones are
    reported and removed."""
    for checkpoint in reversed(checkpoints_of(folder)):
        wrong = damage(checkpoint)
        if wrong is None and keep == "best" and (best := best_of(checkpoint)) != checkpoint:
            wrong = (harm := damage(best)) and f"{best.name}, the best until then: {harm}"
        if wrong is None:
            return checkpoint
        print(f"{checkpoint}: broken ({wrong}); removed, the one before it is taken", flush=True)
        shutil.rmtree(checkpoint)
    return None


def checkpoints_of(folder: Path) -> list[Path]:
    """Checkpoints of a run, the oldest first."""
    return sorted((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))


def state_of(checkpoint: Path) -> TrainerState:
    """How far a training was at a checkpoint, and which development evaluation was its best."""
    return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))


def best_of(checkpoint: Path) -> Path:
    """The checkpoint that was the best one when this one was written; itself before the first evaluation."""
    step = state_of(checkpoint).best_global_step
    return checkpoint if step is None else checkpoint.with_name(f"checkpoint-{step}")


def forget_old_checkpoints(folder: Path, keep: str) -> None:
    """Keep the last checkpoints and, with `keep: best`, the one that was best at each of them; remove all others."""
    kept = checkpoints_of(folder)[-KEPT_CHECKPOINTS:]
    needed = {*kept, *map(best_of, kept)} if keep == "best" else {*kept}
    for old in checkpoints_of(folder):
        if old not in needed:
            shutil.rmtree(old)


def draft_of(folder: Path) -> Path:
    """Where checkpoints of a run are written before they take their name."""
    return folder / "checkpoints" / ".draft"


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(what: str, folder: Path, settle: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Context manager: turn a write error into one line, which also says that earlier files are intact.

    Args:
        settle: waits until no other process writes there; called before the draft is removed.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have errors of their own
        settle()
        shutil.rmtree(draft_of(folder), ignore_errors=True)
        kept = checkpoints_of(folder)
        raise MilcoError(
            f"{what} could not be written: {str(error).splitlines()[0]} "
            f"({shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free in {folder}). Make room and start again; "
            + (f"{kept[-1].name} is complete and will be taken" if kept else "there is no checkpoint yet")
        ) from error


def finish(folder: Path, output: Path, save: Callable[[Path], None]) -> None:
    """Write the finished model, link it to `output`, and remove the checkpoints."""
    with writing("the finished model", folder), finished_folder(folder / ".trained") as draft:
        save(draft)
    (folder / FORCED).unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    hand_out(folder, output)


def hand_out(folder: Path, output: Path) -> None:
    """Hard-link the finished model of a run folder to the workflow's output."""
    with finished_folder(output) as draft:
        shutil.copytree(folder / ".trained", draft, dirs_exist_ok=True, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def put_outdated_aside(folder: Path, inputs: list[Path]) -> None:
    """Start a run again if the content of its inputs has changed since it began. What it made before moves to
    `outdated-1`, `outdated-2`, …"""
    path = folder / "inputs.json"
    now = {str(place): sample_of(place) for place in inputs}
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    changed = [place for place, content in now.items() if content not in before.values()]  # wherever it lies
    if changed:
        _move_aside(folder, MADE, f"{', '.join(changed)} changed")
    if before != now or not path.exists():
        write_json(path, now)


def begin_anew(folder: Path) -> None:
    """Start a training again if --forcerun asks for it: what was made before moves aside. A forced run that was stopped
    resumes when the same command is repeated, and a run that is still at work is left alone."""
    if not folder.exists():
        return
    with (folder / ".lock").open("w") as file:
        if lock(file) and ((folder / ".trained").exists() or not (folder / FORCED).exists()):
            _move_aside(folder, MADE, "forced")
            (folder / FORCED).touch()


def _move_aside(folder: Path, names: list[str], why: str) -> None:
    found = [name for name in names if (folder / name).exists()]
    if found:
        aside = next(place for n in count(1) if not (place := folder / f"outdated-{n}").exists())
        aside.mkdir()
        for name in found:
            (folder / name).rename(aside / name.lstrip("."))
        print(f"{folder}: {why}; training starts anew, what was made before lies in {aside.name}", flush=True)


def note_changes(stage: str, made: str, folder: Path) -> None:
    """Say what differs between the packages and code that last wrote to a run folder and those of today."""
    path = folder / "environment.json"
    if not path.exists():
        return
    before, now = json.loads(path.read_text(encoding="utf-8")), environment()
    versions = {**{name: before["packages"].get(name) for name in now["packages"]}, "code": before.get("code")}
    today = {**now["packages"], "code": now["code"]}
    for name in today:
        if versions[name] != today[name]:
            print(f"{stage}: note that {made} was made with another version: {name} {versions[name]} → {today[name]}")


def outlive_signals(worker: int) -> None:
    """Make a data-loader worker survive the signals that ask a training to stop (`worker_init_fn`).

    A terminal and SLURM send them to every process, and a training whose worker died of one fails before it can save.
    A worker ends with its training, or when the training itself asks for it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere the sender of a signal is unknown
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        training = multiprocessing.parent_process()
        assert training is not None  # this is a worker
        threading.Thread(target=_end_when_told, args=(training.pid,), daemon=True).start()


def _end_when_told(training: int | None) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != training:
        pass
    os._exit(0)


def shield_workers() -> None:
    """Protect workers from the signals that ask a training to stop. Call this before any worker is forked.

    Since Python 3.14 workers are forked from a server, which must outlive the signals itself. Where the training itself
    is forked, SIGTERM stays blocked in the worker until `outlive_signals` waits for it: a signal may come earlier, and
    threads that libraries such as gRPC have started by then must not take it.
    """
    method = multiprocessing.get_start_method()
    if method == "forkserver":
        resource_tracker.ensure_running()  # else the server starts it, which unblocks both signals
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
        forkserver.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
    elif method == "fork" and sys.platform == "linux":
        _block_while_forking()


@cache
def _block_while_forking() -> None:
    earlier = threading.local()

    def block() -> None:
        earlier.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def restore() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier.mask)

    os.register_at_fork(before=block, after_in_parent=restore)


class Interruption(TrainerCallback):
    """Ends a training after a checkpoint, in time for its deadline or when SIGTERM or SIGINT asks for it.

    All processes stop at the same step, whichever of them got the signal. They synchronise only about once a second,
    because each time they wait for their devices. The deadline is `MILCO_DEADLINE` in seconds since 1970, set by
    launch.sh from the job's time limit.
    """

    def __init__(self) -> None:
        deadline = os.environ.get("MILCO_DEADLINE") or "inf"
        try:
            self.deadline = float(deadline)
        except ValueError:
            raise MilcoError(f"MILCO_DEADLINE: {deadline!r} is no number of seconds since 1970") from None
        self.asked: int | None = None
        self.reason: str | None = None
        self.longest_step = 0.0
        self.longest_save: float | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.earlier = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        self.began = self.step_began = self.asked_others = time.time()
        self.asks_since, self.asks_at = state.global_step, state.global_step + 1

    def _ask(self, number: int, frame) -> None:
        self.asked = number

    def on_step_end(self, args, state, control, **kwargs):
        now = time.time()
        self.longest_step = max(self.longest_step, now - self.step_began)
        self.step_began = now
        wish = 1 if now + self._reserve() > self.deadline else 0
        wish = self.asked or wish
        if is_initialized():
            if state.global_step < self.asks_at:
                return
            took = (now - self.asked_others) / max(1, state.global_step - self.asks_since)
            wishes = torch.tensor([float(wish), took], device=args.device)
            all_reduce(wishes, op=ReduceOp.MAX)
            wish, took = int(wishes[0]), float(wishes[1])
            self.asks_since, self.asked_others = state.global_step, time.time()
            self.asks_at = state.global_step + max(1, int(ASK_AFTER / max(took, 1e-3)))
        if wish and state.global_step < state.max_steps:
            self.reason = "in time for its time limit" if wish == 1 else f"because of {signal.Signals(wish).name}"
            control.should_save = control.should_training_stop = True

    def _reserve(self) -> float:
        """Seconds that the next step, the checkpoint after it and the end of the program may take."""
        save = self.longest_save
        if save is None:
            save = min(UNKNOWN_SAVE, 0.2 * (self.deadline - self.began))
        return 2 * (self.longest_step + save + (ASK_AFTER if is_initialized() else 0))

    def on_save(self, args, state, control, **kwargs):
        now = time.time()
        self.longest_save = max(self.longest_save or 0.0, now - self.step_began)
        self.step_began = now

    def on_train_end(self, args, state, control, **kwargs):
        if self.reason is None:  # else ours stay, for signals that come before the process ends
            for number, handler in self.earlier.items():
                signal.signal(number, handler)

    def report(self, stage: str, step: int, steps: int) -> None:
        """Report where the training stopped; launch.sh then asks for a restart."""
        message = f"{stage}: stopped {self.reason} after step {step} of {steps}; started again, it goes on there"
        print(message, flush=True)
        leave_last_words(message)
