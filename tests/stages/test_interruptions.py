"""Interrupt jobs of every rule at random, and check partial files and final results.

A miniature is made once. Each round takes one of its nodes away, makes it again, and cuts that off at a random moment
in a random way, up to three times. Partial outputs never have a final name, other nodes do not change, finished files
of the node are not made again, and the final node equals the original. A hundred interruptions of the whole experiment,
all printed, with another seed:

    MILCO_TARGET=all MILCO_TEST_SEED=1 MILCO_INTERRUPTIONS=100 python -m pytest -s tests/stages/test_interruptions.py

Without MILCO_TARGET only what Stage 1 needs is made and interrupted.
"""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pandas as pd
import psutil
import pytest
from miniature import OFFLINE, Project

from milco.config import parse
from milco.experiments import Experiment, Node
from milco.files import draft_of

pytestmark = pytest.mark.slow

TIMES = int(os.environ.get("MILCO_INTERRUPTIONS", "4"))
TARGET = os.environ.get("MILCO_TARGET", "align")
TRAININGS = ("align", "distill")
MEASURED = ("seconds", "milliseconds", "bytes_per_second")  # columns of time, never twice the same
PARTS = ("*.arrow", "*.safetensors", ".staged/*/*.parquet")  # what a job that goes on reuses
TAKING_OVER = ("corpora", "tokenize", "teacher", "pack", "encode")
PASSING = {".snakemake_timestamp", "metrics.jsonl", "environment.json", "inputs.json", ".lock"}
# Where a node was made is written last, when it has its name; a job that is cut off there is made again.
PASSING |= {".environment.json.part", ".environment.json.lock"}


def kill_all(jobs: list[psutil.Process], chance: random.Random) -> None:
    for job in jobs:
        job.kill()


def kill_one(jobs: list[psutil.Process], chance: random.Random) -> None:
    chance.choice(jobs).kill()


def terminate(jobs: list[psutil.Process], chance: random.Random) -> None:
    for job in jobs:
        job.terminate()


def interrupt(jobs: list[psutil.Process], chance: random.Random) -> None:
    for job in jobs:
        job.send_signal(signal.SIGINT)


def fill_the_disk(jobs: list[psutil.Process], chance: random.Random) -> None:
    """No file can grow any more, as if the disk were full."""
    for job in jobs:
        job.rlimit(resource.RLIMIT_FSIZE, (0, 0))


def at_deadline(jobs: list[psutil.Process], chance: random.Random) -> None:
    """Nothing: a training looks at the clock itself."""


WAYS: list[Callable] = [kill_all, kill_one, terminate, interrupt, fill_the_disk]
SAVING = (terminate, interrupt, at_deadline)  # a training that is asked to stop loses no step


@pytest.fixture(scope="module")
def reference(tmp_path_factory, values) -> Project:
    """What an undisturbed run makes."""
    project = Project(tmp_path_factory.mktemp("reference"), values)
    project.configure(align={"dataloader_num_workers": 1}, distill={"dataloader_num_workers": 1})
    project.snakemake(TARGET)
    return project


def content(path: Path) -> dict[str, object]:
    """What a node holds, but for times that were measured."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    found: dict[str, object] = {}
    for file in files:
        name = str(file.relative_to(path))
        if file.name in PASSING or "outdated" in name:
            continue
        if file.suffix == ".parquet" or (path.parent.name == "runs" and file.suffix == ".json"):
            table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_json(file)
            found[name] = table.drop(columns=[c for c in table if any(word in c for word in MEASURED)]).to_json()
        elif file.suffix == ".seismic":
            found[name] = file.stat().st_size  # Seismic writes other bytes each time
        else:
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def family(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def at_work(snakemake: psutil.Process, rule: str) -> bool:
    """Whether a job of the rule has begun."""
    for process in family(snakemake):
        with suppress(psutil.NoSuchProcess):
            if any(pair in (("milco.stages", rule), ("milco", rule)) for pair in pairwise(process.cmdline())):
                return True
    return False


class Round:
    """A copy of the reference without one node, in which that node is made."""

    def __init__(self, reference: Project, folder: Path, node: Node):
        subprocess.run(["cp", "-a", f"{reference.folder}/.", folder], check=True)
        self.project, self.node, self.path = Project.__new__(Project), node, folder / node.path
        self.project.folder, self.project.values = folder, reference.values
        self.seconds = float(pd.read_csv(next(folder.glob(node.times)), sep="\t").s.iloc[0])
        lost = self.path.parent if node.rule in TRAININGS else self.path
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()

    def cut_off(self, way: Callable, chance: random.Random) -> bool:
        """Whether the job was still at work when it was cut off."""
        variables = {**os.environ, **OFFLINE}
        if way is at_deadline:
            variables["MILCO_DEADLINE"] = str(time.time() + chance.uniform(4, 4 + self.seconds))
        started = subprocess.Popen(
            self.project.command("--nolock", "--", self.node.path), env=variables, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        snakemake = psutil.Process(started.pid)
        while not at_work(snakemake, self.node.rule) and started.poll() is None:
            time.sleep(0.02)
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, self.seconds))
        else:  # most of the time goes by before anything is written
            while not self.writes and started.poll() is None:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.5))
        everyone = family(snakemake)
        jobs = [process for process in everyone if process != snakemake and process.is_running()]
        alive = at_work(snakemake, self.node.rule)
        for_all = [*jobs, snakemake] if way in (kill_all, interrupt) else jobs
        with suppress(psutil.NoSuchProcess):
            if alive and for_all:
                way(for_all, chance)
        started.wait(timeout=600)
        if way is at_deadline:
            alive = not self.path.exists()
        for process in psutil.wait_procs(everyone, timeout=60)[1]:
            process.kill()
        return alive

    @property
    def writes(self) -> bool:
        return self.step > 0 if self.node.rule in TRAININGS else draft_of(self.path).exists()

    def parts(self, place: Path) -> dict[str, tuple[int, int]]:
        """Finished files of a draft, or of the node: which file each name is."""
        files = [path for pattern in PARTS for path in place.glob(pattern)] if self.node.rule in TAKING_OVER else []
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}

    def take_over(self, parts: dict[str, tuple[int, int]]) -> None:
        """Check that what was finished before was not made again."""
        draft = draft_of(self.path)
        if draft.exists() or self.node.rule != "corpora":  # which puts its parts together in the end
            now = self.parts(draft if draft.exists() else self.path)
            assert parts.items() <= now.items(), (parts, now)

    @property
    def kept(self) -> int:
        """The last step that a training would go on from."""
        if (self.path.parent / ".trained").exists():  # only its name is missing
            return self.step
        found = self.path.parent.glob("checkpoints/checkpoint-*")
        return max((int(path.name.partition("-")[2]) for path in found), default=0)

    @property
    def step(self) -> int:
        metrics = self.path.parent / "metrics.jsonl"
        rows = metrics.read_text(encoding="utf-8").split("\n")[:-1] if metrics.exists() else []
        return max((json.loads(row)["step"] for row in rows), default=0)


def test_whatever_is_cut_off_ends_as_if_nothing_had_happened(reference, tmp_path):
    chance = random.Random(os.environ.get("MILCO_TEST_SEED", "0"))
    nodes = [n for n in Experiment(parse(reference.values)).nodes if (reference.folder / n.path).exists()]
    wanted = {node.path: content(reference.folder / node.path) for node in nodes}
    cut = turns = 0
    while cut < TIMES:
        node = chance.choice(nodes)
        folder = tmp_path / str(turns)
        turns += 1
        made = Round(reference, folder, node)
        for _ in range(chance.randint(1, 3)):
            way = chance.choice([*WAYS, at_deadline] if node.rule in TRAININGS else WAYS)
            parts = made.parts(draft_of(made.path))
            alive = made.cut_off(way, chance)
            cut += alive
            words = f"{'' if alive else ' came too late'}{f', {len(parts)} files were there' if parts else ''}"
            print(f"{cut}/{TIMES} {node.label}: {way.__name__}{words}", flush=True)
            made.take_over(parts)
            for other in nodes:  # nothing under a final name is half done, and nothing else is lost
                path = folder / other.path
                assert (other == node and not path.exists()) or content(path) == wanted[other.path], other.path
            if node.rule in TRAININGS and way in SAVING and alive and made.step:
                assert made.path.exists() or made.kept >= made.step, (made.kept, made.step)
            elif node.rule in TRAININGS and not made.path.exists():
                assert made.step - made.kept <= reference.values[node.rule]["save_steps"]
        parts = made.parts(draft_of(made.path))
        output = made.project.snakemake("--nolock", "--", node.path)
        made.take_over(parts)
        assert content(made.path) == wanted[node.path], output[-3000:]
        shutil.rmtree(folder)
