"""What a stage writes down of where it was made."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from miniature import ROOT

from milco.environment import environment, gpu_without_bf16, record, record_as_parts, recorded


@pytest.fixture
def elsewhere() -> dict:
    return {**environment(), "commit": "abc1234", "devices": ["NVIDIA H200"]}


def test_a_folder_has_it_inside_and_a_file_beside_it(tmp_path):
    (tmp_path / "key").mkdir()
    (tmp_path / "key.parquet").touch()
    for made, place in (("key", "key/environment.json"), ("key.parquet", "key.environment.json")):
        assert recorded(tmp_path / made) == []
        record(tmp_path / made)
        assert recorded(tmp_path / made) == [json.loads((tmp_path / place).read_text())] == [environment()]


def test_packages_that_decide_the_rows_and_collections_of_others_are_told():
    """A baseline of sentence-transformers is computed by that package, and mteb says what a task is."""
    assert {"sentence-transformers", "mteb"} <= environment()["packages"].keys()


def test_what_was_made_before_in_another_place_is_not_forgotten(tmp_path, elsewhere):
    (tmp_path / "environment.json").write_text(json.dumps(elsewhere))
    for _ in range(3):  # a training that is resumed again and again
        record(tmp_path, recorded(tmp_path))
        assert recorded(tmp_path) == [environment(), elsewhere]
    record(tmp_path)
    assert recorded(tmp_path) == [environment()]


def test_what_is_put_together_was_made_where_its_parts_were(tmp_path, elsewhere):
    for name in ("one", "two", "three", "whole"):
        (tmp_path / name).mkdir()
    record(tmp_path / "one")
    (tmp_path / "two" / "environment.json").write_text(json.dumps(elsewhere))
    record(tmp_path / "three")
    record_as_parts(tmp_path / "whole", [tmp_path / name for name in ("one", "two", "three")])
    assert recorded(tmp_path / "whole") == [environment(), elsewhere]


def test_two_states_of_the_code_differ_and_programs_that_load_other_modules_do_not(tmp_path):
    shutil.copytree(ROOT / "milco", tmp_path / "milco", ignore=shutil.ignore_patterns("__pycache__"))

    def commit(*modules: str) -> str:
        program = (
            f"import {', '.join(['milco.environment', *modules])}; print(milco.environment.environment()['commit'])"
        )
        return subprocess.check_output([sys.executable, "-c", program], cwd=tmp_path, text=True).strip()

    def git(*words: str) -> None:
        named = ["-c", "user.name=n", "-c", "user.email=n@n"]
        subprocess.run(["git", *named, *words], cwd=tmp_path, check=True, capture_output=True)

    packed = commit()
    assert re.fullmatch(r"code \w{12}", packed) and commit("milco.languages") == packed
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    assert re.fullmatch(r"\w{7}", clean := commit())
    (tmp_path / "notes.txt").write_text("of no part in any result")
    git("add", "notes.txt")
    assert commit() == clean
    with (tmp_path / "milco" / "languages.py").open("a") as file:
        file.write("# changed\n")
    changed = commit()
    assert re.fullmatch(rf"{clean}\+\w{{7}}", changed) and commit("milco.languages") == changed
    (tmp_path / "milco" / "languages.py").write_text("# changed again\n")
    assert commit() not in (clean, changed)


def test_a_program_without_torch_does_not_load_it_to_write_that_down():
    program = "import sys; from milco.environment import environment; print(environment()['devices'], *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("['cpu']") and "torch" not in done.stdout.split()


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("7.5, Tesla T4\n", "Tesla T4"),
        ("9.0, NVIDIA H200\n7.0, Tesla V100-SXM2-16GB\n", "Tesla V100-SXM2-16GB"),
        ("8.0, NVIDIA A100-SXM4-40GB\n12.0, NVIDIA B200\n", None),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", None),
        ("", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("visible", [None, "0"])
def test_a_gpu_without_bfloat16_is_named_by_what_its_driver_says(tmp_path, monkeypatch, said, found, visible):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if said is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(
            f'#!/bin/sh\ntest "$3" = "{f"--id={visible}" if visible else ""}" && printf "%s" {shlex.quote(said)}\n'
        )
        program.chmod(0o755)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu_without_bf16.cache_clear()
    assert gpu_without_bf16() == found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpu_without_bf16.cache_clear()
    assert gpu_without_bf16() is None
    gpu_without_bf16.cache_clear()
