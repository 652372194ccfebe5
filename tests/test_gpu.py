"""`make gpu`, run on a CPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from miniature import ROOT

from milco.config import Machine, parse
from milco.data import tokens
from milco.training.teacher import write_targets

sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu
import gpu_correct
import gpu_speed
import gpu_whole
import measure
import table

SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture
def bundle(values, prepared, encoder_checkpoint, teacher_checkpoint, tmp_path):
    """What `make gpu-bundle` writes, of the miniature experiment."""
    config = parse({**values, "model": {**values["model"], "encoder_layers": 1}})
    corpora, packed = prepared
    length = config.align.max_length
    tokens.build(corpora, encoder_checkpoint, length, 1, tmp_path / "tokens")
    write_targets(corpora, teacher_checkpoint, length, 4, tmp_path / "targets")
    inputs = {
        "corpora": corpora,
        "development": corpora,
        "tokens": tmp_path / "tokens",
        "targets": tmp_path / "targets",
        "packed": packed,
    }
    inputs |= {"encoder": encoder_checkpoint, "lsr": teacher_checkpoint}
    gpu_whole.pack(config, inputs, {"align": 0.25}, tmp_path / "bundle.tar.xz")
    return tmp_path / "bundle.tar.xz"


@pytest.mark.slow
def test_every_part_runs_on_a_processor_and_becomes_a_page(bundle, tmp_path, monkeypatch):
    results = tmp_path / "results"
    command = [sys.executable, SCRIPT, "--tiny", "--minutes", "60", "--bundle", bundle, "--results", results]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-9000:]
    found = {path.stem: json.loads(path.read_text()) for path in results.glob("*.json")}
    assert set(found) == {f"gpu-{name}" for name in gpu.PARTS}
    assert all(row["right"] for name in ("gpu-correct", "gpu-processes") for row in found[name])
    whole = {row["case"]: row for row in found["gpu-whole"]}
    assert [row["stopped_and_resumed"] for row in whole.values()] == ["yes", "yes"]
    assert all(0 <= row["dev_nDCG@10"] <= 1 for row in whole.values())
    assert whole["Stage 1 of the bundle"]["dev_nDCG@10_elsewhere"] == 0.25
    assert {row["case"] for row in found["gpu-hours"]} == {"teacher targets", "Stage 1", "Stage 2", "encoding"}
    monkeypatch.setattr(table, "RESULTS", results)
    page = table.gpu_section(found)
    (said,) = (part for part in page.split("```") if part.startswith("yaml"))
    machine = Machine(**yaml.safe_load(said.removeprefix("yaml"))["machine"])
    assert all(getattr(machine, name) > 0 for name in table.SPEEDS)


@pytest.mark.slow
def test_the_project_need_not_be_installed_and_a_missing_package_is_one_line(tmp_path):
    (tmp_path / "milco.py").write_text("raise AssertionError('another project')")  # one that is installed
    (tmp_path / "pydantic.py").write_text("raise ModuleNotFoundError('made', name='pydantic')")
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, SCRIPT, "hours"], env=variables, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "package pydantic is missing here, and every part needs it", done.stderr


def test_without_the_package_that_counts_texts_there_are_no_hours(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (row,) = gpu.hours({"align_pairs_per_second": 1.0})
    assert "mteb" in row["note"]


def test_a_gpu_is_wanted_unless_it_is_tiny(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # else it would be measured
    monkeypatch.setattr(sys, "argv", ["gpu.py", "head"])
    with pytest.raises(SystemExit, match="no GPU"):
        gpu.main()


def test_every_row_is_on_disk_before_the_next_one_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)

    def part(sizes, bundle):
        yield {"case": "first", "right": True}
        assert [row["case"] for row in json.loads((tmp_path / "gpu-made.json").read_text())] == ["first"]
        yield {"case": "second", "right": False}
        raise KeyboardInterrupt

    monkeypatch.setitem(gpu.PARTS, "made", (1.0, part))
    assert gpu.run("made", gpu.TINY, tmp_path, end=float("-inf"))  # after the first row its time is over
    with pytest.raises(KeyboardInterrupt):
        gpu.run("made", gpu.TINY, tmp_path, end=float("inf"))
    assert len(json.loads((tmp_path / "gpu-made.json").read_text())) == 2


def test_rows_survive_when_the_next_one_is_cut_off_in_writing(monkeypatch, tmp_path):
    def cut_off(path, text, **how):
        path.open("w").write(text[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    measure.write("gpu-made", [{"case": "first"}])
    monkeypatch.setattr(Path, "write_text", cut_off)
    with pytest.raises(KeyboardInterrupt):
        measure.write("gpu-made", [{"case": "first"}, {"case": "second"}])
    (row,) = json.loads((tmp_path / "gpu-made.json").read_text())
    assert row["case"] == "first"


def test_a_wrong_row_makes_the_command_fail(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setitem(gpu.PARTS, "made", (1.0, lambda sizes, bundle: [gpu_correct.row("head", 0.1, 0.0)]))
    assert not gpu.run("made", gpu.TINY, tmp_path, end=float("inf"))


def test_a_part_that_fails_or_hangs_leaves_the_others_alone(monkeypatch, tmp_path, capsys):
    script = tmp_path / "parts.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "if sys.argv[1] == 'head': sys.exit(1)\n"
        "if sys.argv[1] == 'whole':\n"
        "    training = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    print(training.pid, file=open(__file__ + '.pid', 'w'), flush=True)\n"
        "    time.sleep(60)\n"
        "assert float(sys.argv[3]) >= 0 and sys.argv[4:] == ['--results', 'here']\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setattr(gpu, "GRACE", 5.0)
    parts = ["head", "correct", "whole", "hours"]
    assert list(gpu.in_turn(parts, 0.0, ["--results", "here"])) == [False, True, True, True]
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("gpu-head: FAILED; repeat:") and told[1].startswith("gpu-whole: ended in the middle")
    training = int((tmp_path / "parts.py.pid").read_text())
    assert not psutil.pid_exists(training) or psutil.Process(training).status() == psutil.STATUS_ZOMBIE


def test_numbers_of_which_one_is_nan_differ():
    nan = torch.tensor([1.0, torch.nan])
    assert gpu_correct.difference(nan, nan) == 0
    assert gpu_correct.difference(torch.ones(2), nan) == float("inf")


def test_a_gradient_that_is_nothing_but_rounding_is_no_finding():
    wanted = {"weight": torch.tensor([3.0]), "key.bias": torch.tensor([3e-11]), "query.bias": torch.tensor([2e-5])}
    assert gpu_correct.worst_of(wanted | {"key.bias": torch.tensor([-3e-11])}, wanted) < 1e-6
    assert gpu_correct.worst_of(wanted | {"query.bias": torch.tensor([0.0])}, wanted) > 1e-2
    assert gpu_correct.worst_of(wanted | {"weight": torch.tensor([3.01])}, wanted) > 1e-3


def test_the_largest_size_that_fits_is_found_by_doubling():
    tried = []

    def work(size: int) -> None:
        tried.append(size)
        if size > 5:
            raise torch.OutOfMemoryError("made")

    assert gpu_speed.fits(work, 1, 100) == 4 and tried == [1, 2, 4, 8]
    assert gpu_speed.fits(work, 1, 2) == 2
    assert gpu_speed.fits(work, 6, 100) == 0


def test_a_step_that_runs_out_of_memory_leaves_no_gradients():
    recipe = gpu_speed.Recipe(torch.nn.Linear(2, 1), bf16=False)
    recipe.model.device = torch.device("cpu")

    def work(model):
        model(torch.ones(1, 2)).sum().backward()
        raise torch.OutOfMemoryError("made")

    with pytest.raises(torch.OutOfMemoryError):
        recipe.step(work)
    assert recipe.model.weight.grad is None


def test_a_way_that_runs_out_of_memory_is_a_note():
    def plain() -> None:
        raise torch.OutOfMemoryError("made")

    row = gpu_speed.side_by_side(plain, lambda: None, gpu.TINY)
    assert row["note"] == "plain runs out of memory" and row["milco_s"] >= 0


def test_without_a_bundle_the_rest_still_runs(tmp_path):
    (row,) = gpu_whole.whole(gpu.TINY, tmp_path / "missing.tar.xz")
    assert "make gpu-bundle" in row["note"]
