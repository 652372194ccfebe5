"""The programs that take hours, killed in the middle: what was made stays, and the result is the same to the byte."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from milco import config

pytestmark = pytest.mark.slow

# A program with small, slow parts, which says when a part has its name.
PROGRAM = r"""
import os, sys, time
import milco.data.pairs, milco.data.shards, milco.evaluation.encode
from milco.stages.__main__ import app

milco.data.shards.ROWS, milco.data.shards.FILE_ROWS, milco.evaluation.encode.WINDOW = 10, 10, 7
milco.data.pairs.PART = 10
replace = os.replace

def told(source, target):
    replace(source, target)
    os.write(1, f"made {os.path.basename(target)}\n".encode())  # at once: two processes share the pipe
    time.sleep(float(os.environ["PAUSE"]))

os.replace = told
app()
"""


def kill(process: subprocess.Popen) -> None:
    """Kill it with all its children, without warning."""
    children = psutil.Process(process.pid).children(recursive=True)
    for each in (process, *children):
        each.kill()
    assert process.wait() == -9


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Program:
    """One of milco.stages, with the inputs that it reads."""

    def __init__(self, folder: Path, values: dict, parts: str):
        self.folder, self.parts = folder, parts
        self.file, self.settings = folder / "program.py", folder / "settings.yaml"
        self.file.write_text(PROGRAM)
        config.parse(values).save(self.settings)

    def start(self, output: str, *arguments: object, processes: int = 1, pause: float = 0.0) -> subprocess.Popen:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *(launch if processes > 1 else []), self.file, *arguments]
        command += ["--config", self.settings, "--output", self.folder / output]
        environment = {**os.environ, "PAUSE": str(pause), "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, env=environment)

    def made(self, process: subprocess.Popen) -> Iterator[str]:
        """Parts that a process makes."""
        for line in process.stdout or ():
            if found := re.fullmatch(rf"made ({self.parts})\n", line):
                yield found[1]

    def finish(self, output: str, *arguments: object, processes: int = 1) -> list[str]:
        """All parts that a run makes."""
        process = self.start(output, *arguments, processes=processes)
        made = list(self.made(process))
        assert process.wait() == 0
        return made

    def check(self, *arguments: object, processes: int = 1, after: int = 3) -> None:
        """Whether the next run reuses the parts of a killed one, and its result is that of an undisturbed run."""
        everything = self.finish("undisturbed", *arguments)
        process = self.start("out", *arguments, processes=processes, pause=0.3)
        lost = self.made(process)
        before = [next(lost) for _ in range(after)]
        kill(process)
        before += lost
        assert not (self.folder / "out").exists()
        rest = self.finish("out", *arguments, processes=processes)
        assert sorted(before + rest) == sorted(everything) and len(before) >= after and len(rest) > 1
        one, other = (contents(self.folder / name) for name in ("undisturbed", "out"))
        assert one.keys() == other.keys() and all(one[name] == other[name] for name in one)
        assert not list(self.folder.glob(".*"))


def test_killed_corpora_go_on(values, tmp_path):
    program = Program(tmp_path, values, r"\d+\.parquet")
    settings = config.parse(values)
    sources = {name: settings.sources[name].uri.removeprefix("file:") for name in settings.used_datasets()}
    program.check("corpora", *(f"--source={name}={path}" for name, path in sources.items()))


def test_a_killed_token_cache_goes_on(values, prepared, encoder_checkpoint, tmp_path):
    program = Program(tmp_path, values, r"(english|pairs)-\d+\.arrow")
    program.check("tokenize", "--corpora", prepared[0], "--encoder", encoder_checkpoint, after=10)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_targets_go_on_and_any_number_of_processes_makes_the_same(
    values, prepared, teacher_checkpoint, tmp_path, processes
):
    program = Program(tmp_path, values, r"targets-\d+\.arrow")
    program.check("teacher", "--corpora", prepared[0], "--teacher", teacher_checkpoint, processes=processes)


def test_killed_vectors_go_on(values, prepared, model_folder, tmp_path):
    program = Program(tmp_path, values, r"(queries|documents)-\d+\.safetensors")
    program.check("encode", "--system", "distill", "--corpora", prepared[0], "--model", model_folder, "--shard=1-of-1")


def test_parts_of_other_texts_or_settings_are_made_again(values, prepared, encoder_checkpoint, tmp_path):
    program = Program(tmp_path, values, r"(english|pairs)-\d+\.arrow")
    arguments = ["tokenize", "--corpora", prepared[0], "--encoder", encoder_checkpoint]
    everything = program.finish("undisturbed", *arguments)
    process = program.start("out", *arguments, pause=0.3)
    next(program.made(process))
    kill(process)
    config.parse({**values, "align": {**values["align"], "max_length": 3}}).save(program.settings)
    assert program.finish("out", *arguments) == everything
