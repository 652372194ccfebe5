"""Trainings interrupted in every way end with the same result as uninterrupted ones."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from miniature import OFFLINE, ROOT, Project
from safetensors.torch import load_file

from milco.errors import MilcoError
from milco.training.recovery import damage, last_checkpoint, seal, writing

pytestmark = pytest.mark.slow

STEPS = 1000


def last_step(metrics: Path) -> int:
    """The last step that left a whole row of metrics."""
    rows = metrics.read_text(encoding="utf-8").split("\n")[:-1] if metrics.exists() else []
    return json.loads(rows[-1])["step"] if rows else 0


class Training:
    """Stage 1 of a prepared project, started by launch.sh in two processes, with a run folder of its own."""

    def __init__(self, prepared: Project, folder: Path):
        self.folder = folder
        inputs = {name: prepared.one(f"artifacts/{name}/*") for name in ("corpora", "tokens")}
        sources = prepared.values["sources"]
        options = {
            "config": prepared.one("results/miniature/config.yaml"),
            **inputs,
            "targets": prepared.one("artifacts/teacher/*"),
            "encoder": sources["encoder"]["uri"].removeprefix("file:"),
            "lsr": sources["lsr"]["uri"].removeprefix("file:"),
            "development": prepared.one("artifacts/development/align-*"),
            "output": folder / "model",
        }
        self.command = [str(ROOT / "workflow" / "scripts" / "launch.sh"), "1", "2", "0", "2", "log", "align"]
        self.command += [str(word) for name, value in options.items() for word in (f"--{name}", value)]

    def start(self, **environment: str) -> subprocess.Popen:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        variables = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        return subprocess.Popen(
            self.command, cwd=self.folder, env={**variables, **OFFLINE, "PATH": path, **environment},
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def finish(self, **environment: str) -> int:
        return self.start(**environment).wait(timeout=1800)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")  # a bar may be half written

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "model" / "model.safetensors")

    def step(self) -> int:
        return last_step(self.folder / "metrics.jsonl")

    def wait_for_progress(self, process: subprocess.Popen) -> None:
        before = self.step()
        while self.step() <= before and process.poll() is None:
            time.sleep(0.01)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, values) -> Project:
    """A project with all that Stage 1 reads."""
    project = Project(tmp_path_factory.mktemp("prepared"), values)
    epochs = STEPS * 8 / 80
    often = {"save_steps": 100, "logging_steps": 5, "eval_steps": STEPS}
    project.configure(align={"num_train_epochs": epochs, "dataloader_num_workers": 1, **often})
    project.snakemake("--until", "tokenize", "teacher", "development", "--", "align")
    return project


@pytest.fixture
def training(prepared, tmp_path) -> Training:
    return Training(prepared, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> Training:
    training = Training(prepared, tmp_path_factory.mktemp("undisturbed"))
    assert training.finish() == 0, training.log
    return training


def by_deadline(training: Training, chance: random.Random) -> None:
    """A time limit in the near future."""
    assert training.finish(MILCO_DEADLINE=str(time.time() + chance.uniform(4.5, 5.5))) == 75, training.log
    assert "stopped in time for its time limit" in training.log


def by_signal(number: int, training: Training, chance: random.Random) -> None:
    """A signal to all processes, as SLURM and a terminal send it."""
    process = training.start()
    training.wait_for_progress(process)
    time.sleep(chance.uniform(0, 0.4))
    os.killpg(process.pid, number)
    assert process.wait(timeout=600) == 75, training.log
    assert f"stopped because of {signal.Signals(number).name}" in training.log


def by_killing_a_rank(training: Training, chance: random.Random) -> None:
    process = training.start()
    training.wait_for_progress(process)
    time.sleep(chance.uniform(0, 0.4))
    children = psutil.Process(process.pid).children(recursive=True)
    found = {child.pid: child for child in children if child.cmdline()[1:4] == ["-u", "-m", "milco.stages"]}
    ranks = [child for child in found.values() if child.ppid() not in found]  # the others are workers of theirs
    assert len(ranks) == 2, [child.cmdline() for child in children]
    chance.choice(ranks).kill()
    assert process.wait(timeout=600) not in (0, 75), training.log


def test_a_training_that_is_cut_off_at_random_ends_with_the_same_weights(training, undisturbed):
    chance = random.Random(os.environ.get("MILCO_TEST_SEED", "0"))
    ways = 4 * [
        by_deadline,
        by_killing_a_rank,
        lambda *how: by_signal(signal.SIGTERM, *how),
        lambda *how: by_signal(signal.SIGINT, *how),
    ]
    chance.shuffle(ways)
    for way in ways[:12]:
        assert not (training.folder / "model").exists()
        way(training, chance)
    assert 0 < training.step() < STEPS
    assert training.finish() == 0, training.log
    assert "resumed from checkpoint-" in training.log
    assert same(training.weights, undisturbed.weights)
    steps = [json.loads(line)["step"] for line in (training.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps[:-1] == list(range(5, STEPS + 1, 5))  # each logged step once; then the last look


def test_a_training_whose_workers_a_server_forks_saves_when_it_is_asked_to_stop(training, tmp_path):
    # As since Python 3.14.
    (tmp_path / "sitecustomize.py").write_text("import multiprocessing; multiprocessing.set_start_method('forkserver')")
    process = training.start(PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    training.wait_for_progress(process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("forkserver" in " ".join(child.cmdline()) for child in children)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=600) == 75, training.log
    assert "stopped because of SIGTERM" in training.log


def test_a_checkpoint_that_was_cut_off_gives_way_to_the_one_before_it(training, undisturbed):
    process = training.start()
    while len(list(training.folder.glob("checkpoints/checkpoint-*"))) < 2:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=600)
    *_, before, last = sorted(training.folder.glob("checkpoints/checkpoint-*"), key=lambda p: int(p.name[11:]))
    with (last / "optimizer.pt").open("r+b") as file:
        file.truncate(1000)
    assert training.finish() == 0, training.log
    assert f"{last}: broken (optimizer.pt changed or cut off)" in training.log
    assert f"resumed from {before.name}" in training.log
    assert same(training.weights, undisturbed.weights)


def test_a_checkpoint_that_finds_no_room_leaves_the_last_one_and_says_so(training, undisturbed):
    training.finish(MILCO_DEADLINE=str(time.time()))  # one step, one checkpoint
    (kept,) = training.folder.glob("checkpoints/checkpoint-*")
    limit = (kept / "model.safetensors").stat().st_size // 2
    full = f"import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
    limited = Training.__new__(Training)
    limited.folder = training.folder
    limited.command = [sys.executable, "-c", full + "os.execv(sys.argv[1], sys.argv[1:])", *training.command]
    assert limited.finish() == 1
    assert "checkpoint-100 could not be written" in training.log.splitlines()[-1]
    assert f"{kept.name} is complete and will be taken" in training.log.splitlines()[-1]
    assert list((training.folder / "checkpoints").iterdir()) == [kept]
    assert training.finish() == 0, training.log
    assert same(training.weights, undisturbed.weights)


def test_a_lost_output_is_handed_out_again_without_training(undisturbed):
    weights = undisturbed.weights
    shutil.rmtree(undisturbed.folder / "model")
    assert undisturbed.finish() == 0
    assert "trained already" in undisturbed.log and "resumed" not in undisturbed.log
    assert same(undisturbed.weights, weights)
    assert not (undisturbed.folder / "checkpoints").exists()


def test_a_model_of_other_code_is_handed_out_with_a_note(undisturbed):
    weights, path = undisturbed.weights, undisturbed.folder / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "code": "of yesterday"}), encoding="utf-8")
    shutil.rmtree(undisturbed.folder / "model")
    assert undisturbed.finish() == 0
    assert "trained already" in undisturbed.log
    assert "note that the model was made with another version: code of yesterday → " in undisturbed.log
    assert same(undisturbed.weights, weights)


def test_a_touched_input_is_the_same_input(prepared, training):
    assert training.finish(MILCO_DEADLINE=str(time.time())) == 75
    for path in ("artifacts/teacher/*", "artifacts/corpora/*"):
        os.utime(prepared.one(path))
    assert training.finish(MILCO_DEADLINE=str(time.time())) == 75
    assert "resumed from checkpoint-1" in training.log and "after step 2 of" in training.log


def test_a_second_training_of_the_same_folder_waits_and_trains_nothing(training, undisturbed):
    first = training.start()
    training.wait_for_progress(first)
    log = training.log
    second = training.start()
    assert first.wait(timeout=600) == 0 and second.wait(timeout=600) == 0
    assert "another process still trains here" not in log
    assert "another process still trains here" in training.log and "trained already" in training.log
    assert same(training.weights, undisturbed.weights)


def test_a_training_that_blows_up_is_stopped_and_not_tried_again(prepared, training):
    settings = yaml.safe_load(prepared.one("results/miniature/config.yaml").read_text(encoding="utf-8"))
    settings["align"]["new_layer_learning_rate"] = 1e30
    (training.folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    training.command[training.command.index("--config") + 1] = str(training.folder / "config.yaml")
    for _ in range(2):
        assert training.finish() == 1
        # launch.sh ends the log with what the program had to say, below torchrun's traceback.
        assert "align was stopped at step 5: the loss is no number any more; lower" in training.log.splitlines()[-1]
    assert training.step() == 5 and not (training.folder / "model").exists()


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "checkpoints" / "checkpoint-20"
    (path / "tokenizer").mkdir(parents=True)
    (path / "model").write_text("weights")
    (path / "tokenizer" / "words").write_text("a b c")
    seal(path)
    return path


def test_a_sealed_checkpoint_is_sound(checkpoint, tmp_path):
    assert damage(checkpoint) is None
    assert last_checkpoint(tmp_path) == checkpoint


@pytest.mark.parametrize("name", ["model", "tokenizer/words", "sealed.json"])
@pytest.mark.parametrize("harm", ["cut", "change", "lose"])
def test_every_harm_to_a_checkpoint_is_found(checkpoint, tmp_path, capsys, name, harm):
    path = checkpoint / name
    content = path.read_text()
    path.unlink() if harm == "lose" else path.write_text(content[:-2] + ("" if harm == "cut" else "??"))
    assert damage(checkpoint)
    assert last_checkpoint(tmp_path) is None
    assert "broken" in capsys.readouterr().out and not checkpoint.exists()


def test_checkpoints_are_ordered_by_their_number(tmp_path):
    for number in (9, 100, 20):
        path = tmp_path / "checkpoints" / f"checkpoint-{number}"
        path.mkdir(parents=True)
        seal(path)
    assert last_checkpoint(tmp_path).name == "checkpoint-100"


def test_what_could_not_be_written_is_said_in_one_line(tmp_path):
    (tmp_path / "checkpoints" / ".draft").mkdir(parents=True)
    words = r"checkpoint-5 could not be written: .*No space.*MiB are free.*no checkpoint"
    with pytest.raises(MilcoError, match=words), writing("checkpoint-5", tmp_path):
        raise OSError(28, "No space left on device")
    assert not (tmp_path / "checkpoints" / ".draft").exists()
